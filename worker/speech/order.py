"""Puts the records of one stream in order: drops duplicates, waits for missing records within a bound. Pure.

The bound depends on the records that follow, never on time, so that a replay gives the same order.
"""

from typing import Final, NamedTuple

from callmood.schemas.common import Event
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.records import Chunk
from callmood.worker.settings import InputSettings

_NOW: Final = {Event.PAUSE: 0, Event.END: 1}
"""Events that give up what is missing behind the waiting records: paused audio must not be heard, and an `end` that
comes with its audio takes effect at once. What is missing right before an `end` (1) may have been overtaken by it.
"""
_SWITCHES: Final = frozenset((Event.PAUSE, Event.RESUME))
"""Events that count even after they were given up: otherwise a pause would never begin, or never end."""
_MAX_JUMP: Final = 1_000_000  # five hours of 20 ms records: a damaged number, and to wait would hold the watermark


class Ready(NamedTuple):
    """A record whose turn it is; `missing_seqs` records right before it are lost. `is_late`: its turn is over."""

    chunk: Chunk
    missing_seqs: int
    is_late: bool = False


class Pushed(NamedTuple):
    """The records that a record released. A `duplicate` was taken before, or comes after it was given up."""

    ready: tuple[Ready, ...]
    duplicate: bool


class StreamOrder:
    """The order of one stream.

    Args:
        next_seq: the record to go on with; None: the stream is new here. A stream whose first record lies above
            `max_held`, or is an `end`, was joined late and starts there; below, its beginning is only late.
        max_held: records that may wait for a missing one; with one more it is given up.
        max_wait_ms: capture time that the waiting records may span; with more it is given up.
        switch_seq: the newest pause or resume that was released; -1: none.
    """

    def __init__(self, next_seq: int | None, *, max_held: int, max_wait_ms: int, switch_seq: int = -1) -> None:
        self.switch_seq = switch_seq
        self._next = next_seq
        self._max_held = max_held
        self._max_wait_ms = max_wait_ms
        self._held: dict[int, Chunk] = {}

    @classmethod
    def of(cls, settings: InputSettings, next_seq: int | None, switch_seq: int = -1) -> "StreamOrder":
        """The order with the bounds of the settings."""
        return cls(next_seq, max_held=settings.reorder_records, max_wait_ms=settings.reorder_ms, switch_seq=switch_seq)

    @property
    def next_seq(self) -> int:
        """The first record that has not been released; 0 while nothing was seen."""
        return self._next or 0

    def is_next(self, chunk: Chunk) -> bool:
        """Whether it is this record's turn, and none waits: then `pass_next` does what `push` would."""
        return chunk.seq == self._next and not self._held

    def pass_next(self, chunk: Chunk) -> None:
        """The next record has come in its turn; neither it nor one that waits is a pause, a resume or an end."""
        self._next = chunk.seq + 1

    def refuse_jump(self, chunk: Chunk) -> None:
        """Refuse a number that is absurd.

        Raises:
            BadRecord: it is too far ahead.
        """
        if self.next_seq and chunk.seq - self.next_seq > _MAX_JUMP:
            raise BadRecord(Reason.BAD_HEADER, f"seq is more than {_MAX_JUMP} ahead")

    def push(self, chunk: Chunk) -> Pushed:
        """Take the next record as it arrived."""
        if self._next is None:
            is_beginning = chunk.seq <= self._max_held and chunk.event is not Event.END
            self._next = 0 if is_beginning else chunk.seq
        if chunk.event in _SWITCHES and self.switch_seq < chunk.seq and self._is_numbered_wrongly(chunk):
            self.switch_seq = chunk.seq
            return Pushed((Ready(chunk, missing_seqs=0, is_late=True),), duplicate=False)
        if chunk.seq < self._next or chunk.seq in self._held:
            return Pushed((), duplicate=True)
        self._held[chunk.seq] = chunk
        ready = self._release(chunk.seq - _NOW[chunk.event]) if chunk.event in _NOW else []
        ready += self._in_turn()
        while self._is_too_late:
            ready += self._release(min(self._held))
            ready += self._in_turn()
        return Pushed(tuple(ready), duplicate=False)

    def _is_numbered_wrongly(self, switch: Chunk) -> bool:
        """Whether the turn of this number is over, or another record waits with it."""
        held = self._held.get(switch.seq)
        return switch.seq < self.next_seq or (held is not None and held.event is not switch.event)

    def flush(self) -> tuple[Ready, ...]:
        """Release all waiting records, and give up the missing ones."""
        return tuple(self._release(max(self._held))) if self._held else ()

    @property
    def _is_too_late(self) -> bool:
        captured_ms = [chunk.capture_ms for chunk in self._held.values()]
        return bool(captured_ms) and (
            len(captured_ms) > self._max_held or max(captured_ms) - min(captured_ms) > self._max_wait_ms
        )

    def _in_turn(self) -> list[Ready]:
        ready = []
        while self.next_seq in self._held:
            ready += self._release(self.next_seq)
        return ready

    def _release(self, last_seq: int) -> list[Ready]:
        """The held records up to `last_seq`."""
        ready = []
        for seq in sorted(seq for seq in self._held if seq <= last_seq):
            chunk = self._held.pop(seq)
            ready.append(Ready(chunk, seq - self.next_seq))
            self._next = seq + 1
            if chunk.event in _SWITCHES:
                self.switch_seq = seq
        return ready
