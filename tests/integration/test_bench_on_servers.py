"""The benchmark of whole ingest processes, for some seconds and few calls."""

import csv
import os
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from callmood.__main__ import main
from callmood.bench import realtime

pytestmark = pytest.mark.timeout(300)


def test_two_processes_are_measured_on_real_servers(stack, monkeypatch, tmp_path, capsys):
    """Both read, utterances come into Redis, and the table and its samples have finite figures."""
    monkeypatch.setenv("CALLMOOD_KAFKA__BOOTSTRAP_SERVERS", stack.bootstrap_servers)
    monkeypatch.setenv("CALLMOOD_REDIS__URL", stack.redis_url)
    monkeypatch.setattr(realtime, "_WARM_S", 2.0)
    samples = tmp_path / "samples.csv"
    options = ("--calls", "20", "--seconds", "24", "--every-s", "24", "--processes", "2", "--samples", str(samples))
    assert main(["bench", "realtime", *options]) == 0
    assert "200 ms" in capsys.readouterr().out
    (sample,) = csv.DictReader(samples.read_text().splitlines())
    assert int(sample["utterances"]) > 0
    assert 500 < float(sample["p50_ms"]) < float("inf")
    assert 0 < float(sample["share"]) < 1
    assert 100 < float(sample["records"]) < 20 * 5 * 30  # a busy machine reads fewer, and those of the warm-up later


def test_a_benchmark_that_is_asked_to_stop_leaves_nothing(stack, redis_client, wait_until):
    """SIGTERM, as from a scheduler with a time limit: its topics and keys are removed, and its processes end."""
    addresses = {"CALLMOOD_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers, "CALLMOOD_REDIS__URL": stack.redis_url}
    command = (sys.executable, "-m", "callmood", "bench", "realtime", "--calls", "20", "--seconds", "600")
    with closing(KafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)) as admin:

        def made(of_key="*"):
            """Topics and keys of the benchmark."""
            topics = [name for name in admin.list_topics() if name.startswith("bench-realtime-")]
            return topics, list(redis_client.scan_iter(f"{{bench-realtime-*:{of_key}"))

        def has_no_process():
            """Whether all of its group have ended."""
            states = []
            for stat in Path("/proc").glob("[0-9]*/stat"):
                with suppress(OSError):  # it ends meanwhile
                    state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
                    states += [state] if int(group) == benchmark.pid else []
            return set(states) <= {"Z"}

        benchmark = subprocess.Popen(command, env=os.environ | addresses, process_group=0)
        try:
            assert wait_until(lambda: all(made("utterances")), 90), "calls are sent, and have results"
            benchmark.send_signal(signal.SIGTERM)
            assert benchmark.wait(60) == 128 + signal.SIGTERM
            assert wait_until(lambda: not any(made()), 10), made()
            assert wait_until(has_no_process, 10)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(benchmark.pid, signal.SIGKILL)
