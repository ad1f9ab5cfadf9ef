"""The endpoints that Kubernetes and Prometheus ask."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from callmood.worker.run import health
from callmood.worker.run.health import Answer, Probes


def get(server, path):
    """Status, text and content type of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers["Content-Type"]


CHILD = """
import os
from prometheus_client import Counter, Gauge
Counter("test_records", "Records.").inc(5)
Gauge("test_live", "Live.", multiprocess_mode="livesum").set(3)
print(os.getpid())
"""
ALIVE, READY = Answer(is_ok=True, text="alive"), Answer(is_ok=True, text="ready")


def serving(is_alive=ALIVE, is_ready=READY):
    return health.serving(Probes(lambda: is_alive, lambda: is_ready), "127.0.0.1", 0)


def test_a_good_worker_says_200():
    """Each probe has its own answer, with a line for people."""
    with serving() as server:
        assert get(server, "/livez") == (200, "alive\n", "text/plain; charset=utf-8")
        assert get(server, "/readyz")[:2] == (200, "ready\n")


def test_a_bad_one_says_503_and_why():
    """Not ready is not dead: the two are told apart."""
    with serving(is_ready=Answer(is_ok=False, text="redis does not answer")) as server:
        assert get(server, "/readyz")[:2] == (503, "redis does not answer\n")
        assert get(server, "/livez")[0] == 200
    with serving(is_alive=Answer(is_ok=False, text="the model thread hangs")) as server:
        assert get(server, "/livez")[:2] == (503, "the model thread hangs\n")


def test_other_paths_do_not_exist():
    """A wrong path is answered with the right ones."""
    with serving() as server:
        assert get(server, "/health")[:2] == (404, "/livez, /readyz or /metrics\n")


def test_metrics_of_all_processes_are_added(monkeypatch, tmp_path):
    """The endpoint adds what every process has written, and a dead one's gauges no longer count."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    pids = [int(subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True).stdout) for _ in "ab"]
    with serving() as server:
        assert "test_live 6.0" in get(server, "/metrics")[1]
        health.forget_process(pids[1])
        status, text, content_type = get(server, "/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "test_live 3.0" in text
    assert "test_records_total 10.0" in text


def test_a_process_that_never_started_is_nothing_to_forget():
    """Without a process id there are no files."""
    health.forget_process(None)


@pytest.fixture
def _environment(monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "before")


@pytest.mark.usefixtures("_environment")
def test_the_folder_of_the_metrics_is_new_and_named_for_children():
    """Children of the worker find it in their environment; an older one is not used again."""
    folder = health.use_shared_metrics()
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == folder != "before"
    Path(folder).rmdir()  # refuses a folder that is not empty
