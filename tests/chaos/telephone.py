"""The calls of a seed, record by record: the load sends them, and the verifier expects them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from callmood.schemas.common import Encoding
from callmood.worker import g711

RATE_HZ = 8000
_EXAMPLES = Path(__file__).parents[2] / "examples" / "calls"
_LAYOUTS = ("customer,agent",) * 6 + ("agent,customer", "customer", "mixed")
_ENCODINGS = (Encoding.PCMU,) * 4 + (Encoding.PCMA, Encoding.S16LE)
_Samples = NDArray[np.int16]


class Planned(NamedTuple):
    """A record: when it is sent and what its first sample's capture time is, both in ms from the call's begin."""

    due_ms: float
    capture_ms: float
    headers: dict[str, str]
    value: bytes
    is_readable: bool = True


class Stretch(NamedTuple):
    """Audio without a break: native bytes of each channel, from `first_sample` of the stream on."""

    first_sample: int
    channels: list[bytes]


class Break(NamedTuple):
    """Where a stream has no audio, in its media time."""

    kind: str
    start_ms: float
    end_ms: float


@dataclass
class Leg:
    """One stream: stretches with breaks between them."""

    name: str
    begin_ms: float
    stretches: list[Stretch] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    end_ms: float = 0.0
    """Its media time at its end."""


@dataclass
class Plan:
    """One call."""

    call_id: str
    layout: tuple[str, ...]
    encoding: Encoding
    legs: list[Leg]
    records: list[Planned]
    queue: str
    has_end: bool


def plans(seed: int, chunk_ms: int) -> Iterator[Plan]:
    """The calls of a seed, one after the other, without an end."""
    for number in count():
        yield _Caller(seed, number, chunk_ms).plan()


def ticker(seed: int, partition: int) -> str:
    """A call without audio that lets time go on in a partition after the last call."""
    return f"chaos-{seed}-tick-{partition}"


class _Caller:
    """Draws one call."""

    def __init__(self, seed: int, number: int, chunk_ms: int) -> None:
        self._random = np.random.default_rng([seed, number])
        self._id = f"chaos-{seed}-{number:05}"
        self._layout = tuple(str(self._random.choice(_LAYOUTS)).split(","))
        self._encoding = Encoding(self._random.choice([encoding.value for encoding in _ENCODINGS]))
        self._chunk_ms = float(np.clip(chunk_ms * self._random.choice([1, 1, 1, 0.5, 2]), 20, 1000))
        self._records: list[Planned] = []
        self._queue = f"queue-{number % 7}"

    def plan(self) -> Plan:
        random = self._random
        legs = [self._leg("0", 0.0, random.uniform(6, 26))]
        if random.random() < 0.12:  # a reconnect
            legs.append(self._leg("1", legs[0].end_ms + random.uniform(200, 1500), random.uniform(4, 10)))
        last = legs[-1]
        has_end = bool(random.random() < 0.85)
        if has_end:
            seq = sum(r.is_readable and r.headers["stream"] == last.name for r in self._records)
            self._add(last, last.end_ms, last.end_ms, "end", seq, scope="call")
        self._disturb()
        return Plan(self._id, self._layout, self._encoding, legs, self._records, self._queue, has_end)

    def _leg(self, name: str, begin_ms: float, seconds: float) -> Leg:
        leg = Leg(name, float(np.round(begin_ms)))
        audio = [self._voice(seconds) for _ in self._layout]
        length, first, seq = len(audio[0]), 0, 1
        notice = str(self._random.choice(["given", "not_given"]))
        self._add(leg, 0.0, 0.0, "start", 0, **{"attr.queue": self._queue, "notice": notice})
        cuts = sorted(self._random.uniform(0.1, 0.9, 1 if self._random.random() < 0.3 else 0))
        skipped = 0
        for end in [*(int(cut * length) for cut in cuts), length]:
            native = [_encode(self._encoding, channel[first:end]) for channel in audio]
            leg.stretches.append(Stretch(first + skipped, native))
            seq = self._media(leg, first + skipped, native, seq)
            if end < length:
                skipped, seq = self._break(leg, end + skipped, seq) - end, seq + 2
            first = end
        leg.end_ms = (length + skipped) * 1000 / RATE_HZ
        return leg

    def _break(self, leg: Leg, sample: int, seq: int) -> int:
        """A pause or a gap from a sample on; returns the sample after it."""
        kind, at_ms = str(self._random.choice(["pause", "gap"])), sample * 1000 / RATE_HZ
        shortest_s = 0.8 if kind == "gap" else 0.0  # longer than what the worker conceals
        missing = int(max(self._random.uniform(0.4, 3.0), shortest_s) * RATE_HZ)
        after_ms = (sample + missing) * 1000 / RATE_HZ
        leg.breaks.append(Break(kind, at_ms, after_ms))
        if kind == "pause":
            self._add(leg, at_ms, at_ms, "pause", seq)
            self._add(leg, after_ms, after_ms, "resume", seq + 1)
        else:
            self._add(leg, at_ms, at_ms, "gap", seq, discarded_ms=f"{after_ms - at_ms:.3f}")
            self._add(leg, after_ms, after_ms, "start", seq + 1)  # no news, but a number of its own
        return sample + missing

    def _media(self, leg: Leg, first_sample: int, channels: list[bytes], seq: int) -> int:
        width = self._encoding.bytes_per_sample
        length, at = len(channels[0]) // width, 0
        fields = {"encoding": self._encoding.value, "rate": str(RATE_HZ), "layout": ",".join(self._layout)}
        planes = np.stack([np.frombuffer(channel, f"V{width}") for channel in channels], axis=1)
        while at < length:
            count = min(length - at, max(1, int(self._chunk_ms * self._random.uniform(0.7, 1.3) * RATE_HZ / 1000)))
            media_ms, end_ms = ((first_sample + n) * 1000 / RATE_HZ for n in (at, at + count))
            self._add(leg, end_ms, media_ms, "media", seq, planes[at : at + count].tobytes(), **fields)
            at, seq = at + count, seq + 1
        return seq

    def _add(
        self, leg: Leg, due_ms: float, media_ms: float, event: str, seq: int, value: bytes = b"", **fields: str
    ) -> None:
        headers = {"schema": "callmood.audio/1", "event": event, "stream": leg.name, "seq": str(seq)}
        headers |= {"media_ms": f"{media_ms:.3f}"} | fields
        self._records.append(Planned(leg.begin_ms + due_ms, leg.begin_ms + media_ms, headers, value))

    def _disturb(self) -> None:
        """Some records come twice, and a few cannot be read."""
        disturbed: list[Planned] = []
        is_paused = False
        for record in self._records:
            disturbed.append(record)
            event = record.headers["event"]
            is_paused = event == "pause" or (is_paused and event != "resume")
            if event == "media" and self._random.random() < 0.02:
                disturbed.append(record)
            if not is_paused and self._random.random() < 0.004:
                disturbed.append(record._replace(headers={"stream": "0"}, value=b"not audio", is_readable=False))
        self._records = disturbed

    def _voice(self, seconds: float) -> _Samples:
        """One party: speech from the examples with silences, sometimes a monologue or music on hold."""
        random, length = self._random, int(seconds * RATE_HZ)
        audio, at = random.normal(0, 25, length), int(random.uniform(0, 1.5) * RATE_HZ)
        while at < length:
            kind = random.random()
            span = random.uniform(16, 24) if kind < 0.04 else random.uniform(3, 8) if kind < 0.08 else None
            count = int((span or random.uniform(0.6, 4.5)) * RATE_HZ)
            piece = _music(count) if span and kind >= 0.04 else _snippet(random, count)
            piece = piece[: length - at] * random.uniform(0.5, 1.3)
            audio[at : at + len(piece)] += piece
            at += count + int(random.uniform(0.2, 2.5) * RATE_HZ)
        return np.clip(audio, -32768, 32767).astype(np.int16)


def _snippet(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    source = _sources()[random.integers(len(_sources()))]
    return np.take(source, np.arange(random.integers(len(source)), count + len(source))[:count], mode="wrap")


def _music(count: int) -> NDArray[np.float64]:
    t = np.arange(count) / RATE_HZ
    return 2500 * sum(np.sin(2 * np.pi * hz * t) for hz in (262, 330, 392)) * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * t))


@cache
def _sources() -> list[NDArray[np.float64]]:
    """The channels of the example calls."""
    calls = [soundfile.read(path, dtype="int16")[0] for path in sorted(_EXAMPLES.glob("*.flac"))]
    return [call[:, channel].astype(np.float64) for call in calls for channel in range(2)]


def _encode(encoding: Encoding, samples: _Samples) -> bytes:
    if encoding is Encoding.PCMU:
        return g711.encode_pcmu(samples)
    if encoding is Encoding.PCMA:
        return g711.encode_pcma(samples)
    return samples.astype("<i2").tobytes()
