"""Recorded calls as a telephony system would send them: a sound file in, audio/1 records out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from callmood.schemas.audio import AUDIO_SCHEMA
from callmood.schemas.common import Encoding, Notice, Role
from callmood.worker import g711
from callmood.worker.errors import ConfigurationError

_FULL_SCALE = 32768


class BadRecording(ConfigurationError):  # noqa: N818 - a file is bad; the program is not in error
    """A file that cannot be used as a call; the message says why."""


class Sent(NamedTuple):
    """One record for the audio topic: its first sample is spoken at `media_ms`, it can be sent at `due_ms`."""

    media_ms: float
    due_ms: float
    headers: list[tuple[str, bytes]]
    value: bytes


@dataclass(frozen=True, slots=True)
class Shape:
    """How a recording is turned into records."""

    layout: tuple[Role, ...] | None = None
    """Role of each channel; None: customer for mono, customer and agent for stereo."""
    encoding: Encoding = Encoding.PCMU
    rate_hz: int = 8000
    chunk_ms: int = 200
    notice: Notice | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recording:
    """A two-party (or mono) call. `pcm` is int16, samples x channels, at the shape's rate."""

    path: Path
    pcm: npt.NDArray[np.int16]
    layout: tuple[Role, ...]
    shape: Shape

    @property
    def duration_ms(self) -> float:
        """Length of the call."""
        return len(self.pcm) * 1000 / self.shape.rate_hz

    def records(self) -> Iterator[Sent]:
        """Start, media and end of the call, in order."""
        shape = self.shape
        yield Sent(0.0, 0.0, self._headers("start", 0, 0.0) + self._described(), b"")
        step = max(1, shape.rate_hz * shape.chunk_ms // 1000)
        seq = 0
        for first in range(0, len(self.pcm), step):
            seq += 1
            chunk = self.pcm[first : first + step]
            media_ms, due_ms = first * 1000 / shape.rate_hz, (first + len(chunk)) * 1000 / shape.rate_hz
            yield Sent(media_ms, due_ms, self._headers("media", seq, media_ms), _encode(chunk, shape.encoding))
        yield Sent(self.duration_ms, self.duration_ms, self._headers("end", seq + 1, self.duration_ms), b"")

    def _headers(self, event: str, seq: int, media_ms: float) -> list[tuple[str, bytes]]:
        values = {"schema": AUDIO_SCHEMA, "event": event, "seq": str(seq), "media_ms": f"{media_ms:.3f}"}
        if event == "media":
            values |= {
                "encoding": self.shape.encoding.value,
                "rate": str(self.shape.rate_hz),
                "layout": ",".join(role.value for role in self.layout),
            }
        return [(name, value.encode()) for name, value in values.items()]

    def _described(self) -> list[tuple[str, bytes]]:
        described = [(f"attr.{name}", value.encode()) for name, value in self.shape.attributes.items()]
        return described + ([("notice", self.shape.notice.value.encode())] if self.shape.notice else [])


def load(path: Path, shape: Shape) -> Recording:
    """Read a sound file and bring it to the shape's rate.

    Raises:
        BadRecording: missing, not a sound file, empty, or with other channels than the layout has.
    """
    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        reason = "no such file" if not path.exists() else str(error).partition(": ")[2] or str(error)
        raise BadRecording(f"{path}: not a readable sound file: {reason}") from error
    if not len(samples):
        raise BadRecording(f"{path}: contains no audio")
    layout = shape.layout or (Role.CUSTOMER, Role.AGENT)[: samples.shape[1]]
    if len(layout) != samples.shape[1]:
        raise BadRecording(f"{path}: has {samples.shape[1]} channels, but the layout names {len(layout)}: set --layout")
    if rate_hz != shape.rate_hz:
        samples = soxr.resample(samples, rate_hz, shape.rate_hz)
    pcm = np.clip(np.round(samples * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    return Recording(path, pcm, layout, shape)


def _encode(pcm: npt.NDArray[np.int16], encoding: Encoding) -> bytes:
    match encoding:
        case Encoding.PCMU:
            return g711.encode_pcmu(pcm.reshape(-1))
        case Encoding.PCMA:
            return g711.encode_pcma(pcm.reshape(-1))
        case Encoding.S16BE:
            return pcm.astype(">i2").tobytes()
        case Encoding.S16LE:
            return pcm.astype("<i2").tobytes()
