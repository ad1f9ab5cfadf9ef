"""Ended calls, kept for a limited time so that late and replayed records do not start them again. Pure."""

import math
from collections.abc import Container, Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import msgpack
import msgspec

from callmood.schemas.common import Event
from callmood.worker.call.call import Call
from callmood.worker.call.checkpoint import STATE_VERSION
from callmood.worker.call.ending import Ending
from callmood.worker.commits import CallUpdate
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.records import Chunk


class Ended(NamedTuple):
    """One call that is over."""

    last_offset: int
    """Its newest record; a successor that resumes at or before this offset reads it again."""
    ended_at_ms: int
    """The partition's clock at its end."""
    is_paused: bool
    """Whether it ended while the producer had paused it."""
    state: bytes = b""
    """The state that it goes on from; empty if nothing continues it."""
    ending: Ending = Ending()
    """Which records do."""
    was_given_up: bool = False
    """Whether it ended because the worker failed on it."""
    taken_offset: int = -1
    """The newest record in `state`. An earlier owner may have read newer ones, up to `last_offset`."""
    first_offset: int = 0
    """Its first record; records before it are of an earlier call with the same id."""

    @classmethod
    def of(cls, call: Call, state: bytes) -> "Ended":
        """A call that is over, in its stored state; empty: nothing continues it."""
        ended = cls(call.last_offset, call.seen_at_ms, call.is_paused, state, call.ending)
        return ended._replace(taken_offset=call.taken_offset, first_offset=call.first_offset)

    def pack(self) -> bytes:
        """As it is stored among the call states."""
        return bytes(msgpack.packb({"v": STATE_VERSION, "ended": list(self), "given_up": self.was_given_up}))

    @classmethod
    def unpack(cls, blob: bytes) -> "Ended | None":
        """What `pack` wrote; None: the state of a live call.

        Nothing continues a call that another version of the worker has ended. Its first three fields are the same, and
        a call that was given up stays so.
        """
        stored = msgpack.unpackb(blob)
        fields = stored.get("ended")
        if fields is None:
            return None
        if stored.get("v") == STATE_VERSION:
            return msgspec.convert(fields, cls)
        given_up = stored.get("given_up") is True
        return cls(*msgspec.convert(fields[:3], tuple[int, int, bool]), was_given_up=given_up)


def is_final(blob: bytes) -> bool:
    """Whether a stored state is one of a call that is over, and that no record continues."""
    ended = Ended.unpack(blob)
    return ended is not None and not ended.state


def refuse_start(chunk: Chunk) -> None:
    """The worker drops records of a call that is over, but reports a `start`: a new call would be lost with it.

    Raises:
        BadRecord: the record starts a new call under the id of a call that has just ended.
    """
    if chunk.event is Event.START:
        raise BadRecord(Reason.CALL_ENDED, "a call with this id has just ended: use a new call id")


_GIVEN_UP_MEMORY_MS = 24 * 3_600_000
"""The rest of a call that was given up is no new call: longer than any call lasts."""


