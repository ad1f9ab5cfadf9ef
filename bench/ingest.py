"""Measure how many channels one core of an ingest process handles, and which stages take the time.

Calls with two speakers who take turns, in PCMU at 8 kHz, as one leg or as both legs interleaved, in records of several
lengths. They go through the whole ingest loop in one process; Kafka, the model and the Redis server answer at once and
cost nothing. Every figure is CPU time of this process, the best of several runs of each turn. Each stage is measured
alone, on the same records; a stage that contains another is shown without it. The floor is the WebRTC voice detector
called by its own Python package, on the same frames, in the same run.
"""

import argparse
import gc
import io
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import count, product
from types import SimpleNamespace
from typing import Final, NamedTuple

import numpy as np
import structlog
import webrtcvad
from rich.console import Console
from rich.table import Table

from callmood.bench import null_servers
from callmood.bench.null_servers import ANSWER, MODEL, SOURCE
from callmood.bench.synthetic import lengths_s, speak
from callmood.schemas.common import Encoding, Event
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.call import policy
from callmood.worker.call.render import Stamps
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Restored
from callmood.worker.g711 import encode_pcmu, to_s16
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Chunk, Position, Record
from callmood.worker.run.compiled import is_compiled
from callmood.worker.run.ingest import Ingest
from callmood.worker.run.outside import Outside
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
_TURN_MS: Final = 100
"""Time of the records that one turn of the loop takes: for so long Kafka gathers records for a fetch."""
STAMPS: Final = Stamps(policy.stamp(Settings().policy), MODEL)
_decode = partial(decode.decode, input_format="headers", max_record_ms=5_000)


class Load(NamedTuple):
    """Calls that go on at the same time, all in records of one length."""

    chunk_ms: int
    layout: str
    calls: int
    seconds: int
    call_s: int = 0
    """Then a call ends, and the next begins, at another moment on each line; 0: no call ends."""

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
        if at >= samples:
            break
        _, _, voice = speak(length_s, seed + turn)
        spoken = to_s16(Encoding.PCMU, voice)[: samples - at]
        line[at : at + spoken.size, turn % 2] += spoken
        at += spoken.size
    return encode_pcmu(line.clip(-32_768, 32_767).astype(np.int16).reshape(-1))


