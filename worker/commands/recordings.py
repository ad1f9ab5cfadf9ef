"""Recorded calls as a telephony system would send them: a sound file in, audio/1 records out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from callmood.schemas.audio import AUDIO_SCHEMA, MAX_CHANNELS
from callmood.schemas.common import Encoding, Notice, Role
from callmood.worker import g711
from callmood.worker.commands.sound_files import BadRecording, Raw, blocks, probe

__all__ = ["BadRecording", "Recording", "Sent", "Shape", "load"]

_MIXED: Final = (
    "holds one channel, taken for both parties mixed: no emotion by default. If one party alone is on it, set"
)
_EQUAL: Final = (
    "its channels are equal, or nearly: a mono recording, taken for both parties mixed. If not, set --layout"
)
_PARTIES: Final = (Role.CUSTOMER, Role.AGENT)

_Block = npt.NDArray[np.int16]


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
    """Role of each channel; None: mixed for mono, customer and agent for stereo."""
    encoding: Encoding = Encoding.PCMU
    rate_hz: int = 8000
    chunk_ms: int = 200
    notice: Notice | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    raw: Raw | None = None
    """How to read a file without a header; None: by its name."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded call of `samples` samples at the shape's rate; `notices` say what a user should know of it.

    `opened` begins to read it: blocks of int16, [samples, channels].
    """

    path: Path
    samples: int
    layout: tuple[Role, ...]
    shape: Shape
    opened: Callable[[], Iterable[_Block]]
    notices: tuple[str, ...] = ()

    @property
    def duration_ms(self) -> float:
        """Length of the call."""
        return self.samples * 1000 / self.shape.rate_hz

    def records(self) -> Iterator[Sent]:
        """Start, media and end of the call, in order."""
        shape = self.shape
        yield Sent(0.0, 0.0, self._headers("start", 0, 0.0) + self._described(), b"")
        step = max(1, shape.rate_hz * shape.chunk_ms // 1000)
        seq = 0
        for chunk in _pieces(self.opened(), step):
            first = seq * step
            seq += 1
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
    """A sound file as a call. It is read to its end at once: what is wrong with it is known before a record is sent.

    Raises:
        BadRecording: missing, not a sound file, empty, or with other channels than the layout has.
    """
    found = probe(path, shape.rate_hz, shape.raw)
    if found.channels > MAX_CHANNELS:
        raise BadRecording(f"{path}: has {found.channels} channels, and a call has at most {MAX_CHANNELS}")
    layout, notices = shape.layout, list(found.notices)
    opened: Callable[[], Iterable[_Block]] = partial(blocks, path, shape.rate_hz, shape.raw)
    if layout is None and found.has_equal_channels:
        layout, opened = (Role.MIXED,), lambda: (block[:, :1] for block in blocks(path, shape.rate_hz, shape.raw))
        notices.append(_EQUAL)
    elif layout is None and found.channels == 1:
        layout = (Role.MIXED,)
        notices.append(f"{_MIXED} --layout {Role.CUSTOMER.value}")
    elif layout is None and found.channels == len(_PARTIES):
        layout = _PARTIES
    elif layout is None or len(layout) != found.channels:
        named = f"the layout names {len(layout or _PARTIES)}"
        raise BadRecording(f"{path}: has {found.channels} channels, but {named}: set --layout")
    return Recording(path, found.samples, layout, shape, opened, tuple(notices))


def load_legs(paths: Sequence[Path], shape: Shape) -> Recording:
    """Mono files as one call, a channel each; all begin at the same time.

    Raises:
        BadRecording: a file cannot be used, is not mono, or the layout names another number of channels.
    """
    layout = shape.layout or _PARTIES
    if len(layout) != len(paths):
        raise BadRecording(
            f"{len(paths)} files are one call, but the layout names {len(layout)} channels: set --layout"
        )
    probes = [probe(path, shape.rate_hz, shape.raw) for path in paths]
    for path, found in zip(paths, probes, strict=True):
        if found.channels != 1:
            raise BadRecording(f"{path}: has {found.channels} channels, and a leg of a call has one")

    def opened() -> Iterator[_Block]:
        readers = [_pieces(blocks(path, shape.rate_hz, shape.raw), shape.rate_hz) for path in paths]
        for pieces in zip_longest(*readers, fillvalue=np.zeros((0, 1), np.int16)):
            length = max(map(len, pieces))
            yield np.hstack([np.pad(piece, ((0, length - len(piece)), (0, 0))) for piece in pieces])

    notices = tuple(f"{path}: {text}" for path, found in zip(paths, probes, strict=True) for text in found.notices)
    return Recording(paths[0], max(found.samples for found in probes), layout, shape, opened, notices)


def _pieces(read: Iterable[_Block], length: int) -> Iterator[_Block]:
    """Blocks of any size as blocks of `length` samples, and what is left at the end."""
    waiting: list[_Block] = []
    count = 0
    for block in read:
        waiting.append(block)
        count += len(block)
        if count < length:
            continue
        whole = np.concatenate(waiting)
        for first in range(0, count - length + 1, length):
            yield whole[first : first + length]
        waiting = [whole[count - count % length :]]
        count %= length
    if count:
        yield np.concatenate(waiting)


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
