"""`callmood replay`: recorded calls to Kafka, as a telephony system would send them."""

import argparse
import heapq
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kafka import KafkaProducer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection, kafka_errors, missing_topic
from callmood.worker.adapters.kafka_workarounds import refusals_raised
from callmood.worker.commands import options
from callmood.worker.commands.recordings import Recording, Sent
from callmood.worker.server_settings import KafkaSettings

_FLUSH_S = 30


class Call(NamedTuple):
    """A recording and the call id it is sent under."""

    call_id: str
    recording: Recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    options.add_recording_options(parser, files="+")
    parser.add_argument("--speed", type=float, default=1.0, help="factor of real time; 0: no limit; default: 1")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Send all files at the same time, one call each, and print the call ids."""
    configured = settings.load()
    ids = options.call_ids(arguments, suffix=f"-{uuid.uuid4().hex[:6]}")
    files = options.files_of_calls(arguments)
    calls = [Call(call_id, options.read(paths, arguments)) for call_id, paths in zip(ids, files, strict=True)]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with (
        kafka_errors(configured.kafka),
        refusals_raised(),
        Progress(*columns, console=Console(stderr=True), disable=arguments.quiet) as progress,
    ):
        send(calls, configured.kafka, speed=arguments.speed, progress=progress)
    for call in calls:
        print(call.call_id)
    return 0


def send(
    calls: Sequence[Call],
    kafka: KafkaSettings,
    *,
    speed: float,
    progress: Progress,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Send the calls to the audio topic, interleaved by time as live calls are, until `should_stop`.

    Raises:
        ConfigurationError: the topic does not exist.
        KafkaError: Kafka did not accept a record.
    """
    producer = KafkaProducer(**connection(kafka), linger_ms=20, allow_auto_create_topics=False)
    try:
        if not producer.partitions_for(kafka.audio_topic):
            raise missing_topic(kafka.audio_topic, kafka)
        tasks = {c.call_id: progress.add_task(c.call_id, total=c.recording.duration_ms) for c in calls}
        start_s, began_s = time.time(), time.monotonic()  # the wall clock may be set meanwhile
        sent = []
        for call_id, item in _interleaved(calls):
            if should_stop():
                break
            due_s = began_s + item.due_ms / 1000 / speed if speed else 0.0
            time.sleep(max(0.0, due_s - time.monotonic()))
            sent.append(
                producer.send(
                    kafka.audio_topic,
                    key=call_id.encode(),
                    value=item.value,
                    headers=item.headers,
                    timestamp_ms=round(start_s * 1000 + item.media_ms),
                )
            )
            progress.update(tasks[call_id], completed=item.due_ms)
        producer.flush(timeout=_FLUSH_S)
        for future in sent:
            future.get(timeout=_FLUSH_S)
    finally:
        producer.close(timeout=_FLUSH_S)


def _interleaved(calls: Sequence[Call]) -> Iterator[tuple[str, Sent]]:
    """All calls' records in the order in which they are due."""
    for item, call_id in heapq.merge(*map(_records, calls), key=lambda entry: entry[0].due_ms):
        yield call_id, item


def _records(call: Call) -> Iterator[tuple[Sent, str]]:
    for item in call.recording.records():
        yield item, call.call_id
