"""Measure ingest processes with a real Kafka and a real Redis, calls in real time, and a model that answers at once.

Kafka and Redis are those of the environment (`python -m deploy.local run -- callmood bench realtime`). The ingest
processes are the worker's; the inference process is the worker's too, with an engine that costs nothing and without the
speech check. Another process sends the calls of `callmood bench ingest`. The figures are CPU times of the ingest
processes, all their threads, so that what the sender and the servers use of the same machine does not count; and the
time from the last word of an utterance to its result in Redis, in which it does.
"""

import argparse
import csv
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry, multiprocess
from rich.console import Console
from rich.table import Table

from callmood.bench import null_servers, process_tree
from callmood.bench.ingest import LAYOUTS, Load, dialogue, how_it_runs
from callmood.bench.programs import Results, of_worker
from callmood.bench.sender import send
from callmood.bench.temporary import end_on_sigterm, place
from callmood.schemas.keys import Keys
from callmood.worker import settings
from callmood.worker.commands.options import whole
from callmood.worker.errors import CallmoodError
from callmood.worker.inference.serve import serve
from callmood.worker.run import processes
from callmood.worker.run.child import SpawnedChild, Task
from callmood.worker.run.pinning import keep_to_own_cores
from callmood.worker.run.processes import Report
from callmood.worker.settings import Settings

_PARTITIONS: Final = 4
_WARM_S: Final = 10.0
"""Calls start, memory is taken, and the broker compiles what it does often."""
_MORE_S: Final = 3
"""Calls go on until the last sample is taken."""
AROUND_S: Final = round(_WARM_S) + _MORE_S
"""How much longer calls are sent than they are measured."""
_START_S: Final = 60.0
_SENT_S: Final = 60.0
"""After the last sample: the sender's last records, and its flush."""
FRESH_MS: Final = 2_000
"""Median time from last word to Redis at the end of a run in which sender and worker keep up, without the record."""
_RECORDS: Final = "callmood_records_total"
"""The metric of records read."""


class Used(NamedTuple):
    """What some processes have used until now: CPU time, and resident memory."""

    cpu_s: float
    resident_mb: float


class Sample(NamedTuple):
    """Some seconds of a run.

    Attributes:
        at_s: their end, since the measuring began.
        share: CPU time of all ingest processes, in cores.
        records: read by all ingest processes in this time.
        inference_share: of the inference process, in cores.
        resident_mb: memory of all ingest processes at the end.
        totals_ms: of each utterance that came into Redis, the time since its last word.
    """

    at_s: float
    share: float
    records: float
    inference_share: float
    resident_mb: float
    totals_ms: list[float]

    def total_ms(self, percentile: float) -> float:
        """That percentile of the time from last word to Redis."""
        return float(np.percentile(self.totals_ms, percentile)) if self.totals_ms else float("inf")


class Run(NamedTuple):
    """The samples of one load, and by how much the sender was late at most."""

    samples: list[Sample]
    sender_late_ms: float

    def whole(self) -> Sample:
        """All samples as one."""
        totals_ms = [total for sample in self.samples for total in sample.totals_ms]
        shares = np.mean([(sample.share, sample.inference_share) for sample in self.samples], axis=0)
        last, records = self.samples[-1], sum(sample.records for sample in self.samples)
        return Sample(last.at_s, float(shares[0]), records, float(shares[1]), last.resident_mb, totals_ms)


def used_by(pids: "list[int | None]") -> Used:
    """What these processes have used."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return Used(sum(map(process_tree.own_cpu_s, pids)), pages * resource.getpagesize() / 1e6)


def records_read() -> float:
    """Records that the ingest processes of `started` have read until now."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    found = (sample.value for metric in registry.collect() for sample in metric.samples if sample.name == _RECORDS)
    return sum(found, 0.0)


def inference(configured: Settings, address: str) -> None:
    """The inference process, with an engine that costs nothing."""
    keep_to_own_cores(configured.worker)
    serve(configured.model, address, lambda _: null_servers.Engine())  # type: ignore[arg-type, return-value]


# -- processes


