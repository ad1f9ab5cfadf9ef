"""The benchmark of whole ingest processes, for some seconds and few calls."""

import csv

import pytest

from callmood.__main__ import main
from callmood.bench import realtime

pytestmark = pytest.mark.timeout(300)


def test_two_processes_are_measured_on_real_servers(stack, monkeypatch, tmp_path, capsys):
    """Both read, utterances come into Redis, and the table and its samples have finite figures."""
    monkeypatch.setenv("CALLMOOD_KAFKA__BOOTSTRAP_SERVERS", stack.bootstrap_servers)
    monkeypatch.setenv("CALLMOOD_REDIS__URL", stack.redis_url)
    monkeypatch.setattr(realtime, "_WARM_S", 2.0)
    samples = tmp_path / "samples.csv"
    options = ("--calls", "20", "--seconds", "12", "--every-s", "12", "--processes", "2", "--samples", str(samples))
    assert main(["bench", "realtime", *options]) == 0
    assert "200 ms" in capsys.readouterr().out
    (sample,) = csv.DictReader(samples.read_text().splitlines())
    assert int(sample["utterances"]) > 0
    assert 500 < float(sample["p50_ms"]) < float("inf")
    assert 0 < float(sample["share"]) < 1
