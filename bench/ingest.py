"""`callmood bench ingest`: how many channels one core carries in front of the model, and where its time goes.

Calls with two speakers who take turns, in PCMU at 8 kHz, as one leg or as both legs interleaved, in records of several
lengths. They go through the whole ingest loop in one process; Kafka, the model and the Redis server answer at once and
cost nothing. Every figure is CPU time of this process, the best of several runs. Each stage is measured alone, on the
same records; a stage that contains another is shown without it. The floor is the WebRTC voice detector called by its
own Python package, on the same frames, in the same run.
"""

import argparse
import gc
import io
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import numpy as np
import structlog
import webrtcvad
from rich.console import Console
from rich.table import Table

from callmood.bench.synthetic import lengths_s, speak
from callmood.schemas.common import Encoding, Event
from callmood.worker.adapters.consume import Changes
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.call import policy
from callmood.worker.call.alert import DEFAULT_RULES
from callmood.worker.call.render import Stamps
from callmood.worker.commits import Restored, TopicPartition
from callmood.worker.g711 import encode_pcmu, to_s16
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Chunk, ModelInfo, Position, Prediction, Record, Utterance
from callmood.worker.run.ingest import Ingest, Outside
from callmood.worker.settings import Settings
from callmood.worker.speech.media_time import MediaTime
from callmood.worker.speech.segment import Segmenter
from callmood.worker.speech.stream import Stream
from callmood.worker.speech.vad import FRAME_MS
from callmood.worker.stream_time import StreamTime

CHUNKS_MS: Final = (20, 100, 200, 1000)
LAYOUTS: Final = ("customer", "customer,agent")
"""One leg, and both interleaved."""

_RATE_HZ: Final = 8_000
_EPOCH_MS: Final = 1_700_000_000_000
_SOURCE: Final = TopicPartition("audio", 0)
_TURN_MS: Final = 50
"""Time of the records that one turn of the loop takes: the client's longest wait for a fetch."""
_ANSWER: Final = Prediction((0.1, 0.2, 0.6, 0.1))
_STAMPS: Final = Stamps(policy.stamp(Settings().policy), ModelInfo("null", "0", "sha256:0"))
_INPUT: Final = {"input_format": "headers", "max_record_ms": 5_000}


class Load(NamedTuple):
    """Calls that go on at the same time, all in records of one length."""

    chunk_ms: int
    layout: str
    calls: int
    seconds: int

    @property
    def channels(self) -> int:
        """Channels of a record."""
        return len(self.layout.split(","))

    @property
    def records(self) -> int:
        """Records of all calls."""
        return self.calls * self.seconds * 1000 // self.chunk_ms

    @property
    def frames(self) -> int:
        """Frames of the voice detector in a record, of all channels."""
        return self.chunk_ms // FRAME_MS * self.channels


class Costs(NamedTuple):
    """CPU time per record in µs: the whole loop, and what is in it."""

    loop: float
    decode: float
    detector: float
    segment: float
    stream: float
    partition: float

    def stages(self) -> Mapping[str, float]:
        """The parts of the loop, each without those before it."""
        return {
            "decode": self.decode,
            "detector": self.detector,
            "segment": self.segment - self.detector,
            "stream": self.stream - self.segment,
            "call and partition": self.partition - self.stream - self.decode,
            "turn and Redis": self.loop - self.partition,
        }


# -- records


def dialogue(seconds: int, seed: int) -> bytes:
    """Two speakers in turn with pauses of 0.3 to 1.5 s, over the noise of a line; PCMU, interleaved."""
    random, at, samples = np.random.default_rng(seed), 0, seconds * _RATE_HZ
    line = random.normal(0, 30, (samples, 2))
    for turn, length_s in enumerate(lengths_s(seconds, seed)):
        at += int(random.uniform(0.3, 1.5) * _RATE_HZ)
        _, _, voice = speak(length_s, seed + turn)
        spoken = to_s16(Encoding.PCMU, voice)[: max(0, samples - at)]
        line[at : at + spoken.size, turn % 2] += spoken
        at += spoken.size
    return encode_pcmu(line.clip(-32_768, 32_767).astype(np.int16).reshape(-1))


