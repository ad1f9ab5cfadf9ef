"""Programs that read calls from Kafka and write utterances to Redis: the worker, and what people write instead."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from callmood.bench import plain
from callmood.bench.ingest import STAMPS
from callmood.bench.null_servers import ANSWER, SOURCE
from callmood.worker import settings
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Restored
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Record
from callmood.worker.stream_time import StreamTime

STAGES: Final = ("closed", "queue", "inference", "answer taken", "committed", "in Redis", "since closed")
"""Last word to closed (the silence that closes is most of it), on from there, and all but the first together."""
UNCHECKED: Final = {"CALLMOOD_MODEL__SPEECH_CHECK": "false"}
"""Setting of a worker without the speech check."""


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
    """From what the plain loop and the Quix Streams application write."""
    return Result(said["call_id"], written_ms - said["last_word_ms"])


class Results:
    """The utterances in a stream in Redis, each read once.

    Args:
        client: the connection.
        stream: its key.
        read: reads one from its JSON and the time of its entry.
    """

    def __init__(self, client: Any, stream: str, read: Callable[[dict[str, Any], float], Result]) -> None:
        self._client, self._stream, self._read, self._last = client, stream, read, b"0"

    def more(self, of_calls: str = "") -> list[Result]:
        """Those since the last look that ended with silence; only of calls whose id ends like this."""
        found = []
        while entries := self._client.xrange(self._stream, b"(" + self._last, count=1_000):
            for entry_id, fields in entries:
                said = json.loads(fields[b"json"])
                if said["call_id"].endswith(of_calls) and said.get("quality", {}).get("cut", "silence") == "silence":
                    found.append(self._read(said, float(entry_id.split(b"-")[0])))
            self._last = entries[-1][0]
        return found


# -- what must come


def cut_by_worker(records: Iterable[Record]) -> Counter[str]:
    """Utterances that end with silence, by call, as the worker cuts these records."""
    configured = settings.load()
    read = partial(decode.decode, input_format="headers", max_record_ms=configured.input.max_record_ms)
    partition = Partition(SOURCE, Restored(0, StreamTime(), {}), read, configured, DEFAULT_RULES)
    for record in records:
        for utterance in partition.take((record,), 0.0):
            partition.answer(utterance.call_id, utterance.id, ANSWER, 0.0)
    assert not partition.is_waiting, "an ended call is remembered for less than these records last"
    found = partition.collect(STAMPS, 0.0).utterances
    return Counter(said["call_id"] for said in found if said["quality"]["cut"] == "silence")


def cut_by_loop(records: Iterable[Record]) -> Counter[str]:
    """Utterances by call, as the plain loop and the Quix Streams application cut these records."""
    channels, found = plain.Channels(), Counter[str]()
    for record in records:
        key = record.key or b""
        if channels.feed(key, record.value or b"", record.timestamp_ms) is not None:
            found[key.decode()] += 1
    return found


class Program(NamedTuple):
    """What is measured.

    Attributes:
        name: its name in the tables.
        command: starts it.
        stream: where it writes in Redis: `utterances` or another name of a key.
        read: reads an entry of that stream.
        cut: counts the utterances that these records must give, by call.
        environment: settings of its own.
    """

    name: str
    command: Sequence[str]
    stream: str
    read: Callable[[dict[str, Any], float], Result]
    cut: Callable[[Iterable[Record]], Counter[str]]
    environment: Mapping[str, str] = {}


def worker(environment: Mapping[str, str] | None = None) -> Program:
    """The worker on the CPU, with settings of its own."""
    command = (sys.executable, "-m", "callmood", "worker")
    settings_ = {"CALLMOOD_MODEL__DEVICE": "cpu", **(environment or {})}
    return Program("callmood", command, "utterances", of_worker, cut_by_worker, settings_)


def other(name: str, module: str, model: str, environment: Mapping[str, str] | None = None) -> Program:
    """A program of `bench/` that writes as the plain loop does, with the model in this folder, or without (`none`)."""
    command = (sys.executable, "-m", f"callmood.bench.{module}", model)
    return Program(name, command, plain.STREAM, of_loop, cut_by_loop, environment or {})
