"""The benchmark of whole ingest processes: what it reads of processes and of Redis, and what it computes."""

import csv
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from callmood.bench import realtime
from callmood.bench.ingest import Load
from callmood.bench.realtime import Processes, Run, Sample
from callmood.worker.errors import CallmoodError

RUN = Run(
    [Sample(10.0, 0.2, 10_000.0, 0.01, 90.0, [600.0]), Sample(20.0, 0.4, 10_000.0, 0.03, 95.0, [700.0, 800.0])], 3.0
)


def test_processes_are_counted_together():
    """CPU time and memory of two times the same process are twice its own."""
    once, twice = realtime.used_by([os.getpid()]), realtime.used_by([os.getpid()] * 2)
    assert once.cpu_s > 0
    assert once.resident_mb > 10
    assert twice.resident_mb == pytest.approx(2 * once.resident_mb, rel=0.1)
    assert twice.cpu_s == pytest.approx(2 * once.cpu_s, abs=0.1)


def test_records_are_counted_over_processes_and_topics(tmp_path):
    """Two processes, one of which reads two topics; other metrics do not count."""
    count = "from callmood.worker.metrics import RECORD_BYTES, RECORDS; RECORD_BYTES.labels('a').inc(1_000); "
    shared = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for more in ("RECORDS.labels('a').inc(7); RECORDS.labels('b').inc(20)", "RECORDS.labels('a').inc(300)"):
        subprocess.run([sys.executable, "-c", count + more], env=shared, check=True)
    read = "from callmood.bench import realtime; print(realtime.records_read())"
    done = subprocess.run([sys.executable, "-c", read], env=shared, check=True, capture_output=True, text=True)
    assert done.stdout == "327.0\n"


def test_a_run_is_the_mean_of_its_samples():
    """Shares are averaged, records and utterances are put together, and memory is that of the end."""
    shares = pytest.approx(0.3), pytest.approx(0.02)
    assert RUN.whole() == Sample(20.0, shares[0], 20_000.0, shares[1], 95.0, [600.0, 700.0, 800.0])


def test_channels_per_core_are_computed_from_cpu_time():
    """100 calls of two channels in 0.3 cores are 667 a core; their 1,000 records a second take 300 us each."""
    cells = realtime.row(Load(100, "customer,agent", 100, 30), 2, RUN)
    assert cells == ["100 ms", "2", "2", "200", "100 %", "30 %", "667", "300.0", "2.0 %", "48", "3", "700 / 798", "3"]


def test_a_sample_without_an_utterance_is_not_fast():
    """Its percentiles are infinite."""
    assert Sample(1.0, 0.1, 1.0, 0.1, 1.0, []).total_ms(50) == float("inf")


class Child:
    """A process with the reports it is given, and its exit code."""

    def __init__(self, reports, exit_code=None):
        self._reports, self.exit_code = reports, exit_code

    def reports(self):
        """Those since the last call."""
        found, self._reports = self._reports, []
        return found


def report(partitions, restoring=0):
    return SimpleNamespace(facts={"partitions": partitions, "restoring": restoring})


def test_measuring_begins_when_all_processes_read():
    """Until then each has said how many partitions it has, and restores none."""
    Processes([Child([report(4), report(2)]), Child([report(2, 1), report(2)])], None).wait_until_reading()


def test_a_process_that_ends_ends_the_measuring():
    """There is no figure of a process that does not read."""
    with pytest.raises(CallmoodError, match="has ended with 2"):
        Processes([Child([], exit_code=2)], Child([])).wait_until_reading()
    with pytest.raises(CallmoodError, match="has ended with 75"):
        Processes([Child([])], Child([], exit_code=75)).check()


def test_without_partitions_nothing_is_measured(monkeypatch):
    """The error says for how long it was waited."""
    monkeypatch.setattr(realtime, "_START_S", 0.0)
    with pytest.raises(CallmoodError, match="do not read after 0 s"):
        Processes([Child([])], Child([])).wait_until_reading()


def test_what_falls_behind_is_measured_by_what_it_reads():
    """Half of the records read in the same CPU time: half of the channels per core, twice the time for each record."""
    samples = [sample._replace(records=5_000.0, totals_ms=[2_200.0]) for sample in RUN.samples]
    cells = realtime.row(Load(100, "customer,agent", 100, 30), 2, Run(samples, 3.0))
    assert cells[4:8] == ["50 %, behind", "30 %", "333", "600.0"]


@pytest.mark.parametrize(("seconds", "every_s", "expected"), [(30, 10, 3), (15, 10, 2), (4, 10, 1)])
def test_a_run_has_whole_samples(seconds, every_s, expected):
    """It is at least as long as was asked for."""
    assert realtime.samples_in(seconds, every_s) == expected


def test_samples_are_kept_as_csv(tmp_path):
    """One line for each, with the percentiles of its utterances."""
    realtime.write_samples(tmp_path / "samples.csv", RUN.samples)
    lines = list(csv.reader((tmp_path / "samples.csv").read_text().splitlines()))
    assert lines[0] == ["at_s", "share", "records", "inference_share", "resident_mb", "utterances", "p50_ms", "p99_ms"]
    assert lines[2] == ["20.000", "0.400", "10000.000", "0.030", "95.000", "2", "750", "799"]


def test_samples_are_drawn(tmp_path):
    """The picture is a PNG."""
    realtime.draw(tmp_path / "samples.png", RUN.samples)
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


class Sender:
    """A sender that has ended like this."""

    def __init__(self, exit_code, reports=()):
        self.exit_code, self._reports = exit_code, list(reports)

    def wait(self, timeout_s):
        """It has."""
        return timeout_s > 0

    def reports(self):
        """All."""
        return self._reports


def test_a_sender_that_fails_ends_the_measurement():
    """At the next look, not after the last sample; one that has sent all does not."""
    running = Processes([Child([])], Child([]))
    running._replace(sender=Sender(0)).check()
    running._replace(sender=Sender(None)).check()
    for exit_code in (1, -9):
        with pytest.raises(CallmoodError, match=f"sender has ended with {exit_code}"):
            running._replace(sender=Sender(exit_code)).check()


def test_a_sender_says_how_late_it_was():
    """One that ends without a word has not sent all calls."""
    assert realtime.late_ms(Sender(0, [SimpleNamespace(facts={"late_ms": 4.0})])) == 4.0
    with pytest.raises(CallmoodError, match="has not sent all calls; its exit code is -9"):
        realtime.late_ms(Sender(-9))
