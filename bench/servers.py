"""Measure the memory and CPU time that Kafka and Redis need for each record, call and utterance.

The servers are those of the environment (`python -m deploy.local run -- callmood bench servers`). Kafka: records of
calls with two speakers are written to a topic of their own; the worker's consumer reads them, and nothing is done with
them. Redis: live calls go through a partition as in `callmood bench ingest`, and the worker's store commits what comes
out of it.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import uuid4

from kafka import KafkaAdminClient
from rich.console import Console
from rich.table import Table

from callmood.bench.ingest import LAYOUTS, STAMPS, Load, dialogue, polls_of, records_of
from callmood.bench.null_servers import ANSWER, SOURCE
from callmood.bench.odd import Sent, write
from callmood.bench.progress import Progress
from callmood.bench.temporary import place, removed_after
from callmood.schemas.keys import Keys
from callmood.worker import settings
from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.adapters.kafka_client import connection
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Restored
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.server_settings import KafkaSettings
from callmood.worker.settings import Settings
from callmood.worker.stream_time import StreamTime

_CHUNKS_MS: Final = (20, 200)
_TURNS_OF_A_COMMIT: Final = 3
_TOPIC: Final = {"message.timestamp.before.max.ms": str(2**63 - 1), "retention.ms": "-1"}


class Read(NamedTuple):
    """A record on Kafka: CPU time of the client, and what the broker keeps beside the audio."""

    client_us: float
    overhead_bytes: float


class Kept(NamedTuple):
    """What Redis has of live calls, and the CPU time of the server and of the worker's client for a changed call."""

    call_bytes: float
    utterance_bytes: float
    entry_bytes: float
    """An utterance in the stream of all calls."""
    server_us: float
    client_us: float
    changes_per_s: float
    utterances_per_min: float
    """The two of a call: how often it is in a commit, and how often it has an utterance of either speaker."""


# -- Kafka


def measure_kafka(load: Load, speech: bytes, configured: Settings) -> Read:
    """Write the records to a new topic, and read them with the worker's consumer."""
    with place("servers", configured, 1, _TOPIC) as (placed, _):
        kafka = placed.kafka
        audio_bytes = load.records * load.chunk_ms * 8 * load.channels
        write(kafka.audio_topic, kafka, _sent(load, speech), Progress("written", load.records))
        with KafkaAdminClient(**connection(kafka)) as admin:
            kept = max(_log_bytes(admin.describe_log_dirs(), kafka.audio_topic))
        return Read(_read_s(kafka, load.records) / load.records * 1e6, (kept - audio_bytes) / load.records)


def _sent(load: Load, speech: bytes) -> Iterator[tuple[Sent, bool]]:
    for record in records_of(load, speech):
        yield Sent(record.key, list(record.headers), record.value, record.timestamp_ms), False


def _log_bytes(found: Any, topic: str) -> Iterator[int]:
    """The size of each log of the topic: brokers, folders, topics and partitions are nested in the answer."""
    if isinstance(found, dict):
        if found.get("topic", found.get("name")) == topic:
            yield from (partition.get("partition_size", 0) for partition in found["partitions"])
        found = list(found.values())
    if isinstance(found, list):
        for one in found:
            yield from _log_bytes(one, topic)


def _read_s(kafka: KafkaSettings, records: int) -> float:
    with closing(AudioConsumer(kafka, client_id="bench")) as consumer:
        while not (assigned := consumer.take_changes().assigned):
            consumer.poll(100)
        for source in assigned:
            consumer.start(source, 0)
        began_s, seen = time.process_time(), 0
        while seen < records:
            seen += sum(map(len, consumer.poll(100).values()))
        return time.process_time() - began_s


# -- Redis


def measure_redis(load: Load, speech: bytes, configured: Settings) -> Kept:
    """Let calls live and commit them, under a prefix of their own."""
    of_redis = configured.redis.model_copy(update={"prefix": f"bench-{uuid4().hex[:8]}"})
    read = partial(decode.decode, input_format="headers", max_record_ms=5_000)
    partition = Partition(SOURCE, Restored(0, StreamTime(), {}), read, configured, DEFAULT_RULES)
    changes, said, client_s = 0, 0, 0.0
    with removed_after(of_redis) as client:
        store = RedisStore(client, of_redis, "bench")
        store.claim(SOURCE)
        before_s = _server_s(client)
        for turn, records in enumerate(polls_of(load, speech)):
            for utterance in partition.take(records, 0.0):
                partition.answer(utterance.call_id, utterance.id, ANSWER, 0.0)
            if turn % _TURNS_OF_A_COMMIT == 0:
                commit = partition.collect(STAMPS, 0.0)
                began_s = time.process_time()
                store.commit([commit])
                client_s += time.process_time() - began_s
                partition.confirm(commit)
                changes, said = changes + len(commit.calls), said + len(commit.utterances)
        server_s = _server_s(client) - before_s
        sizes = _sizes(client, Keys(of_redis.prefix), load.calls, said)
    live_s = load.calls * load.seconds
    return Kept(*sizes, server_s / changes * 1e6, client_s / changes * 1e6, changes / live_s, 60 * said / live_s)


def _server_s(client: Any) -> float:
    used = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def _sizes(client: Any, keys: Keys, calls: int, said: int) -> tuple[float, float, float]:
    """Bytes of a call, of an utterance in the stream of its call, and of one in the stream of all calls."""
    lists = [keys.states(*SOURCE), *keys.lists_of_calls, *map(keys.call, map(_name, range(calls)))]
    streams = map(keys.utterances_of, map(_name, range(calls)))
    call_bytes, utterance_bytes, entry_bytes = (
        sum(client.memory_usage(key, samples=0) or 0 for key in names)
        for names in (lists, streams, (keys.utterances, keys.changes))
    )
    return call_bytes / calls, utterance_bytes / said, entry_bytes / said


def _name(number: int) -> str:
    return f"call-{number}"


# -- the tables


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--calls", type=int, default=200, help="live calls in Redis")
    parser.add_argument("--seconds", type=int, default=60, help="length of the calls, s")
    parser.add_argument("--records", type=int, default=40_000, help="records on Kafka of each length")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; returns the exit code."""
    configured, speech = settings.load(), dialogue(60, 1)
    table = Table("records of", "channels", "client, us a record", "beside the audio, bytes a record", title="Kafka")
    for layout in LAYOUTS:
        for chunk_ms in _CHUNKS_MS:
            load = Load(chunk_ms, layout, 50, arguments.records * chunk_ms // 50_000)
            one = measure_kafka(load, speech, configured)
            table.add_row(f"{chunk_ms} ms", str(load.channels), f"{one.client_us:.1f}", f"{one.overhead_bytes:.0f}")
    Console().print(table)
    kept = measure_redis(Load(200, LAYOUTS[1], arguments.calls, arguments.seconds), speech, configured)
    table = Table("of Redis", "figure", title=f"Redis: {arguments.calls} calls of {arguments.seconds} s, both speakers")
    for name, value in kept._asdict().items():
        table.add_row(name.replace("_", " "), f"{value:,.2f}")
    Console().print(table)
    return 0
