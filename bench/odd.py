"""What odd records cost: good calls with and without them, through one worker on a real Kafka and Redis.

Run `python -m deploy.local run -- python -m callmood.bench.odd`; without the addresses of servers it does nothing.

Calls of a minute with two speakers, in records of PCMU at 8 kHz, are written to a topic of their own twice: alone, and
among records that break the contract or are copies (`odd_records`). The ingest loop of a worker reads each topic to its
end; the model answers at once and costs nothing. It must not end. Every good call must have exactly the results that
the pure pipeline gives for it alone, as `callmood analyze` does. Every odd record must be a dead-letter record or be
counted as a duplicate or late. Times are CPU time of the worker's process, from the first records to the last commit.
With `--rounds`, both topics are measured that often, in turn, and the median of the shares counts: on a busy machine,
times of single runs differ more than the two runs of a round.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import structlog
from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from rich.console import Console
from rich.table import Table

from callmood.bench import null_servers, odd_records
from callmood.bench.ingest import dialogue
from callmood.bench.progress import Progress
from callmood.bench.temporary import end_on_sigterm, place
from callmood.dashboard.reader import Dashboard
from callmood.schemas.call import Call
from callmood.schemas.utterance import Utterance
from callmood.worker import metrics
from callmood.worker.adapters.kafka_client import connection
from callmood.worker.call import policy
from callmood.worker.call.render import Stamps
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Restored, TopicPartition
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Position, Record
from callmood.worker.run.wiring import open_ingest
from callmood.worker.server_settings import KafkaSettings
from callmood.worker.settings import Settings
from callmood.worker.stream_time import StreamTime

if TYPE_CHECKING:
    from callmood.worker.run.outside import Inference

ADDRESSES: Final = ("CALLMOOD_KAFKA__BOOTSTRAP_SERVERS", "CALLMOOD_REDIS__URL")

_PARTITIONS: Final = 4
_LINES: Final = 40
"""Calls at the same time."""
_CALL_S: Final = 60
_SPEECHES: Final = 8
_RATE_HZ: Final = 8_000
_EPOCH_MS: Final = 1_700_000_000_000
_LARGE_SHARE: Final = 0.01
"""Of the large odd records; all of them would be gigabytes."""
_COPIES: Final = 0.1
"""Share of the odd records that are copies of good ones."""
_NEAR: Final = 30
_COUNT_S: Final = 2.0
"""Within this time the worker adds to its metrics what it has skipped."""
_TOPIC: Final = {
    "retention.ms": "-1",
    "message.timestamp.after.max.ms": str(2**63 - 1),
    "message.timestamp.before.max.ms": str(2**63 - 1),
}
_OF_THE_CALL: Final = {"call_id", "utterance_id", "spoken_at_ms", "source", "latency_ms"}
_OF_THE_TIME: Final = {"call_id", "version", "started_at_ms", "updated_at_ms"}


class Sent(NamedTuple):
    """A record on its way to the topic."""

    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    value: bytes | None
    stamp_ms: int


class Load(NamedTuple):
    """How many records, the share of odd ones, and the length of good ones."""

    records: int
    odd: float
    chunk_ms: int

    @property
    def calls(self) -> int:
        """Good calls."""
        return max(1, round(self.records * (1 - self.odd) / (_CALL_S * 1000 // self.chunk_ms + 1)))


class Ran(NamedTuple):
    """What one run did; `cpu_s` and `wall_s` without the time until the loop had its first record."""

    good: int
    odd: int
    cpu_s: float
    wall_s: float
    accounted: int
    """Odd records that became dead-letter records or were counted."""
    wrong: int
    """Good calls whose results differ from those of the pipeline."""

    @property
    def good_per_cpu_s(self) -> float:
        """Good records in each second of CPU time."""
        return self.good / self.cpu_s

    @property
    def is_whole(self) -> bool:
        """Whether every good call is as it should be, and no odd record is missing or is one too many."""
        return self.wrong == 0 and self.accounted == self.odd


# -- records


@cache
def _speech(number: int) -> bytes:
    return dialogue(_CALL_S, number + 1)


def good_call(call: int, chunk_ms: int, begin_ms: int = 0) -> Iterator[Sent]:
    """The records of a call, from its first audio to its end."""
    speech, size = _speech(call % _SPEECHES), chunk_ms * _RATE_HZ // 1000 * 2
    seqs = _CALL_S * 1000 // chunk_ms
    media = {**odd_records.MEDIA, "layout": "customer,agent"}
    for seq in range(seqs + 1):
        at_ms = seq * chunk_ms
        named = {"seq": str(seq), "media_ms": str(at_ms)}
        named |= media if seq < seqs else {"schema": media["schema"], "event": "end"}
        audio = speech[seq * size : (seq + 1) * size] if seq < seqs else b""
        yield Sent(
            b"good-%d" % call,
            [(name, text.encode()) for name, text in named.items()],
            audio,
            _EPOCH_MS + begin_ms + at_ms,
        )


def good_records(load: Load) -> Iterator[Sent]:
    """The records of all good calls, `_LINES` of which go on at the same time."""
    for first in range(0, load.calls, _LINES):
        begin_ms = first // _LINES * (_CALL_S + 1) * 1000
        calls = range(first, min(first + _LINES, load.calls))
        for same_time in zip(
            *(good_call(call, load.chunk_ms, begin_ms + call % _LINES) for call in calls), strict=True
        ):
            yield from same_time


def odd_record(random: Random, near: list[Sent]) -> Sent:
    """A record that breaks the contract, or a copy."""
    if random.random() < _COPIES:
        return random.choice(near)
    key, headers, value = odd_records.bad_record_to_send(random, near[-1].key, _LARGE_SHARE)
    stamp_ms = random.choice(odd_records.STAMPS)
    return Sent(key, headers, value, near[-1].stamp_ms if stamp_ms is None else stamp_ms)


def mixed(load: Load, *, is_odd: bool) -> Iterator[tuple[Sent, bool]]:
    """The good records in order, with the odd ones among them if wanted; and whether each is odd."""
    random, near, owed = Random(1), list[Sent](), 0.0
    for sent in good_records(load):
        near = [*near[1 - _NEAR :], sent]
        yield sent, False
        owed += load.odd / (1 - load.odd) if is_odd else 0.0
        while owed >= 1:
            owed -= 1
            yield odd_record(random, near), True


# -- one run


def write(
    topic: str, kafka: KafkaSettings, records: Iterable[tuple[Sent, bool]], progress: Progress
) -> tuple[int, int]:
    """Put the records on the topic; returns the number of good and of odd ones."""
    producer = KafkaProducer(
        **connection(kafka),
        linger_ms=50,
        batch_size=1 << 18,
        max_request_size=8 << 20,
        enable_idempotence=False,
        max_in_flight_requests_per_connection=1,  # in order all the same
    )
    counts = [0, 0]
    for sent, is_odd in records:
        producer.send(topic, sent.value, sent.key, sent.headers, timestamp_ms=max(sent.stamp_ms, 0))
        counts[is_odd] += 1
        progress.reach(sum(counts))
    producer.flush()
    producer.close()
    return counts[0], counts[1]


def read(settings: Settings, records: int, progress: Progress) -> tuple[float, float]:
    """Let a worker's ingest loop read the topic to its end; returns the CPU and the wall time that this takes, s.

    The time until the loop has its first records is that of joining the group; the others stand for those, too.
    """
    counter = metrics.RECORDS.labels(settings.kafka.audio_topic)._value  # noqa: SLF001 - it has no other reader
    with open_ingest(settings, "bench", cast("Inference", null_servers.Model())) as loop:
        while (first := counter.get()) == 0:
            loop.turn()
        cpu_s, wall_s = time.process_time(), time.monotonic()
        while counter.get() < records:
            loop.turn()
            progress.reach(round(counter.get()))
        if not loop.drain(time.monotonic() + settings.worker.drain_timeout_s):
            sys.exit("the worker could not commit what it has read")
        share = (records - first) / records or 1.0
        took = (time.process_time() - cpu_s) / share, (time.monotonic() - wall_s) / share
        counted_s = time.monotonic() + _COUNT_S
        while time.monotonic() < counted_s:
            loop.turn()
        return took


def skipped() -> int:
    """Records that were counted as duplicates or late so far."""
    samples = (sample for metric in metrics.RECORDS_SKIPPED.collect() for sample in metric.samples)
    return round(sum(sample.value for sample in samples if sample.name.endswith("_total")))


def run_once(load: Load, step: str, *, is_odd: bool) -> Ran:
    """Write the records to a new topic, read them, and compare what is in Redis then."""
    with place("odd", Settings(kafka={"max_poll_interval_ms": 600_000}), _PARTITIONS, _TOPIC) as (settings, _):
        total = round(load.records * (1 if is_odd else 1 - load.odd))
        written = Progress(f"{step}: written", total)
        good, odd = write(settings.kafka.audio_topic, settings.kafka, mixed(load, is_odd=is_odd), written)
        before = skipped()
        cpu_s, wall_s = read(settings, good + odd, Progress(f"{step}: read", good + odd))
        accounted = skipped() - before + _length(settings.kafka.dead_letter_topic, settings.kafka)
        return Ran(good, odd, cpu_s, wall_s, accounted, differences(settings, load))


def _length(topic: str, kafka: KafkaSettings) -> int:
    consumer = KafkaConsumer(**connection(kafka))
    ends = consumer.end_offsets([KafkaPartition(topic, number) for number in range(_PARTITIONS)])
    consumer.close()
    return sum(ends.values())


# -- what must come out


def expected(number: int, chunk_ms: int, settings: Settings) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """The utterances and the aggregate of a good call from the pure pipeline."""

    def reader(record: Record) -> Any:
        return decode.decode(record, input_format="headers", max_record_ms=settings.input.max_record_ms)

    partition = Partition(TopicPartition("file", 0), Restored(0, StreamTime(), {}), reader, settings, DEFAULT_RULES)
    for offset, sent in enumerate(good_call(number, chunk_ms)):
        record = Record(Position("file", 0, offset), sent.key, sent.value, tuple(sent.headers), sent.stamp_ms)
        for utterance in partition.take((record,), 0.0):
            partition.answer(utterance.call_id, utterance.id, null_servers.ANSWER, 0.0)
    commit = partition.collect(Stamps(policy.stamp(settings.policy), null_servers.MODEL), 0.0)
    (call,) = (call.summary for call in commit.calls if call.summary is not None)
    return [_said(Utterance.model_validate(one)) for one in commit.utterances], _so_far(Call.model_validate(call))


def _said(utterance: Utterance) -> Mapping[str, Any]:
    return utterance.model_dump(mode="json", exclude=_OF_THE_CALL)


def _so_far(call: Call) -> Mapping[str, Any]:
    return call.model_dump(mode="json", exclude=_OF_THE_TIME)


def differences(settings: Settings, load: Load) -> int:
    """Good calls whose results in Redis are not those of the pipeline."""
    want = [expected(number, load.chunk_ms, settings) for number in range(min(_SPEECHES, load.calls))]
    wrong = 0
    with Dashboard(settings.redis.url.get_secret_value(), settings.redis.prefix) as dashboard:
        for call in range(load.calls):
            call_id = f"good-{call}"
            found = (
                [_said(one) for one in dashboard.utterances(call_id)],
                [_so_far(one.call) for one in dashboard.calls([call_id])],
            )
            utterances, aggregate = want[call % _SPEECHES]
            wrong += found != (utterances, [aggregate])
    return wrong


# -- the table


def row(name: str, ran: Ran) -> list[str]:
    """One line of the table."""
    figures = (ran.good, ran.odd, ran.accounted, ran.wrong, ran.good_per_cpu_s, ran.good / ran.wall_s)
    return [name, *(f"{figure:,.0f}" for figure in figures), f"{ran.cpu_s:.1f}"]


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns 1 if something is lost, or if odd records cost more than is allowed."""
    if not all(map(os.environ.get, ADDRESSES)):
        print(
            f"skipped: needs a Kafka and a Redis ({' and '.join(ADDRESSES)}), as from `python -m deploy.local run --`"
        )
        return 0
    with Path(os.devnull).open("w") as nowhere:
        structlog.configure(
            processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
            logger_factory=structlog.WriteLoggerFactory(nowhere),
        )
        return _measured(arguments)