class EndedCalls:
    """The ended calls of one partition."""

    def __init__(self, memory_ms: int) -> None:
        self._memory_ms = memory_ms
        self._calls: dict[str, Ended] = {}
        self._paused: set[str] = set()  # asked for each refused record
        self._newest_first_offset = 0
        self._next_past_ms = 0.0
        """By the partition's clock; none of the calls is past before it."""

    @property
    def last_offset(self) -> int:
        """Newest record of any ended call; -1 if there is none."""
        return max((ended.last_offset for ended in self._calls.values()), default=-1)

    def may_be_paused(self, call_ids: AbstractSet[str] | None, offset: int) -> bool:
        """Whether the record at this offset may be of a pause of one of these calls, or with None of any call.

        One of them ended while it was paused, or the record is of an earlier call with its id, of which nothing is
        known.
        """
        if call_ids is None:
            return bool(self._paused) or offset < self._newest_first_offset
        known = [self._calls[call_id] for call_id in call_ids & self._calls.keys()]
        return not self._paused.isdisjoint(call_ids) or any(offset < ended.first_offset for ended in known)

    def was_given_up(self, call_id: str) -> bool:
        """Whether this call ended because the worker failed on it."""
        return call_id in self._calls and self._calls[call_id].was_given_up

    def add(self, call_id: str, ended: Ended) -> None:
        """Remember a call that is over: it is fully committed, or was given up."""
        self._calls[call_id] = ended
        self._paused.discard(call_id)
        self._paused |= {call_id} if ended.is_paused else set()
        self._newest_first_offset = max(self._newest_first_offset, ended.first_offset)
        self._next_past_ms = min(self._next_past_ms, self.until_ms(ended))

    def go_on(self, call_id: str) -> None:
        """A live call has this id, and knows its own pauses; the ended one is kept until a state replaces it."""
        self._paused.discard(call_id)

    def open_call(self, call_id: str, *, offset: int, elapsed_ms: int) -> Ended | None:
        """The call, if a record at this offset may continue it."""
        ended = self._calls.get(call_id)
        if ended is None or not ended.state or offset <= ended.taken_offset:
            return None
        return ended if elapsed_ms < ended.ending.until_ms else None

    def refuse(self, chunk: Chunk, *, elapsed_ms: int) -> bool:
        """Whether the record belongs to a call that is over and can be dropped.

        Raises:
            BadRecord: the record starts a new call under the id of a call that has just ended.
        """
        offset = chunk.position.offset
        is_new = chunk.call_id in self._calls and offset > self._calls[chunk.call_id].last_offset
        is_over = self.is_over(chunk.call_id, offset=offset, elapsed_ms=elapsed_ms)
        if is_over and is_new:
            refuse_start(chunk)
        return is_over

    def is_over(self, call_id: str, *, offset: int, elapsed_ms: int) -> bool:
        """Whether the record at this offset, which names the call, comes after its end; then the offset is remembered.

        The first new record after the memory time begins the next call, however far the commits are.
        """
        ended = self._calls.get(call_id)
        if ended is None or (offset > ended.last_offset and elapsed_ms >= self.until_ms(ended)):
            return False
        self.note(call_id, offset)
        return True

    def note(self, call_id: str, offset: int) -> None:
        """Remember that the record at this offset was read: read again, it must not start the call."""
        ended = self._calls.get(call_id)
        if ended is not None:
            self._calls[call_id] = ended._replace(last_offset=max(ended.last_offset, offset))

    def past(self, *, watermark: int, elapsed_ms: int, live: Container[str] = ()) -> list[str]:
        """The calls that no replay reaches any more and whose late records have had their time.

        A `live` call is not past: its next state replaces this one.
        """
        if elapsed_ms < self._next_past_ms:
            return []
        self._next_past_ms = min((self.until_ms(ended) for ended in self._calls.values()), default=math.inf)
        past = [call_id for call_id, ended in self._calls.items() if self._is_past(ended, watermark, elapsed_ms)]
        return [call_id for call_id in past if call_id not in live]

    def states(self, of: Iterable[str] | None, *, without: Container[str]) -> list[CallUpdate]:
        """The stored states of these calls, or with None of all ended ones; without some."""
        call_ids = self._calls if of is None else of
        return [CallUpdate(one, self._calls[one].pack()) for one in call_ids if one not in without]

    def forget(self, call_ids: Iterable[str]) -> None:
        """The store has deleted these calls, or has the state of a later one in their place."""
        for call_id in call_ids:
            self._calls.pop(call_id, None)
            self._paused.discard(call_id)

    def until_ms(self, ended: Ended) -> int:
        """When, by the partition's clock, the next record with its id starts a new call."""
        memory_ms = max(self._memory_ms, _GIVEN_UP_MEMORY_MS) if ended.was_given_up else self._memory_ms
        return max(ended.ended_at_ms + memory_ms, ended.ending.until_ms)

    def _is_past(self, ended: Ended, watermark: int, elapsed_ms: int) -> bool:
        return ended.last_offset < watermark and elapsed_ms >= self.until_ms(ended)
