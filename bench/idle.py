"""Measure the CPU time of an ingest process while nothing happens.

The ingest loop runs with the Kafka and the Redis of the environment (`python -m deploy.local run -- callmood bench
idle`) and a model that answers at once. The result is the CPU time of the process, all its threads, as a share of one
core.
"""

import argparse
import time
from dataclasses import dataclass

from callmood.bench.null_servers import Model
from callmood.worker import settings
from callmood.worker.run.wiring import open_ingest


@dataclass(frozen=True, slots=True)
class Idle:
    """What the process used."""

    seconds: float
    cpu_s: float
    turns: int

    def __str__(self) -> str:
        share = 100 * self.cpu_s / self.seconds
        return f"{share:.2f} % of a core, {self.turns / self.seconds:.1f} turns a second, over {self.seconds:.0f} s"


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--seconds", type=float, default=30.0, help="time to measure, s")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the share of a core; returns the exit code."""
    with open_ingest(settings.load(), "bench-idle", Model()) as loop:
        while not loop.status().partitions:
            loop.turn()
        turns, began_s, cpu_s = 0, time.monotonic(), time.process_time()
        while time.monotonic() < began_s + arguments.seconds:
            loop.turn()
            turns += 1
        print(Idle(time.monotonic() - began_s, time.process_time() - cpu_s, turns))
    return 0
