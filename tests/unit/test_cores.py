"""The cores that a container may use, from what the kernel shows in it."""

import os

import pytest

from callmood.worker.engine import infer
from callmood.worker.engine.cores import usable_cores
from callmood.worker.settings import ModelSettings

MANY = 64


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MANY)))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, MANY),
        ({"cpu.max": "max 100000\n"}, MANY),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "12800000 100000\n"}, MANY),
        ({"cpu.max": "nonsense"}, MANY),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, MANY),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_a_cpu_limit_counts(tmp_path, files, cores):
    """As docs.kernel.org describes `cpu.max` of cgroup v2, and `cpu.cfs_quota_us` of v1."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("threads", "torchs", "limit", "small", "expected"),
    [(0, 64, 4, 0, 4), (0, 2, 4, 0, 2), (3, 64, 4, 0, 3), (0, 64, 4, 10**7, 1), (2, 64, 4, 10**7, 2)],
)
def test_the_model_has_a_thread_for_each_core(monkeypatch, threads, torchs, limit, small, expected):
    """Never more than torch would take, which OMP_NUM_THREADS lowers; one if it is small; a setting counts as it is."""
    taken = []
    monkeypatch.setattr(infer, "usable_cores", lambda: limit)
    monkeypatch.setattr(infer, "_TORCHS_THREADS", torchs)
    monkeypatch.setattr(infer, "_SMALL", small)
    monkeypatch.setattr(infer, "compute_with", taken.append)
    infer.open_engine(ModelSettings(threads=threads, dtype="fp32"))
    assert taken[-1] == expected
    assert taken[0] == (threads or min(torchs, limit))  # also while it loads