def _measured(arguments: argparse.Namespace) -> int:
    load = Load(arguments.records, arguments.odd, arguments.chunk_ms)
    run_once(load._replace(records=2_000), "first", is_odd=True)  # what is imported and made once
    table, shares, is_whole = _empty(load), list[float](), True
    for number in range(1, arguments.rounds + 1):
        alone = run_once(load, f"round {number}, alone", is_odd=False)
        among = run_once(load, f"round {number}, among odd records", is_odd=True)
        table.add_row(*row("alone", alone))
        table.add_row(*row("among odd records", among))
        shares.append(among.good_per_cpu_s / alone.good_per_cpu_s)
        is_whole &= alone.is_whole and among.is_whole
    Console().print(table)
    told = "no good call differs, and every odd record is accounted for" if is_whole else "RESULTS ARE WRONG"
    print(f"the worker has not ended; {told}")
    share = median(shares)
    rounds = f" (rounds: {', '.join(f'{one:.0%}' for one in shares)})" if len(shares) > 1 else ""
    least = f"at least {arguments.least:.0%}"
    print(f"good records per CPU second, among odd ones: {share:.0%} of those alone ({least}){rounds}")
    return 0 if is_whole and share >= arguments.least else 1


def _empty(load: Load) -> Table:
    columns = (
        "good calls",
        "good records",
        "odd records",
        "accounted for",
        "calls that differ",
        "good per CPU s",
        "good per s",
        "CPU s",
    )
    return Table(*columns, title=f"{load.calls:,} calls, records of {load.chunk_ms} ms")


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--records", type=int, default=1_000_000, help="records among which the odd ones are")
    parser.add_argument("--odd", type=float, default=0.3, help="share of odd records, 0 to 1")
    parser.add_argument("--chunk-ms", type=int, default=200, help="length of good records, ms")
    parser.add_argument("--rounds", type=int, default=1, help="how often both topics are measured, in turn")
    parser.add_argument("--least", type=float, default=0.7, help="good records per CPU s, as a share of those alone")
    return parser


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(run(add_arguments(argparse.ArgumentParser(prog="python -m callmood.bench.odd")).parse_args()))
