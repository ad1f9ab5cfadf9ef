"""Find how many calls this machine carries within a limit of latency, beside what people write without callmood.

Kafka and Redis are those of the environment (`python -m deploy.local run -- callmood bench capacity`). A worker, a
plain loop (`bench/plain.py`) and a Quix Streams application (`bench/quix.py`, if `callmood[bench]` is installed) have
the same model on the CPU, and get the same calls in real time, with the customer's voice of the example calls: more and
more of them, until the 99th percentile of the time from last word to Redis exceeds the limit. The programs take turns,
load by load. `base` and `large` are HuBERT with random weights in the shape of the published checkpoints.

The worker computes as it does by default: in bfloat16 on a CPU that is fast in it (set `CALLMOOD_MODEL__DTYPE` for
another type), while transformers computes in float32. Each program is one process that reads one partition; the model
has one thread for each core, and one in all for `demo`, which is small. The worker adds the processes that it always
has, and the speech check, which the others lack. The last word of the others is up to 140 ms later than callmood's,
because they count the frames by which the detector prolongs speech. Servers and sender share the machine.

With `--ingest`, no program has a model, and nothing is searched: a number of calls is sent, and the CPU time for
decoding and voice detection is measured. Of callmood, that is the ingest process, which also orders records, keeps the
state of calls and commits; its inference process is not counted.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from callmood.bench import plain, programs, realtime, weights
from callmood.bench.ingest import CHUNKS_MS, LAYOUTS, Load, dialogue
from callmood.bench.loads import Measured, Search, Step, rated
from callmood.bench.programs import Program
from callmood.bench.sender import voices
from callmood.bench.temporary import end_on_sigterm
from callmood.worker import settings
from callmood.worker.commands.options import whole
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import Settings

CALLMOOD: Final = "callmood"
PLAIN: Final = "plain"
QUIX: Final = "quix"
PROGRAMS: Final = (CALLMOOD, PLAIN, QUIX)
_INGEST_CHUNKS_MS: Final = (20, 200)
_WARM_S: Final = 10
_NO_QUIX: Final = "Quix Streams is left out, because it is not installed: pip install 'callmood[bench]'"


class Found(NamedTuple):
    """What a program carried, and the steps of the search."""

    name: str
    carried: int
    steps: list[Step]

    def failed(self) -> int | None:
        """The fewest calls above these that it did not carry; None if it carried all that were tried."""
        return min((step.calls for step in self.steps if step.calls > self.carried), default=None)

    def best(self) -> Step | None:
        """The step with these calls that was within the limit."""
        return min(
            (step for step in self.steps if step.calls == self.carried),
            key=lambda step: step.total_ms(99),
            default=None,
        )


def installed(wanted: Sequence[str]) -> list[str]:
    """These programs without Quix Streams, if that is missing."""
    lacks_quix = importlib.util.find_spec("quixstreams") is None
    return [name for name in PROGRAMS if name in wanted and not (name == QUIX and lacks_quix)]


def program(name: str, model: weights.Written, *, is_checked: bool = True) -> Program:
    """A program with its model.

    Args:
        name: one of `PROGRAMS`.
        model: what it computes with.
        is_checked: the worker runs the speech check.
    """
    if name == CALLMOOD:
        return programs.worker({"CALLMOOD_MODEL__PATH": model.worker} | ({} if is_checked else programs.UNCHECKED))
    threads = {"OMP_NUM_THREADS": "1"} if model.is_small else {}
    return programs.other({PLAIN: "plain loop", QUIX: "Quix Streams"}[name], name, model.others, threads)


# -- calls within the limit


class _Searched(NamedTuple):
    """A program that runs, and its search."""

    name: str
    measured: Measured
    search: Search


def searched(options: argparse.Namespace, configured: Settings, console: Console) -> list[Found]:
    """What each program carries; prints each load as it is measured.

    The programs take turns, load by load, because the speed of a machine that others use changes within minutes.
    """
    with tempfile.TemporaryDirectory(prefix="callmood-") as folder, ExitStack() as opened:
        model, speech, all_ = weights.write(options.shape, Path(folder)), voices(), list[_Searched]()
        for name in installed(options.programs):
            made = program(name, model, is_checked=not options.without_speech_check)
            measured = opened.enter_context(Measured(made, speech, configured))
            all_.append(_Searched(made.name, measured, Search(options.most, options.limit_ms)))
        failed = set[str]()
        while waiting := [one for one in all_ if one.search.calls is not None and one.name not in failed]:
            for one in waiting:
                try:
                    _measure_next(one, options, console)
                except ConfigurationError as error:  # what the others carry is not lost
                    console.print(str(error))
                    failed.add(one.name)
    found = [one for one in all_ if one.name not in failed]
    for one in found:
        console.print(table_of_steps(one.name, one.search.steps))
    return [Found(one.name, rated(one.search.steps, options.limit_ms), one.search.steps) for one in found]


def _measure_next(one: _Searched, options: argparse.Namespace, console: Console) -> None:
    assert one.search.calls is not None
    step = one.measured.step(Load(options.chunk_ms, LAYOUTS[0], one.search.calls, options.seconds))
    console.print(f"{one.name}, {step.calls} calls: p99 {step.total_ms(99):.0f} ms")
    one.search.add(step)


def table_of_steps(name: str, steps: Sequence[Step]) -> Table:
    """Each load of a search."""
    columns = ("calls", "utterances", "missing", "p50, ms", "p99, ms", "cores", "sender late, ms")
    table = Table(*columns, title=f"{name}: loads")
    for step in steps:
        table.add_row(str(step.calls), str(len(step.results)), str(step.missing), *_measured(step))
    return table


def table_of(found: Sequence[Found], title: str, most: int) -> Table:
    """What each program carries, and how many times as much callmood does, if that is known."""
    table = Table(
        "program", "calls", "utterances", "p50, ms", "p99, ms", "cores", "sender late, ms", "callmood carries"
    )
    table.title = title
    ours = next((one for one in found if one.name == CALLMOOD), None)
    for one in found:
        step = one.best()
        cells = [str(len(step.results)), *_measured(step)] if step else [""] * 5
        ratio = "" if ours is None or one is ours else _times(ours, one)
        table.add_row(one.name, f"{one.carried}{_or_more(one.carried, most)}", *cells, ratio)
    return table


def _times(ours: Found, other: Found) -> str:
    """How many times the calls of another program callmood carries, by what both carried and what was too much."""
    our_limit, their_limit = ours.failed(), other.failed()
    if not ours.carried or their_limit is None:
        return ""
    least = f"{ours.carried / their_limit:.1f}"
    if our_limit is None or not other.carried:
        return f"{least} x or more"
    return f"{least} to {our_limit / other.carried:.1f} x"


def _or_more(calls: int, most: int) -> str:
    return " or more" if calls == most else ""


def _measured(step: Step) -> list[str]:
    times = (f"{step.total_ms(percentile):.0f}" for percentile in (50, 99))
    return [*times, f"{step.cores:.2f}", f"{step.sender_late_ms:.0f}"]


# -- decoding and voice detection alone


class Cost(NamedTuple):
    """CPU time of a program at a load, in cores, and whether it kept up."""

    name: str
    load: Load
    cores: float
    keeps_up: bool


def costs(options: argparse.Namespace, configured: Settings) -> Iterator[Cost]:
    """Of each program at each length of records."""
    for name in installed(options.programs):
        for chunk_ms in _INGEST_CHUNKS_MS:
            load = Load(chunk_ms, LAYOUTS[0], options.calls, options.seconds)
            yield cost_of_worker(load, configured) if name == CALLMOOD else cost_of_other(name, load, configured)


def cost_of_worker(load: Load, configured: Settings) -> Cost:
    """The worker's ingest process, as `callmood bench realtime` measures it."""
    sampled = argparse.Namespace(processes=1, seconds=load.seconds, every_s=load.seconds)
    sent = load._replace(seconds=load.seconds + realtime.AROUND_S)
    run = realtime.measure(sent, sampled, configured)
    return Cost("callmood, ingest process", load, run.whole().share, realtime.keeps_up(load, run))


