"""The stored state of a call: its checkpoint and the fold of what it has published. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

import msgpack
import msgspec

from callmood.worker.call.ending import Ending
from callmood.worker.errors import ConfigurationError
from callmood.worker.speech.stream_state import StreamState

STATE_VERSION = 6


class Checkpoint(NamedTuple):
    """A call's processing state right after one record; holds no audio.

    `taken_offset` is the newest record taken until then. `forgotten` is as in `Forgotten`. `is_settled`: whether the
    call has a result; `has_end`: whether one of its streams has ended; `hold_from_ms`: as in `Hold`;
    `reserved`: attributes with reserved names; `ending`: what it goes on with after its end; `first_offset`: the
    call's first record; records before it are of an earlier call with the same id.
    """

    streams: Mapping[str, StreamState]
    origin_ms: int | None
    notice: str | None
    seen_at_ms: int
    taken_offset: int
    paused_at_ms: int | None
    forgotten: tuple[int, bool]
    is_settled: bool = True
    has_end: bool = False
    hold_from_ms: int | None = None
    reserved: Mapping[str, str] = {}
    ending: Ending = Ending()
    is_over: bool = False
    first_offset: int = 0

    def covered(self, records: Mapping[int, tuple[str, int]]) -> list[int]:
        """The offsets of the records that a successor with this checkpoint does without; given by stream and seq."""
        ends, taken = {name: state.seq for name, state in self.streams.items()}, self.taken_offset
        return [
            offset
            for offset, (stream, seq) in records.items()
            if (seq < ends[stream] if stream in ends else offset <= taken)  # newer ones are of streams still to come
        ]


class Stored(NamedTuple):
    """What the store keeps of a live call."""

    checkpoint: Checkpoint
    fold: bytes
    last_offset: int

    def pack(self) -> bytes:
        """The blob to store."""
        return bytes(msgpack.packb({"v": STATE_VERSION, "call": self}))

    @classmethod
    def unpack(cls, blob: bytes) -> "Stored":
        """What `pack` wrote.

        Raises:
            ConfigurationError: another version of the worker wrote it.
            Exception: it is no state.
        """
        state = msgpack.unpackb(blob)
        if state["v"] != STATE_VERSION:
            raise ConfigurationError(
                f"a stored call state has format {state['v']}, this version of callmood reads {STATE_VERSION}: roll "
                "back, let all calls end, then upgrade (docs/operations.md)"
            )
        return msgspec.convert(state["call"], cls)