class Processes(NamedTuple):
    """The processes that are measured."""

    ingest: list[SpawnedChild]
    inference: SpawnedChild
    sender: SpawnedChild | None = None
    """Not measured, but if it fails, nothing is."""

    def wait_until_reading(self) -> None:
        """Wait until the ingest processes have all partitions.

        Raises:
            CallmoodError: a process has ended, or the time is up.
        """
        until_s, partitions = time.monotonic() + _START_S, dict[str, int]()
        while sum(partitions.values()) < _PARTITIONS or len(partitions) < len(self.ingest):
            for number, child in enumerate(self.ingest):
                for report in child.reports():
                    if report.facts.get("partitions") and not report.facts["restoring"]:
                        partitions[str(number)] = report.facts["partitions"]
                if child.exit_code is not None:
                    raise CallmoodError(f"an ingest process has ended with {child.exit_code}")
            if time.monotonic() > until_s:
                raise CallmoodError(f"the ingest processes do not read after {_START_S:.0f} s")
            time.sleep(0.2)

    def check(self) -> None:
        """Read the reports, because a full pipe would stop the process.

        Raises:
            CallmoodError: a process has ended.
        """
        for child in (*self.ingest, self.inference):
            child.reports()
            if child.exit_code is not None:
                raise CallmoodError(f"a process that is measured has ended with {child.exit_code}")
        if self.sender is not None and self.sender.exit_code:
            raise CallmoodError(f"the sender has ended with {self.sender.exit_code}")


