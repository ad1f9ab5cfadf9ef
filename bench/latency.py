"""Measure the time from the last word of an utterance to its result in Redis, by load and stage; and a plain loop's.

Kafka and Redis are those of the environment (`python -m deploy.local run -- callmood bench latency`), the model is the
demo model on the CPU. Calls with the customer's voice of the example calls are sent in real time, in records of 200 ms.
First a worker, then the loop that people write instead (`bench/plain.py`), gets more and more calls, until the 99th
percentile exceeds the limit: what it carried before is its rated load. Then the worker's stages are measured at shares
of its rated load; with `--speech-check`, again without the speech check. Servers, sender and worker share the machine.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple
from uuid import uuid4

import numpy as np
from kafka import KafkaAdminClient
from rich.console import Console
from rich.table import Table

from callmood.bench.ingest import Load
from callmood.bench.odd import removed_after
from callmood.bench.sender import send, voices
from callmood.schemas.keys import Keys
from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import Settings

_CHUNK_MS: Final = 200
_START_S: Final = 120
_QUIET_S: Final = 3.0
_LONGEST_S: Final = 20.0
_SHARES: Final = (0.1, 0.5, 0.7, 0.9)
_PERCENTILES: Final = (50, 95, 99)
STAGES: Final = ("closed", "queue", "inference", "answer taken", "committed", "in Redis", "since closed")
"""Last word to closed (the silence that closes is most of it), on from there, and all but the first together."""


class Result(NamedTuple):
    """An utterance in Redis: its call, ms since its last word, and how many of them in each stage, if known."""

    call_id: str
    total_ms: float
    stages_ms: tuple[float, ...] = ()


def of_worker(said: dict[str, Any], written_ms: float) -> Result:
    """From utterance/1 and the time of its entry in Redis."""
    latency, tail_ms = said["latency_ms"], said["end_ms"] - said["voiced_end_ms"]
    last_word_ms = said["spoken_at_ms"] + said["voiced_end_ms"] - said["start_ms"]
    decide, queue, inference, publish = (latency[name] or 0.0 for name in ("decide", "queue", "inference", "publish"))
    taken_ms = latency["total"] - decide - queue - inference - publish
    total_ms = written_ms - last_word_ms
    in_redis_ms = total_ms - latency["total"] - tail_ms
    closed_ms = decide + tail_ms
    stages_ms = (closed_ms, queue, inference, taken_ms, publish, in_redis_ms, total_ms - closed_ms)
    return Result(said["call_id"], total_ms, stages_ms)


def of_loop(said: dict[str, Any], written_ms: float) -> Result:
    """From what the plain loop writes."""
    return Result(said["call_id"], written_ms - said["last_word_ms"])


class Program(NamedTuple):
    """What is measured: its name, command, stream of results in Redis, reader of an entry, and settings of its own."""

    name: str
    command: Sequence[str]
    stream: str
    read: Callable[[dict[str, Any], float], Result]
    environment: Mapping[str, str] = {}


class Step(NamedTuple):
    """One load: the calls, the results, and by how much the sender was late at most."""

    calls: int
    results: list[Result]
    sender_late_ms: float

    def total_ms(self, percentile: float) -> float:
        """That percentile of the time from last word to Redis; without a result, infinite."""
        totals_ms = [result.total_ms for result in self.results]
        return float(np.percentile(totals_ms, percentile)) if totals_ms else float("inf")


def search(measure: Callable[[int], Step], most: int, limit_ms: float) -> list[Step]:
    """Double the calls until the 99th percentile exceeds the limit, then try the middle; all steps."""
    steps, calls = [], 4
    while calls <= most:
        steps.append(measure(calls))
        if steps[-1].total_ms(99) > limit_ms:
            steps.append(measure(calls * 3 // 4))
            break
        calls *= 2
    return steps


def rated(steps: Sequence[Step], limit_ms: float) -> int:
    """The most calls that were carried within the limit."""
    return max((step.calls for step in steps if step.total_ms(99) <= limit_ms), default=0)


# -- programs and their results


def results_of(client: Any, program: Program, name: str) -> list[Result]:
    """The utterances of these calls that ended with silence; waits until no more come."""
    until_s, seen = time.monotonic() + _LONGEST_S, -1
    while time.monotonic() < until_s and (length := client.xlen(program.stream)) != seen:
        seen = length
        time.sleep(_QUIET_S)
    found = []
    for entry_id, fields in client.xrange(program.stream):
        said = json.loads(fields[b"json"])
        if said["call_id"].endswith(f"-{name}") and said.get("quality", {}).get("cut", "silence") == "silence":
            found.append(program.read(said, float(entry_id.split(b"-")[0])))
    return found


@contextmanager
def running(program: Program, configured: Settings) -> Iterator[None]:
    """Start the program, with the settings of this process."""
    environment = (
        os.environ
        | program.environment
        | {
            "CALLMOOD_KAFKA__AUDIO_TOPIC": configured.kafka.audio_topic,
            "CALLMOOD_KAFKA__GROUP_ID": configured.kafka.audio_topic,
            "CALLMOOD_KAFKA__DEAD_LETTER_TOPIC": configured.kafka.dead_letter_topic,
            "CALLMOOD_REDIS__PREFIX": configured.redis.prefix,
            "CALLMOOD_WORKER__HEALTH_PORT": "0",
        }
    )
    process = subprocess.Popen(program.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def measuring(
    program: Program, options: argparse.Namespace, configured: Settings, client: Any
) -> Iterator[Callable[[int], Step]]:
    """Start the program and wait until it works; then it can be given a number of calls."""
    speech = voices()

    def measure(calls: int, seconds: int = options.seconds) -> Step:
        name = uuid4().hex[:6]
        late_ms = send(Load(_CHUNK_MS, "customer", calls, seconds), speech, configured, name)
        return Step(calls, results_of(client, program, name), late_ms)

    with running(program, configured):
        until_s = time.monotonic() + _START_S
        while not measure(2, 8).results:
            if time.monotonic() > until_s:
                raise ConfigurationError(f"{program.name} gives no result within {_START_S} s")
        yield measure


def tables_of(
    program: Program, options: argparse.Namespace, configured: Settings, client: Any
) -> Iterator[tuple[str, list[Step]]]:
    """The steps of the search, then those at shares of the rated load, each with a title."""
    with measuring(program, options, configured, client) as measure:
        found = search(measure, options.most, options.limit_ms)
        yield f"{program.name}: more and more calls", found
        if program.read is not of_worker:
            return
        loads = [max(1, round(share * rated(found, options.limit_ms))) for share in _SHARES]
        yield f"{program.name}: at shares of the rated load", [measure(calls) for calls in loads]
    if options.speech_check:
        other = program._replace(environment={"CALLMOOD_MODEL__SPEECH_CHECK": "false"})
        with measuring(other, options, configured, client) as measure:
            title = f"{program.name} without the speech check: at the same loads"
            yield title, [measure(calls) for calls in loads]


# -- the tables


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
    parser.add_argument("--seconds", type=int, default=12, help="length of the calls of a step, s")
    parser.add_argument(
        "--limit-ms", type=float, default=1_500, help="p99 from last word to Redis that a load may have"
    )
    parser.add_argument("--most", type=int, default=256, help="most simultaneous calls that are tried")
    parser.add_argument("--speech-check", action="store_true", help="measure what the speech check adds")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; returns the exit code."""
    configured, console = settings.load(), Console(width=160)
    name = f"bench-latency-{uuid4().hex[:8]}"
    kafka = configured.kafka.model_copy(update={"audio_topic": name, "dead_letter_topic": f"{name}-dead"})
    configured = configured.model_copy(
        update={"kafka": kafka, "redis": configured.redis.model_copy(update={"prefix": name})}
    )
    keys = Keys(name)
    programs = (
        Program("callmood", (sys.executable, "-m", "callmood", "worker"), keys.utterances, of_worker),
        Program(
            "plain loop",
            (sys.executable, "-m", "callmood.bench.plain", keys.named("plain")),
            keys.named("plain"),
            of_loop,
        ),
    )
    carried, topics = [], [name, f"{name}-dead"]
    with removed_after(configured.redis) as client, closing(KafkaAdminClient(**connection(kafka))) as admin:
        admin.create_topics({topic: {"num_partitions": 1} for topic in topics}, wait_for_metadata=True)
        try:
            for program in programs:
                for number, (title, steps) in enumerate(tables_of(program, arguments, configured, client)):
                    console.print(table_of(title, steps))
                    if number == 0:
                        carried.append(rated(steps, arguments.limit_ms))
        finally:
            admin.delete_topics(topics)
    ours, theirs = carried
    console.print(f"p99 within {arguments.limit_ms:.0f} ms: callmood {ours} calls, plain loop {theirs} calls")
    return 0
