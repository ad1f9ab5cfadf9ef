"""Measure the time of a commit beside many live calls.

A partition takes some seconds of each call, as in `callmood bench ingest`. Then 100 calls continue, and their states
and aggregates are collected and confirmed repeatedly. If the work depended on all live calls, the time would
grow with them.
"""

import argparse
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from callmood.bench.ingest import STAMPS, Load, dialogue, records_of
from callmood.bench.null_servers import ANSWER, SOURCE
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Restored
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Record
from callmood.worker.settings import Settings
from callmood.worker.stream_time import StreamTime

_LIVE: Final = (100, 1_000, 10_000)
_CHANGED: Final = 100
_CHUNK_MS: Final = 200
_COMMITS: Final = 5


class Cost(NamedTuple):
    """Of one number of live calls."""

    calls: int
    commit_ms: float
    """CPU time of the best commit."""


def measure(calls: int, seconds: int, settings: Settings) -> Cost:
    """Let so many calls live, and let 100 of them go on."""
    read = partial(decode.decode, input_format="headers", max_record_ms=5_000)
    partition = Partition(SOURCE, Restored(0, StreamTime(), {}), read, settings, DEFAULT_RULES)
    took_s = []
    for records in rounds(calls, seconds * 1000 // _CHUNK_MS):
        for utterance in partition.take(records, 0.0):
            partition.answer(utterance.call_id, utterance.id, ANSWER, 0.0)
        partition.restore_store([f"call-{number}" for number in range(_CHANGED)], all_states=False)
        began_s = time.process_time()
        partition.confirm(partition.collect(STAMPS, 0.0))
        took_s.append(time.process_time() - began_s)
    return Cost(calls, 1000 * min(took_s[-_COMMITS:]))


def rounds(calls: int, before: int) -> Iterator[Iterator[Record]]:
    """So many rounds with a record of each call, and then some in which a few calls go on."""
    seconds = -(-(before + _COMMITS) * _CHUNK_MS // 1000)
    every = records_of(Load(_CHUNK_MS, "customer", calls, seconds), dialogue(60, 1))
    for number in range(before + _COMMITS):
        records = islice(every, calls)
        yield records if number < before else islice(records, _CHANGED)
        deque(records, maxlen=0)


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--live", type=int, nargs="*", default=_LIVE, help="numbers of live calls to measure")
    parser.add_argument("--seconds", type=int, default=4, help="audio of each call before the measurement, s")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    settings = Settings(worker={"state_interval_ms": 3_600_000})
    table = Table("live calls", f"commit with {_CHANGED} changed, ms", title="A commit beside live calls")
    for calls in arguments.live:
        cost = measure(calls, arguments.seconds, settings)
        table.add_row(f"{cost.calls:,}", f"{cost.commit_ms:.1f}")
    Console().print(table)
    return 0
