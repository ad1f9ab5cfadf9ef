"""Calls as telephony sends them, and a worker without Kafka, Redis and a model: for tests of `worker.partition`.

The worker here is the real `Partition`; its store is a value that changes with a whole commit only, and its model is a
hash, so that an answer depends on every byte that it hears.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from callmood.schemas.common import Encoding
from callmood.worker import g711
from callmood.worker.call.render import Stamps
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Commit, Restored, TopicPartition
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import ModelInfo, Position, Prediction, Record, Utterance
from callmood.worker.settings import SegmentSettings, Settings
from callmood.worker.stream_time import StreamTime

SOURCE = TopicPartition("audio", 0)
EPOCH_MS = 1_700_000_000_000
RATE_HZ = 8000
STAMPS = Stamps(
    {"emotion_roles": ["customer"], "require_notice": False, "legal_basis": None}, ModelInfo("m", "1", "sha256:0")
)
CONFIGURED = Settings(segment=SegmentSettings(padding_ms=140))
"""The default settings, with the padding that the times in the tests contain."""


class Sent(NamedTuple):
    """A record on its way to the topic; `at_ms` is its timestamp."""

    at_ms: float
    call_id: str
    headers: Mapping[str, str]
    value: bytes = b""


class Leg:
    """One media session of one call, as its gateway sends it.

    Args:
        call_id: the key.
        stream: the media session.
        start_ms: when it begins, by the gateway's own clock.
        layout: role of each channel.
    """

    def __init__(
        self,
        call_id: str = "call-1",
        *,
        stream: str = "0",
        start_ms: float = EPOCH_MS,
        layout: str = "customer",
        has_media_ms: bool = True,
    ) -> None:
        self.call_id = call_id
        self.stream = stream
        self.start_ms = start_ms
        self.layout = layout
        self.seq = 0
        self.media_ms = 0.0
        self._has_media_ms = has_media_ms

    def send(self, event: str, value: bytes = b"", **headers: str) -> Sent:
        """The next record; `headers` win over the usual ones."""
        usual = {"schema": "callmood.audio/1", "event": event, "stream": self.stream, "seq": str(self.seq)}
        if self._has_media_ms:
            usual["media_ms"] = f"{self.media_ms:.3f}"
        if event == "media":
            usual |= {"encoding": "pcmu", "rate": str(RATE_HZ), "layout": self.layout}
        self.seq += 1
        at_ms = self.start_ms + self.media_ms
        frame_bytes = len(self.layout.split(","))
        self.media_ms += len(value) / frame_bytes * 1000 / RATE_HZ
        return Sent(at_ms, self.call_id, usual | headers, value)

    def media(self, audio: bytes, chunk_ms: float = 200) -> list[Sent]:
        """Audio in records of equal length."""
        step = max(1, round(chunk_ms * RATE_HZ / 1000)) * len(self.layout.split(","))
        return [self.send("media", audio[first : first + step]) for first in range(0, len(audio), step)]

    def skip(self, ms: float) -> None:
        """Let media time pass without a record: nothing was sent."""
        self.media_ms += ms

    def lose(self, ms: float, record_ms: float = 200) -> None:
        """Let media time pass whose records are lost."""
        self.media_ms += ms
        self.seq += math.ceil(ms / record_ms)


@cache
def voice(seconds: float, level: float = 1.0) -> bytes:
    """A vowel over faint noise, in PCMU: speech to the detector. Level 0 is the noise alone."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = sum(np.sin(2 * np.pi * hz * t) / k for k, hz in enumerate((140, 280, 420, 560, 700, 1400, 2100), 1))
    noise = np.random.default_rng(0).normal(0, 30, t.size)
    return g711.encode_pcmu(np.round(tone * level * 3000 + noise).astype(np.int16))


def quiet(seconds: float) -> bytes:
    """The noise of a line on which nobody speaks."""
    return voice(seconds, 0.0)


def both(customer: bytes, agent: bytes) -> bytes:
    """Two channels, interleaved."""
    return np.stack([np.frombuffer(customer, np.uint8), np.frombuffer(agent, np.uint8)], axis=1).tobytes()


def line(length_s: float, turns: list[tuple[float, float]], seed: int = 1, noise_dbfs: float = -66) -> bytes:
    """A line with noise and turns of a voice with syllables, as (start, length) in s; PCMU."""
    t = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(150 * (1 + 0.12 * np.sin(2 * np.pi * 2.3 * t + seed))) / RATE_HZ
    tone = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
    loud = np.zeros(t.size)
    for at_s, turn_s in turns:
        loud[round(at_s * RATE_HZ) : round((at_s + turn_s) * RATE_HZ)] = 1
    noise = np.random.default_rng(seed).normal(0, 32768 * 10 ** (noise_dbfs / 20), t.size)
    return g711.encode_pcmu(np.round(tone * loud * 2500 + noise).astype(np.int16))


def behind(length_s: float, turns: list[tuple[float, float]], quieter_db: float) -> bytes:
    """Such a line, with another voice in the background that hardly stops; PCMU."""
    others = [(at_s, 0.3) for at_s in np.arange(0.1, length_s, 0.45).tolist()]
    own, other = (to_float(line(length_s, some, seed, -72)) for seed, some in ((1, turns), (2, others)))
    return g711.encode_pcmu(np.rint(own + other * 10 ** (-quieter_db / 20)).astype(np.int16))