@contextmanager
def started(configured: Settings, count: int) -> Iterator[Processes]:
    """Start an inference process and so many ingest processes, with metrics as in a worker."""
    with tempfile.TemporaryDirectory(prefix="callmood-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        address, children = f"ipc://{folder}/inference", list[SpawnedChild]()
        try:
            task = Task("inference", inference, (configured, address), has_reports=False)
            children.append(SpawnedChild(task))
            for number in range(count):
                name = f"ingest-{number}"
                children.append(SpawnedChild(Task(name, processes.ingest, (configured, name, address))))
            yield Processes(children[1:], children[0])
        finally:
            for child in reversed(children):
                child.terminate()
            for child in reversed(children):
                child.wait(30.0)
                child.kill()
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


@contextmanager
def sending(load: Load, configured: Settings) -> Iterator[SpawnedChild]:
    """Another process that sends the calls, from now on; it ends with the block."""
    child = SpawnedChild(Task("sender", _send, (load, configured)))
    try:
        yield child
    finally:
        child.kill()
        child.wait(30.0)


def _send(load: Load, configured: Settings, reports: Connection) -> None:
    late_ms = send(load, dialogue(60, 1), configured, configured.redis.prefix)
    reports.send(Report("sent", {"late_ms": late_ms}))


def late_ms(sender: SpawnedChild) -> float:
    """By how much it was late at most, once it has sent all.

    Raises:
        CallmoodError: it has not.
    """
    sender.wait(_SENT_S)
    reports = sender.reports()
    if not reports:
        raise CallmoodError(f"the sender has not sent all calls; its exit code is {sender.exit_code}")
    return float(reports[-1].facts["late_ms"])


# -- measuring


def sampled(running: Processes, results: Results, seconds: float, every_s: float) -> Iterator[Sample]:
    """A sample each time, until the seconds are over."""
    ingest, other = [child.pid for child in running.ingest], [running.inference.pid]
    results.more()  # of the warm-up
    began_s = time.monotonic()
    before, before_other, before_records, before_s = used_by(ingest), used_by(other), records_read(), began_s
    for number in range(1, samples_in(seconds, every_s) + 1):
        while (left_s := began_s + number * every_s - time.monotonic()) > 0:
            time.sleep(min(1.0, left_s))
            running.check()
        now, now_other, now_records, now_s = used_by(ingest), used_by(other), records_read(), time.monotonic()
        took_s = now_s - before_s
        yield Sample(
            now_s - began_s,
            (now.cpu_s - before.cpu_s) / took_s,
            now_records - before_records,
            (now_other.cpu_s - before_other.cpu_s) / took_s,
            now.resident_mb,
            [result.total_ms for result in results.more()],
        )
        before, before_other, before_records, before_s = now, now_other, now_records, now_s


def samples_in(seconds: float, every_s: float) -> int:
    """Samples of a run: whole ones, at least as long as was asked for."""
    return max(1, math.ceil(seconds / every_s))


def measure(load: Load, options: argparse.Namespace, configured: Settings) -> Run:
    """Send the calls in real time to new topics, and measure from the end of the warm-up on.

    Raises:
        CallmoodError: a process has ended, or nothing was read.
    """
    quiet = {
        "model": configured.model.model_copy(update={"speech_check": False}),
        "log": configured.log.model_copy(update={"level": "warning"}),
        "worker": configured.worker.model_copy(update={"ingest_processes": options.processes}),
    }
    with ExitStack() as opened:
        placed, client = opened.enter_context(place("realtime", configured.model_copy(update=quiet), _PARTITIONS))
        running = opened.enter_context(started(placed, options.processes))
        running.wait_until_reading()
        sender = opened.enter_context(sending(load, placed))
        running = running._replace(sender=sender)
        _wait(_WARM_S, running)
        results = Results(client, Keys(placed.redis.prefix).utterances, of_worker)
        samples = list(sampled(running, results, options.seconds, options.every_s))
        if not any(sample.records and sample.share for sample in samples):
            raise CallmoodError("the ingest processes have read nothing, or used too little CPU time to tell")
        return Run(samples, late_ms(sender))


def _wait(seconds: float, running: Processes) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        time.sleep(0.5)
        running.check()


# -- the table


def keeps_up(load: Load, run: Run) -> bool:
    """Whether results were fresh at the end."""
    return run.samples[-1].total_ms(50) < FRESH_MS + load.chunk_ms


def row(load: Load, processes_: int, run: Run) -> list[str]:
    """One line of the table; what is said of a core is of the records that were read, also if more were sent."""
    whole, offered = run.whole(), load.calls * load.channels
    read = whole.records / whole.at_s * load.chunk_ms / 1000 * load.channels
    return [
        f"{load.chunk_ms} ms",
        f"{load.channels}",
        f"{processes_}",
        f"{offered:,}",
        f"{100 * read / offered:.0f} %" + ("" if keeps_up(load, run) else ", behind"),
        f"{100 * whole.share:.0f} %",
        f"{read / whole.share:,.0f}",
        f"{1e6 * whole.share * whole.at_s / whole.records:.1f}",
        f"{100 * whole.inference_share:.1f} %",
        f"{whole.resident_mb / processes_:.0f}",
        f"{len(whole.totals_ms):,}",
        f"{whole.total_ms(50):.0f} / {whole.total_ms(99):.0f}",
        f"{run.sender_late_ms:.0f}",
    ]


def write_samples(path: Path, samples: list[Sample]) -> None:
    """A line of CSV for each sample."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*Sample._fields[:5], "utterances", "p50_ms", "p99_ms"))
        for one in samples:
            percentiles = (one.total_ms(50), one.total_ms(99))
            writer.writerow(
                (*(f"{value:.3f}" for value in one[:5]), len(one.totals_ms), *map("{:.0f}".format, percentiles))
            )


def draw(path: Path, samples: list[Sample]) -> None:
    """A picture of the samples: CPU time, memory, and time from last word to Redis."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - for this option alone, and large

    minutes = [sample.at_s / 60 for sample in samples]
    lines = (
        ("ingest process, % of a core", [("", [100 * sample.share for sample in samples])]),
        ("resident memory, MB", [("", [sample.resident_mb for sample in samples])]),
        ("last word to Redis, ms", [(f"p{p}", [sample.total_ms(p) for sample in samples]) for p in (50, 99)]),
    )
    figure = Figure(figsize=(8, 6), layout="constrained")
    for axes, (title, drawn) in zip(figure.subplots(len(lines), sharex=True), lines, strict=True):
        for name, values in drawn:
            axes.plot(minutes, values, label=name or None)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(title)
        if len(drawn) > 1:
            axes.legend(loc="lower right")
    axes.set_xlabel("minutes")
    figure.savefig(path, dpi=80)


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--calls", type=whole(1, 100_000), default=500, help="calls that go on at the same time")
    parser.add_argument("--chunk-ms", type=whole(1, 1_000), default=200, help="length of the records, ms")
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="one leg, or both interleaved")
    parser.add_argument("--call-s", type=whole(0, 86_400), default=0, help="length of a call, s; 0: as long as the run")
    parser.add_argument("--processes", type=whole(1, _PARTITIONS), default=1, help="ingest processes")
    parser.add_argument("--seconds", type=whole(1, 86_400), default=30, help="time to measure, s")
    parser.add_argument("--every-s", type=whole(1, 3_600), default=10, help="length of a sample, s")
    parser.add_argument("--samples", type=Path, help="CSV file for the samples")
    parser.add_argument("--picture", type=Path, help="PNG file for a picture of the samples; needs matplotlib")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    measured_s = samples_in(arguments.seconds, arguments.every_s) * arguments.every_s
    load = Load(arguments.chunk_ms, arguments.layout, arguments.calls, measured_s + AROUND_S, arguments.call_s)
    measured = measure(load, arguments, settings.load())
    columns = (
        "records of",
        "channels",
        "processes",
        "channels in all",
        "read",
        "of a core",
        "channels per core",
        "us a record",
    )
    more = ("inference process", "MB a process", "utterances", "last word to Redis, p50 / p99 ms", "sender late, ms")
    table = Table(*columns, *more, title="Real Kafka and Redis, calls in real time", caption=how_it_runs())
    table.add_row(*row(load, arguments.processes, measured))
    Console(width=200).print(table)
    if arguments.samples:
        write_samples(arguments.samples, measured.samples)
    if arguments.picture:
        draw(arguments.picture, measured.samples)
    return 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(run(add_arguments(argparse.ArgumentParser(prog="python -m callmood.bench.realtime")).parse_args()))
