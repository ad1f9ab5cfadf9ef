"""Calls as telephony sends them: uneven chunks; some lost, doubled or late; paused, held, reconnected; mostly ended."""

from collections.abc import Mapping
from functools import cache
from random import Random
from typing import NamedTuple

import numpy as np

from callmood.schemas.common import Encoding
from callmood.worker import g711

RATE_HZ = 8000
_BY_DEFAULT: Mapping[str, str] = {}
_RECORDINGS = 6
_RECORDING_S = 5
_WIRE = {
    Encoding.PCMU: g711.encode_pcmu,
    Encoding.PCMA: g711.encode_pcma,
    Encoding.S16LE: lambda pcm: pcm.astype("<i2").tobytes(),
}


class Arrival(NamedTuple):
    """A record on its way to the log. `stamp` is its timestamp, where that is not its capture time."""

    arrives_ms: float
    capture_ms: float
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None
    stamp: int | None = None
    is_odd: bool = False


@cache
def voices(number: int) -> np.ndarray:
    """Two voices that take turns in bursts over a noise floor: int16, samples x 2."""
    random = np.random.default_rng(number)
    t = np.arange(_RECORDING_S * RATE_HZ) / RATE_HZ
    channels = []
    for _ in range(2):
        loud, at_s = np.zeros(len(t)), random.uniform(0, 1)
        while at_s < _RECORDING_S:
            length_s = random.uniform(0.4, 2.5)
            loud[int(at_s * RATE_HZ) : int((at_s + length_s) * RATE_HZ)] = 1
            at_s += length_s + random.uniform(0.3, 1.5)
        pitch_hz = random.uniform(100, 220) * (1 + 0.1 * np.sin(2 * np.pi * 3 * t))
        phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
        voice = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
        channels.append(2500 * voice * loud + random.normal(0, 30, len(t)))
    return np.stack(channels, axis=1).astype(np.int16)


@cache
def recording(number: int, encoding: Encoding, channels: int) -> bytes:
    """The voices as they are sent, interleaved."""
    return _WIRE[encoding](voices(number)[:, :channels].reshape(-1))


_SWAPPED_MS = 4_000
"""An `end` that is swapped with a record from before a long hold would come after its call is forgotten."""