def to_float(audio: bytes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The samples of PCMU."""
    return g711.to_s16(Encoding.PCMU, audio).astype(float)


def is_true(figure_ms: float, true_ms: float, turns: int = 0) -> bool:
    """Within 3 % or 200 ms; with many short turns, within 60 ms a turn."""
    return abs(figure_ms - true_ms) <= max(200, 0.03 * true_ms, 60 * turns)


@cache
def _wave() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """One period of a voice's waveform: eleven harmonics."""
    phase = np.arange(4096) * 2 * np.pi / 4096
    return sum(np.sin(k * phase) / k for k in range(1, 12))


@cache
def dialogue(seed: int, seconds: int) -> bytes:
    """Two channels that take turns: voiced bursts over a noise floor, PCMU, interleaved."""
    random = np.random.default_rng(seed)
    t = np.arange(seconds * RATE_HZ) / RATE_HZ
    channels = []
    for _ in range(2):
        loud, at_s = np.zeros(len(t)), random.uniform(0, 1)
        while at_s < seconds:
            length_s = random.uniform(0.4, 4.0)
            loud[int(at_s * RATE_HZ) : int((at_s + length_s) * RATE_HZ)] = 1
            at_s += length_s + random.uniform(0.3, 2.0)
        pitch_hz = random.uniform(100, 220) * (1 + 0.1 * np.sin(2 * np.pi * 3 * t))
        periods = np.cumsum(pitch_hz) / RATE_HZ
        tone = _wave()[(periods % 1 * 4096).astype(int)] * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
        channels.append(2500 * tone * loud + random.normal(0, 30, len(t)))
    return g711.encode_pcmu(np.stack(channels, axis=1).astype(np.int16).reshape(-1))


def log_of(sent: Iterable[Sent], first_offset: int = 0) -> list[Record]:
    """The records as they stand on the partition, in the order given."""
    return [
        Record(
            Position(*SOURCE, offset),
            item.call_id.encode(),
            item.value,
            tuple((name, text.encode()) for name, text in item.headers.items()),
            round(item.at_ms),
        )
        for offset, item in enumerate(sent, start=first_offset)
    ]


def in_time(*legs: Iterable[Sent]) -> list[Sent]:
    """The records of several legs, interleaved by their timestamps."""
    return sorted((item for leg in legs for item in leg), key=lambda item: item.at_ms)


def heard(audio: bytes) -> Prediction:
    """A model whose answer depends on every byte it hears."""
    shares = [byte + 1 for byte in blake2b(audio, digest_size=4).digest()]
    anger, happiness, neutral, sadness = (share / sum(shares) for share in shares)
    return Prediction((anger, happiness, neutral, sadness))


@dataclass
class Store:
    """What survives a kill."""

    watermark: int = 0
    time: StreamTime = field(default_factory=StreamTime)
    states: dict[str, bytes] = field(default_factory=dict)
    utterances: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[Mapping[str, Any]] = field(default_factory=list)
    calls: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    dead: dict[int, str] = field(default_factory=dict)

    def apply(self, commit: Commit) -> None:
        """All or nothing."""
        assert commit.watermark >= self.watermark
        self.watermark, self.time = commit.watermark, commit.time
        self.utterances += [{**utterance, "latency_ms": {}} for utterance in commit.utterances]
        self.alerts += commit.alerts
        self.dead |= {letter.record.position.offset: letter.reason.value for letter in commit.dead_letters}
        for call in commit.calls:
            if call.summary is not None:
                self.calls[call.call_id] = call.summary
            if call.state is None:
                self.states.pop(call.call_id, None)
            else:
                self.states[call.call_id] = call.state

    def of(self, call_id: str = "call-1") -> list[dict[str, Any]]:
        """The utterances of one call."""
        return [utterance for utterance in self.utterances if utterance["call_id"] == call_id]


class Worker:
    """One life of a worker on one partition."""

    def __init__(self, store: Store | None = None, configured: Settings | None = None) -> None:
        self.store = store or Store()
        self.partition = Partition(
            SOURCE,
            Restored(self.store.watermark, self.store.time, dict(self.store.states)),
            partial(decode.decode, input_format="headers", max_record_ms=5000),
            configured or CONFIGURED,
            DEFAULT_RULES,
        )
        self.waiting: list[Utterance] = []

    def read(self, records: Iterable[Record]) -> "Worker":
        """Take records; their utterances wait for the model."""
        self.waiting += self.partition.take(records, 0.0)
        return self

    def answer(self, utterances: Iterable[Utterance] | None = None) -> None:
        """Let the model answer these in this order; by default, all that wait."""
        answered = list(self.waiting if utterances is None else utterances)
        for utterance in answered:
            self.partition.answer(utterance.call_id, utterance.id, heard(utterance.audio), 0.0)
        ids = {utterance.id for utterance in answered}
        self.waiting = [utterance for utterance in self.waiting if utterance.id not in ids]

    def commit(self) -> Store:
        """Answer all that waits and commit what is due, until no record waits for a commit."""
        self.answer()
        store = self.commit_answered()
        return self.commit() if self.waiting or self.partition.is_waiting else store

    def commit_answered(self) -> Store:
        """Commit what is due without the answers that are missing."""
        commit = self.partition.collect(STAMPS, 0.0)
        if commit.is_news:
            self.store.apply(commit)
            self.partition.confirm(commit)
        self.read(())
        return self.store


def analyse(sent: Iterable[Sent], configured: Settings | None = None) -> Store:
    """All of a log through one life, committed once at its end."""
    return Worker(configured=configured).read(log_of(sent)).commit()


def facts(store: Store, call_id: str = "call-1") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The utterances and the aggregate of a call without the counters of its commits."""
    counters = {"version", "updated_at_ms"}
    summary = {name: value for name, value in store.calls[call_id].items() if name not in counters}
    return store.of(call_id), summary


def unsent(utterances: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Utterances without what depends on the records that they were sent in."""
    return [{**utterance, "source": None} for utterance in utterances]
