"""Measure the time from the last word of an utterance to its result in Redis, by load and stage.

Kafka and Redis are those of the environment (`python -m deploy.local run -- callmood bench latency`), the model is the
demo model on the CPU. Calls with the customer's voice of the example calls are sent in real time.
First a worker gets more and more calls, until the 99th percentile exceeds the limit: what it carried before is its
rated load. Then its stages are measured at shares of the rated load; with `--speech-check`, again without the speech
check. Servers, sender and worker share the machine. `callmood bench capacity` compares the rated load with others'.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from callmood.bench import programs
from callmood.bench.ingest import CHUNKS_MS, LAYOUTS, Load
from callmood.bench.loads import Measured, Step, rated, search
from callmood.bench.programs import STAGES
from callmood.bench.sender import voices
from callmood.worker import settings
from callmood.worker.commands.options import whole
from callmood.worker.model.checkpoints import DEMO_FOLDER
from callmood.worker.settings import Settings

_SHARES: Final = (0.1, 0.5, 0.7, 0.9)
_PERCENTILES: Final = (50, 95, 99)
_DEMO: Final = {"CALLMOOD_MODEL__PATH": str(DEMO_FOLDER)}


def tables_of(options: argparse.Namespace, configured: Settings) -> Iterator[tuple[str, list[Step]]]:
    """The steps of the search, then those at shares of the rated load, each with a title."""
    speech = voices()

    def load(calls: int) -> Load:
        return Load(options.chunk_ms, LAYOUTS[0], calls, options.seconds)

    with Measured(programs.worker(_DEMO), speech, configured) as worker:
        found = search(lambda calls: worker.step(load(calls)), options.most, options.limit_ms)
        yield "more and more calls", found
        loads = [load(max(1, round(share * rated(found, options.limit_ms)))) for share in _SHARES]
        yield "at shares of the rated load", [worker.step(load) for load in loads]
    if options.speech_check:
        with Measured(programs.worker(_DEMO | programs.UNCHECKED), speech, configured) as worker:
            yield "without the speech check: at the same loads", [worker.step(load) for load in loads]


def table_of(title: str, steps: Sequence[Step]) -> Table:
    """Percentiles of the time from last word to Redis, and of each stage where it is known."""
    table = Table("calls", "utterances", "", "all, ms", *STAGES, "sender late, ms", title=title)
    for step in steps:
        for percentile in _PERCENTILES:
            stages = [result.stages_ms for result in step.results if result.stages_ms]
            cells = [""] * len(STAGES)
            if stages:
                cells = [f"{part:.0f}" for part in np.percentile(stages, percentile, axis=0)]
            total = f"{step.total_ms(percentile):.0f}"
            table.add_row(
                str(step.calls), str(len(step.results)), f"p{percentile}", total, *cells, f"{step.sender_late_ms:.0f}"
            )
    return table


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--seconds", type=whole(5, 3_600), default=12, help="length of the calls of a step, s")
    parser.add_argument(
        "--limit-ms", type=float, default=1_500, help="p99 from last word to Redis that a load may have"
    )
    parser.add_argument("--most", type=whole(1, 10_000), default=256, help="most simultaneous calls that are tried")
    parser.add_argument("--chunk-ms", type=int, default=200, choices=CHUNKS_MS, help="length of the records, ms")
    parser.add_argument("--speech-check", action="store_true", help="measure what the speech check adds")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; returns the exit code."""
    console = Console(width=160)
    for title, steps in tables_of(arguments, settings.load()):
        console.print(table_of(title, steps))
    return 0