class Telephone:
    """The gateway of one call.

    Args:
        random: decides everything about the call.
        call_id: the key of its records.
        begin_ms: when the call begins.
    """

    def __init__(self, random: Random, call_id: str, *, begin_ms: float) -> None:
        self._random = random
        self._key = call_id.encode()
        self._begin_ms = begin_ms
        self._clock_off_ms = random.choice([0, 0, 0, random.uniform(-1500, 1500), 3_600_000])
        self._arrivals: list[Arrival] = []

    def call(self) -> list[Arrival]:
        """A call of one stream, or of two: a reconnect. Its records in the order of their arrival."""
        is_cut_off = self._random.random() < 0.2
        second = Random(f"second leg {self._key!r} {self._begin_ms}")
        has_leg = not is_cut_off and second.random() < 0.25
        scope = {"scope": "stream"} if has_leg else {}  # the leg may come back from a hold after it
        length_ms = self._stream("0", self._begin_ms, ends=0.0 if is_cut_off else 0.7, scope=scope)
        if is_cut_off:
            self._stream("1", self._begin_ms + length_ms + 300, ends=0.7)
        if has_leg:
            self._leg(second, length_ms)
        self._disturb()
        end_ms = max(arrival.arrives_ms for arrival in self._arrivals)
        if self._random.random() < 0.15:  # as a producer that has forgotten where it was
            late = self._random.choice(self._arrivals)
            self._arrivals.append(late._replace(arrives_ms=end_ms + self._random.uniform(1, 900)))
        if self._random.random() < 0.1:
            again = self._record("9", 0, "start", end_ms + self._random.uniform(1, 900))
            self._arrivals.append(again)
        if self._random.random() < 0.3:
            at = self._random.randrange(len(self._arrivals))
            pauses = [i for i in range(at, len(self._arrivals) - 1) if ("event", b"pause") in self._arrivals[i].headers]
            at = pauses[0] + 1 if pauses else at  # in a pause, its value must not reach the dead-letter topic
            poison = self._arrivals[at]._replace(headers=(("schema", b"nonsense"),), value=b"\x00")
            self._arrivals.insert(at, poison)
        return self._arrivals

    def _leg(self, random: Random, length_ms: float) -> None:
        """A second leg; its `end` ends the call, and may overtake what the other one has sent before."""
        known, own = len(self._arrivals), self._random
        self._random = random
        own_length_ms = self._stream("leg", self._begin_ms + random.uniform(0, 500), ends=0.0)
        self._random = own
        end_ms = self._begin_ms + max(length_ms, own_length_ms + 500)
        end = self._record("leg", len(self._arrivals) - known, "end", end_ms, scope="call")
        self._arrivals.append(end._replace(arrives_ms=end_ms - random.choice([0.0, random.uniform(100, 1_500)])))
        self._arrivals.sort(key=lambda arrival: arrival.arrives_ms)

    def ticks(self, until_ms: float) -> list[Arrival]:
        """A call without audio that only moves the partition's clock, and ends."""
        self._clock_off_ms = 0
        every_ms = 1000
        ticks = [self._record("0", seq, "start", seq * every_ms) for seq in range(round(until_ms / every_ms))]
        return [*ticks, self._record("0", len(ticks), "end", until_ms)]

    def _record(self, stream: str, seq: int, event: str, at_ms: float, value: bytes = b"", **more: str) -> Arrival:
        fields = {"schema": "callmood.audio/1", "event": event, "stream": stream, "seq": str(seq)} | more
        headers = tuple((name, text.encode()) for name, text in fields.items())
        return Arrival(at_ms, at_ms + self._clock_off_ms, self._key, headers, value)

    def _stream(self, stream: str, begin_ms: float, *, ends: float, scope: Mapping[str, str] = _BY_DEFAULT) -> float:
        """Append one media session; returns its length in ms."""
        random = self._random
        encoding = random.choice([Encoding.PCMU, Encoding.PCMU, Encoding.PCMA, Encoding.S16LE])
        layout = random.choice(["customer,agent", "customer,agent", "agent,customer", "customer"])
        channels = layout.count(",") + 1
        audio = recording(random.randrange(_RECORDINGS), encoding, channels)
        frame_bytes = encoding.bytes_per_sample * channels
        samples = round(random.uniform(1, _RECORDING_S) * RATE_HZ)
        chunk_ms = random.choice([(20, 60), *[(100, 300)] * 4, *[(200, 1000)] * 3])
        has_media_time = random.random() < 0.8
        breaks = {
            random.uniform(300, 4000): kind for kind in random.sample(["pause", "pause", "gap", "gap", "hold"], 2)
        }
        breaks = breaks if random.random() < 0.4 else {}
        silent_ms = {
            "pause": random.uniform(200, 1500),
            "gap": 400.0,
            "hold": random.choice([200.0, 2_000.0, 14_000.0]),
        }
        media = {"encoding": encoding.value, "rate": str(RATE_HZ), "layout": layout}
        first, seq, skipped_ms = 0, 0, 0.0

        def add(event: str, value: bytes = b"", **more: str) -> None:
            nonlocal seq
            media_ms = first * 1000 / RATE_HZ + skipped_ms
            stamp = {"media_ms": f"{media_ms:.3f}"} if has_media_time else {}
            self._arrivals.append(self._record(stream, seq, event, begin_ms + media_ms, value, **stamp, **more))
            seq += 1

        add("start", **{"attr.queue": "sales", "notice": random.choice(["given", "not_given"])})
        while first < samples:
            if breaks and min(breaks) < first * 1000 / RATE_HZ:
                kind = breaks.pop(min(breaks))
                if kind != "hold":
                    add(kind, **({"discarded_ms": "400"} if kind == "gap" else {}))
                skipped_ms += silent_ms[kind]
                if kind == "pause":
                    add("resume")
                continue
            count = min(samples - first, max(1, round(random.uniform(*chunk_ms) * RATE_HZ / 1000)))
            add("media", audio[first * frame_bytes : (first + count) * frame_bytes], **media)
            first += count
        if random.random() < ends:
            add("end", **scope)
        return first * 1000 / RATE_HZ + skipped_ms

    def _disturb(self) -> None:
        """Lose, double and swap a few records; a pause that never ends is fine too."""
        random, disturbed = self._random, []
        badly = random.choice([0.0, 0.01, 0.05])
        for arrival in self._arrivals:
            dice = random.random()
            if dice < badly and len(disturbed) > 2:
                continue
            disturbed.append(arrival)
            if dice > 1 - badly:
                late_ms = random.choice([0, random.uniform(0, 2000)])
                disturbed.append(arrival._replace(arrives_ms=arrival.arrives_ms + late_ms))
            is_near = len(disturbed) > 3 and disturbed[-1].arrives_ms - disturbed[-2].arrives_ms < _SWAPPED_MS
            if dice > 1 - 2 * badly and is_near:
                swapped = disturbed[-2]._replace(arrives_ms=disturbed[-1].arrives_ms)
                disturbed[-2:] = [disturbed[-1]._replace(arrives_ms=disturbed[-2].arrives_ms), swapped]
        self._arrivals = disturbed