def records_of(load: Load, speech: bytes) -> Iterator[Record]:
    """The records of all calls in the order of their times; every value is a new object, as the client gives it."""
    frame, size = 2 * _RATE_HZ // 1000, load.chunk_ms * _RATE_HZ // 1000 * 2
    of_a_call, offsets = load.call_s * 1000 // load.chunk_ms, count()
    for number in range(load.records):
        seq, line = divmod(number, load.calls)
        at_ms, call = seq * load.chunk_ms, f"call-{line}"
        first = (line * 777 + at_ms) % (len(speech) // frame - load.chunk_ms) * frame
        audio = speech[first : first + size]
        timestamp_ms = _EPOCH_MS + at_ms + line * load.chunk_ms // load.calls
        if of_a_call:
            ordinal, seq = divmod(seq + line * of_a_call // load.calls, of_a_call)
            if seq == 0 and ordinal:
                ended = headers_of(Event.END, load, line, of_a_call)
                yield Record(
                    Position(*SOURCE, next(offsets)), f"{call}-{ordinal - 1}".encode(), b"", ended, timestamp_ms
                )
            call = f"{call}-{ordinal}"
        yield Record(
            Position(*SOURCE, next(offsets)),
            call.encode(),
            audio if load.channels == 2 else audio[::2],  # noqa: PLR2004 - both legs
            headers_of(Event.MEDIA, load, line, seq),
            timestamp_ms,
        )


def headers_of(event: Event, load: Load, line: int, seq: int) -> tuple[tuple[str, bytes], ...]:
    """The headers of record number `seq` of the call on this line."""
    headers = {
        "schema": "callmood.audio/1",
        "event": event.value,
        "stream": f"leg-{line}",
        "seq": str(seq),
        "media_ms": str(seq * load.chunk_ms),
    }
    if event is Event.MEDIA:
        headers |= {"encoding": "pcmu", "rate": str(_RATE_HZ), "layout": load.layout}
    return tuple((name, text.encode()) for name, text in headers.items())


# -- stages: each yields after every turn


def detect(load: Load, polls: Iterable[list[Record]]) -> Iterator[None]:
    """The floor: nothing but the detector, in its own Python package."""
    vads: dict[tuple[str, int], webrtcvad.Vad] = {}
    size = 2 * _RATE_HZ * FRAME_MS // 1000
    for chunks in _chunks(polls):
        frames = []
        for chunk, index in product(chunks, range(load.channels)):
            vad = vads.setdefault((chunk.call_id, index), webrtcvad.Vad(2))
            pcm = to_s16(Encoding.PCMU, _channel(chunk, index)).tobytes()
            frames += [(vad, pcm[first : first + size]) for first in range(0, len(pcm), size)]
        yield
        for vad, frame in frames:
            vad.is_speech(frame, _RATE_HZ)
        yield


def read(polls: Iterable[list[Record]]) -> Iterator[None]:
    """Headers and audio to chunks."""
    for records in polls:
        yield
        for record in records:
            _decode(record)
        yield


def segment(load: Load, polls: Iterable[list[Record]], settings: Settings) -> Iterator[None]:
    """Audio to utterances, channel by channel."""
    made: dict[tuple[str, int], Segmenter] = {}
    for chunks in _chunks(polls):
        fed = []
        for chunk, index in product(chunks, range(load.channels)):
            if (chunk.call_id, index) not in made:
                made[chunk.call_id, index] = Segmenter(Encoding.PCMU, _RATE_HZ, settings.segment)
            fed.append((made[chunk.call_id, index], chunk.seq * chunk.samples, _channel(chunk, index)))
        yield
        for channel, first, audio in fed:
            channel.feed(first, audio)
        yield


def push(polls: Iterable[list[Record]], settings: Settings) -> Iterator[None]:
    """Chunks through the media session that each belongs to."""
    made: dict[str, Stream] = {}
    for chunks in _chunks(polls):
        for chunk in chunks:
            if chunk.call_id not in made:
                made[chunk.call_id] = Stream(MediaTime(0), settings.segment, settings.input)
        yield
        for chunk in chunks:
            stream = made[chunk.call_id]
            stream.push(chunk)
            stream.forget_covered()
        yield


def take(polls: Iterable[list[Record]], settings: Settings) -> Iterator[None]:
    """Records through the partition, answers back, and what is due out of it."""
    turns = settings.worker.commit_interval_ms // _TURN_MS
    partition = Partition(SOURCE, Restored(0, StreamTime(), {}), _decode, settings, DEFAULT_RULES)
    for turn, records in enumerate(polls):
        yield
        for utterance in partition.take(records, 0.0):
            partition.answer(utterance.call_id, utterance.id, ANSWER, 0.0)
        if turn % turns == 0:
            partition.confirm(partition.collect(STAMPS, 0.0))
        yield


def _chunks(polls: Iterable[list[Record]]) -> Iterator[list[Chunk]]:
    for records in polls:
        yield [chunk for record in records if (chunk := _decode(record))]


def _channel(chunk: Chunk, index: int) -> bytes:
    assert chunk.format is not None
    return chunk.format.channel(chunk.audio, index)


def turns(polls: Iterable[list[Record]], settings: Settings) -> Iterator[None]:
    """The whole ingest loop; its clock is that of the records."""
    now_s, consumer = [0.0], null_servers.Consumer()

    def committed() -> None:
        now_s[0] += 0.001  # a commit that takes no time would be made whenever the model answers

    store = RedisStore(null_servers.Redis(committed), settings.redis, "bench")
    outside = Outside(consumer, store, null_servers.Model(), SimpleNamespace(send=lambda _: None))  # type: ignore[arg-type]
    ingest = Ingest(outside, settings, DEFAULT_RULES, lambda: _EPOCH_MS / 1000 + now_s[0], lambda: now_s[0])
    ingest.turn()
    for records in polls:
        consumer.next = records
        now_s[0] += _TURN_MS / 1000
        yield
        ingest.turn()
        yield


# -- measuring


def polls_of(load: Load, speech: bytes) -> Iterator[list[Record]]:
    """The records of each turn."""
    due: list[Record] = []
    end_ms = _EPOCH_MS + _TURN_MS
    for record in records_of(load, speech):
        while record.timestamp_ms >= end_ms:
            yield due
            due, end_ms = [], end_ms + _TURN_MS
        due.append(record)
    yield due


def cpu_s(stage: Iterator[None]) -> list[float]:
    """CPU time of this process for each turn of a stage, without what prepares the turn."""
    took_s: list[float] = []
    for _ in stage:
        began_s = time.process_time()
        next(stage)
        took_s.append(time.process_time() - began_s)
    return took_s


def costs(load: Load, speech: bytes, settings: Settings, repeats: int) -> Costs:
    """The sum of the best of several runs of each turn: a busy moment of the machine hits one run of it, not all."""
    best: dict[str, list[float]] = {}
    for _ in range(repeats):
        polls = partial(polls_of, load, speech)
        stages = {
            "loop": turns(polls(), settings),
            "decode": read(polls()),
            "detector": detect(load, polls()),
            "segment": segment(load, polls(), settings),
            "stream": push(polls(), settings),
            "partition": take(polls(), settings),
        }
        for name, stage in stages.items():
            took_s = cpu_s(stage)
            best[name] = list(map(min, best.get(name, took_s), took_s))
    return Costs(**{name: sum(took_s) / load.records * 1e6 for name, took_s in best.items()})


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


def how_it_runs() -> str:
    """The Python, and whether the code that handles each record is compiled: what makes figures comparable."""
    return f"Python {platform.python_version()}, {'compiled' if is_compiled() else 'not compiled'}"


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--calls", type=int, default=50, help="number of simultaneous calls")
    parser.add_argument("--seconds", type=int, default=10, help="length of each call, s")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each measurement; the best counts")
    parser.add_argument(
        "--chunk-ms", type=int, nargs="*", default=CHUNKS_MS, choices=CHUNKS_MS, help="length of the records, ms"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(io.StringIO()), cache_logger_on_first_use=False)
    settings, speech = Settings(), dialogue(60, 1)
    costs(Load(200, LAYOUTS[1], 1, 20), speech, settings, 1)  # what is imported and made once
    gc.freeze()  # as the worker does
    stages = ("decode", "detector", "segment", "stream", "call and partition", "turn and Redis")
    columns = ("records of", "channels", "channels per core", "us a record", "us a frame", "floor", *stages)
    table = Table(*columns, title="CPU time by stage, us a record", caption=how_it_runs())
    for layout in LAYOUTS:
        for chunk_ms in arguments.chunk_ms:
            load = Load(chunk_ms, layout, arguments.calls, arguments.seconds)
            table.add_row(*row(load, costs(load, speech, settings, arguments.repeats)))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(add_arguments(argparse.ArgumentParser(prog="python -m callmood.bench.ingest")).parse_args()))
