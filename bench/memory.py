"""Measure the memory of a live call that speaks, of one that is quiet, and of one that sends nothing.

A partition takes some seconds of each call, then two seconds of the noise of a line, and then only the records of
another call, until the streams of all others count as stalled. Answers and commits come after every round, as from a
model and a store that are fast. The figures are resident memory of the process for each call.
"""

import argparse
import gc
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from callmood.bench.ingest import STAMPS, Load, dialogue, records_of
from callmood.bench.null_servers import ANSWER, SOURCE
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Restored
from callmood.worker.g711 import encode_pcmu
from callmood.worker.intake import decode
from callmood.worker.partition.carried import STALL_MS
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Position, Record
from callmood.worker.settings import Settings
from callmood.worker.stream_time import StreamTime

_LIVE: Final = (1_000, 10_000)
_CHUNK_MS: Final = 200
_QUIET_S: Final = 2
_STEP_MS: Final = 1_000
_STATM: Final = "/proc/self/statm"


class Memory(NamedTuple):
    """For each call, kB."""

    calls: int
    speaking_kb: float
    quiet_kb: float
    idle_kb: float
    """Its streams have stalled: it has sent nothing for a while, and its end is far."""


def measure(calls: int, seconds: int) -> Memory:
    """Let so many calls live."""
    read = partial(decode.decode, input_format="headers", max_record_ms=5_000)
    before_kb, taken_kb = resident_kb(), []
    partition = Partition(SOURCE, Restored(0, StreamTime(), {}), read, Settings(), DEFAULT_RULES)
    for part in parts(calls, seconds):
        for records in part:
            for utterance in partition.take(records, 0.0):
                partition.answer(utterance.call_id, utterance.id, ANSWER, 0.0)
            partition.confirm(partition.collect(STAMPS, 0.0))
        gc.collect()
        taken_kb.append((resident_kb() - before_kb) / calls)
    assert partition.live_calls == calls + 1, "no call ends"
    return Memory(calls, *taken_kb)


def parts(calls: int, seconds: int) -> Iterator[Iterator[Iterable[Record]]]:
    """Rounds with a record of each call: speech, quiet; and then rounds with one record of another call."""
    load, noise = Load(_CHUNK_MS, "customer", calls, seconds + _QUIET_S), np.random.default_rng(1)
    quiet = encode_pcmu(noise.normal(0, 30, 2 * 8_000 * 5).astype(np.int16))
    spoken = seconds * 1000 // _CHUNK_MS
    yield _rounds(records_of(load._replace(seconds=seconds), dialogue(60, 1)), calls, spoken)
    yield _rounds(islice(records_of(load, quiet), calls * spoken, None), calls, _QUIET_S * 1000 // _CHUNK_MS)
    yield _others(load)


def _rounds(records: Iterator[Record], calls: int, count: int) -> Iterator[Iterable[Record]]:
    for _ in range(count):
        yield islice(records, calls)


def _others(load: Load) -> Iterator[Iterable[Record]]:
    """Records of a call of its own, one a second, until all other streams have stalled and their states are stored."""
    (one,) = islice(records_of(load._replace(calls=1), bytes(2 * 8 * _CHUNK_MS * 4)), 1)
    at_ms = one.timestamp_ms + load.seconds * 1000
    for step in range(2 + 2 * STALL_MS // _STEP_MS):
        position = Position(*SOURCE, load.records + step)
        headers = tuple((name, str(step).encode() if name == "seq" else text) for name, text in one.headers)
        yield [replace(one, position=position, key=b"other", timestamp_ms=at_ms + step * _STEP_MS, headers=headers)]


def process_mb() -> float:
    """Resident memory of a new ingest process, without calls and connections, MB."""
    program = f"import callmood.worker.run.wiring; print(open({_STATM!r}).read())"
    memory = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return _kb(memory) / 1000


def resident_kb() -> float:
    """Resident memory of this process, kB."""
    return _kb(Path(_STATM).read_text())


def _kb(memory: str) -> float:
    return int(memory.split()[1]) * resource.getpagesize() / 1000


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--live", type=int, nargs="*", default=_LIVE, help="numbers of live calls to measure")
    parser.add_argument("--seconds", type=int, default=4, help="speech in each call, s")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    table = Table("live calls", "speaking", "quiet", "without records", title="kB a call")
    table.caption = f"an ingest process without calls: {process_mb():.0f} MB"
    measure(100, 1)  # what is imported and made once
    for calls in arguments.live:
        table.add_row(f"{calls:,}", *(f"{kb:.1f}" for kb in measure(calls, arguments.seconds)[1:]))
    Console().print(table)
    return 0