def records_of(load: Load, speech: bytes) -> Iterator[Record]:
    """The records of all calls in the order of their times; every value is a new object, as the client gives it."""
    frame, size = 2 * _RATE_HZ // 1000, load.chunk_ms * _RATE_HZ // 1000 * 2
    for number in range(load.records):
        seq, call = divmod(number, load.calls)
        at_ms = seq * load.chunk_ms
        first = (call * 777 + at_ms) % (len(speech) // frame - load.chunk_ms) * frame
        audio = speech[first : first + size]
        headers = {
            "schema": "callmood.audio/1",
            "event": Event.MEDIA.value,
            "stream": f"leg-{call}",
            "seq": str(seq),
            "media_ms": str(at_ms),
            "encoding": "pcmu",
            "rate": str(_RATE_HZ),
            "layout": load.layout,
        }
        yield Record(
            Position(*_SOURCE, number),
            f"call-{call}".encode(),
            audio if load.channels == 2 else audio[::2],  # noqa: PLR2004 - both legs
            tuple((name, text.encode()) for name, text in headers.items()),
            _EPOCH_MS + at_ms + call * load.chunk_ms // load.calls,
        )


# -- stages


def cpu_s(work: Callable[[], object]) -> float:
    """CPU time of this process for the work."""
    gc.collect()
    gc.freeze()
    began_s = time.process_time()
    work()
    took_s = time.process_time() - began_s
    gc.unfreeze()
    return took_s


def detect(frames: Iterable[tuple[webrtcvad.Vad, bytes]]) -> None:
    """The floor: nothing but the detector."""
    for vad, frame in frames:
        vad.is_speech(frame, _RATE_HZ)


def _frames(load: Load, records: Iterable[Record]) -> Iterator[tuple[webrtcvad.Vad, bytes]]:
    vads = {(key, channel): webrtcvad.Vad(2) for key in {r.key for r in records} for channel in range(load.channels)}
    for record in records:
        for channel in range(load.channels):
            pcm = to_s16(Encoding.PCMU, (record.value or b"")[channel :: load.channels]).tobytes()
            for first in range(0, len(pcm), 2 * _RATE_HZ * FRAME_MS // 1000):
                yield vads[record.key, channel], pcm[first : first + 2 * _RATE_HZ * FRAME_MS // 1000]


def decode_all(records: Iterable[Record]) -> None:
    """Headers and audio to chunks."""
    for record in records:
        decode.decode(record, **_INPUT)


def segment(channels: Iterable[tuple[Segmenter, int, bytes]]) -> None:
    """Audio to utterances, channel by channel."""
    for channel, first, audio in channels:
        channel.feed(first, audio)


def _channels(load: Load, chunks: Iterable[Chunk], settings: Settings) -> Iterator[tuple[Segmenter, int, bytes]]:
    made: dict[tuple[str, int], Segmenter] = {}
    for chunk in chunks:
        assert chunk.format is not None
        for index in range(load.channels):
            key = chunk.call_id, index
            if key not in made:
                made[key] = Segmenter(Encoding.PCMU, _RATE_HZ, settings.segment)
            yield made[key], chunk.seq * chunk.samples, chunk.format.channel(chunk.audio, index)


def push(streams: Iterable[tuple[Stream, Chunk]]) -> None:
    """Chunks through the media session that each belongs to."""
    for stream, chunk in streams:
        stream.push(chunk)
        stream.forget_covered()


def _streams(chunks: Iterable[Chunk], settings: Settings) -> Iterator[tuple[Stream, Chunk]]:
    made: dict[str, Stream] = {}
    for chunk in chunks:
        if chunk.call_id not in made:
            made[chunk.call_id] = Stream(MediaTime(0), settings.segment, settings.input)
        yield made[chunk.call_id], chunk


def take(partition: Partition, polls: Iterable[list[Record]], settings: Settings) -> None:
    """Records through the partition, answers back, and what is due out of it."""
    turns = settings.worker.commit_interval_ms // _TURN_MS
    for turn, records in enumerate(polls):
        for record in records:
            for utterance in partition.take(record, 0.0):
                partition.answer(utterance.call_id, utterance.id, _ANSWER, 0.0)
        if turn % turns == 0:
            partition.confirm(partition.collect(_STAMPS, 0.0))


# -- the whole loop, between servers that cost nothing


class _Consumer:
    """A consumer whose polls are made beforehand, one for each turn."""

    def __init__(self, polls: list[list[Record]]) -> None:
        self.polls = iter(polls)
        self._assigned = {_SOURCE}
        self._is_started = False

    def poll(self, _timeout_ms: int) -> Mapping[TopicPartition, list[Record]]:
        return {_SOURCE: next(self.polls, [])} if self._is_started else {}

    def take_changes(self) -> Changes:
        assigned, self._assigned = self._assigned, set()
        return Changes(assigned=assigned)

    def take_skipped(self) -> list[Any]:
        return []

    def start(self, *_: object) -> None:
        self._is_started = True

    def start_of(self, *_: object) -> int:
        return 0

    oldest = lag = position = start_of
    pause = resume = show_progress = start


class _Redis:
    """The client of a Redis that has no positions and agrees to every commit."""

    def __init__(self) -> None:
        self._sent = 0

    def register_script(self, _script: str) -> Any:
        return _Claim()

    def pipeline(self, **_: object) -> "_Redis":
        return self

    def execute_command(self, *_: object) -> None:
        self._sent += 1

    def execute(self, **_: object) -> list[bytes]:
        sent, self._sent = self._sent, 0
        return [b"ok"] * sent


class _Claim:
    sha = ""

    def __call__(self, **_: object) -> list[Any]:
        return [[None] * (1 + len(StreamTime._fields)), [], b"0", b"1"]


class _Model:
    """Answers each utterance with the next turn."""

    model, beat = _STAMPS.model, None

    def __init__(self) -> None:
        self._asked: list[str] = []

    def submit(self, key: str, _utterance: Utterance) -> None:
        self._asked.append(key)

    def collect(self) -> list[tuple[str, Prediction]]:
        asked, self._asked = self._asked, []
        return [(key, _ANSWER) for key in asked]

    def healthy(self, _now_s: float) -> bool:
        return True


def polls_of(records: Iterable[Record]) -> list[list[Record]]:
    """The records of each turn."""
    return [list(group) for _, group in groupby(records, lambda record: record.timestamp_ms // _TURN_MS)]


def loop(polls: list[list[Record]], settings: Settings) -> Callable[[], None]:
    """The ingest loop over these polls, ready to run; its clock is that of the records."""
    now_s = [0.0]
    store = RedisStore(_Redis(), settings.redis, "bench")
    outside = Outside(_Consumer(polls), store, _Model(), SimpleNamespace(send=lambda _: None))  # type: ignore[arg-type]
    ingest = Ingest(outside, settings, DEFAULT_RULES, lambda: _EPOCH_MS / 1000 + now_s[0], lambda: now_s[0])
    ingest.turn()

    def run() -> None:
        for _ in polls:
            now_s[0] += _TURN_MS / 1000
            ingest.turn()

    return run


# -- measuring


def costs(load: Load, speech: bytes, settings: Settings, repeats: int) -> Costs:
    """The best of several runs of each stage, one after the other so that a busy moment hits them all."""
    best = dict.fromkeys(Costs._fields, float("inf"))
    for _ in range(repeats):
        records = list(records_of(load, speech))
        chunks = [chunk for record in records if (chunk := decode.decode(record, **_INPUT))]
        first = Restored(0, StreamTime(), {})
        partition = Partition(_SOURCE, first, partial(decode.decode, **_INPUT), settings, DEFAULT_RULES)
        work: dict[str, Callable[[], None]] = {
            "loop": loop(polls_of(records_of(load, speech)), settings),
            "decode": partial(decode_all, records),
            "detector": partial(detect, list(_frames(load, records))),
            "segment": partial(segment, list(_channels(load, chunks, settings))),
            "stream": partial(push, list(_streams(chunks, settings))),
            "partition": partial(take, partition, polls_of(records), settings),
        }
        for name, stage in work.items():
            best[name] = min(best[name], cpu_s(stage) / load.records * 1e6)
    return Costs(**best)


def row(load: Load, cost: Costs) -> list[str]:
    """One line of the table."""
    channels = load.channels * load.chunk_ms * 1000 / cost.loop
    return [
        f"{load.chunk_ms} ms",
        f"{load.channels}",
        f"{channels:,.0f}",
        f"{cost.loop:.1f}",
        f"{cost.loop / load.frames:.2f}",
        f"{100 * cost.detector / cost.loop:.0f} %",
        *(f"{stage:.1f}" for stage in cost.stages().values()),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--calls", type=int, default=50, help="calls at the same time")
    parser.add_argument("--seconds", type=int, default=10, help="length of each call, s")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each stage, of which the best counts")
    parser.add_argument(
        "--chunk-ms", type=int, nargs="*", default=CHUNKS_MS, choices=CHUNKS_MS, help="length of the records, ms"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(io.StringIO()), cache_logger_on_first_use=False)
    settings, speech = Settings(), dialogue(60, 1)
    stages = ("decode", "detector", "segment", "stream", "call and partition", "turn and Redis")
    columns = ("records of", "channels", "channels per core", "us a record", "us a frame", "floor", *stages)
    table = Table(*columns, title="CPU time by stage, us a record", caption=f"Python {platform.python_version()}")
    for layout in LAYOUTS:
        for chunk_ms in arguments.chunk_ms:
            load = Load(chunk_ms, layout, arguments.calls, arguments.seconds)
            table.add_row(*row(load, costs(load, speech, settings, arguments.repeats)))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(add_arguments(argparse.ArgumentParser(prog="python -m callmood.bench.ingest")).parse_args()))