def cost_of_other(name: str, load: Load, configured: Settings) -> Cost:
    """A program without its model, after a warm-up at the same load."""
    one = program(name, weights.Written("", plain.NO_MODEL, is_small=True))
    with Measured(one, dialogue(60, 1), configured) as measured:
        measured.step(load._replace(seconds=_WARM_S))
        step = measured.step(load)
    return Cost(one.name, load, step.cores, step.total_ms(50) < realtime.FRESH_MS + load.chunk_ms)


def table_of_costs(found: Sequence[Cost]) -> Table:
    """Channels per core of each program."""
    table = Table(
        "program",
        "records of",
        "calls",
        "of a core",
        "channels per core",
        "us a record",
        title="Decoding and VAD alone",
    )
    for cost in found:
        calls = cost.load.calls
        per_core = f"{calls / cost.cores:,.0f}" if cost.keeps_up else "behind"
        us = f"{cost.cores * cost.load.chunk_ms * 1_000 / calls:.1f}" if cost.keeps_up else "behind"
        table.add_row(cost.name, f"{cost.load.chunk_ms} ms", str(calls), f"{100 * cost.cores:.0f} %", per_core, us)
    return table


# -- the command


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--shape", choices=weights.SHAPES, default="base", help="the model; default: base")
    parser.add_argument(
        "--programs", nargs="+", choices=PROGRAMS, default=PROGRAMS, help="what is measured; default: all"
    )
    parser.add_argument(
        "--limit-ms",
        type=float,
        default=2_500,
        help="p99 from last word to Redis that a load may have, ms; default: 2500",
    )
    parser.add_argument(
        "--seconds", type=whole(5, 3_600), default=30, help="length of the calls of a load, s; default: 30"
    )
    parser.add_argument(
        "--most", type=whole(1, 10_000), default=512, help="most simultaneous calls that are tried; default: 512"
    )
    parser.add_argument(
        "--chunk-ms", type=int, choices=CHUNKS_MS, default=200, help="length of the records, ms; default: 200"
    )
    parser.add_argument("--without-speech-check", action="store_true", help="the worker does not check for speech")
    parser.add_argument("--ingest", action="store_true", help="measure decoding and voice detection, without a model")
    parser.add_argument(
        "--calls", type=whole(1, 10_000), default=100, help="with --ingest: simultaneous calls; default: 100"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; returns the exit code."""
    configured, console = settings.load(), Console(width=140)
    if QUIX in set(arguments.programs) - set(installed(arguments.programs)):
        print(_NO_QUIX)
    if arguments.ingest:
        console.print(table_of_costs(list(costs(arguments, configured))))
        return 0
    found = searched(arguments, configured, console)
    check = ", without speech check" if arguments.without_speech_check else ""
    title = f"{arguments.shape}{check}, records of {arguments.chunk_ms} ms: p99 within {arguments.limit_ms:.0f} ms"
    console.print(table_of(found, title, arguments.most))
    return 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(run(add_arguments(argparse.ArgumentParser(prog="python -m callmood.bench.capacity")).parse_args()))
