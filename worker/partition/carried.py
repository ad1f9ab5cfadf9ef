"""The part of a partition's commit that belongs to each call. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from callmood.worker.call.call import Call
from callmood.worker.call.outputs import Due, Released
from callmood.worker.call.render import Stamps, Times, utterance_record
from callmood.worker.call.series import Series
from callmood.worker.commits import CallUpdate, Commit
from callmood.worker.partition.ended import Ended
from callmood.worker.records import Chunk, Record

STALL_MS: Final = 5_000
"""Observed time without a record after which open speech of a stream is closed, so as not to hold the watermark."""
_MOST_STREAMS: Final = 4
"""Streams of which records wait: what waits takes memory."""


class Waiting(NamedTuple):
    """Records of one stream of a call, and the same as they were read."""

    series: Series
    records: list[Record]


@dataclass(slots=True)
class Live:
    """A call that is not over, or whose end is not committed."""

    call: Call
    number: int
    """Its place in the order in which the partition's calls came."""
    saved_at_ms: int
    """The partition's clock at the newest commit of its state."""
    changes: int = 0
    """How often something happened that the next commit must hold."""
    must_publish: bool = False
    """Whether the store has lost the call's summary."""
    waiting: dict[str, Waiting] = field(default_factory=dict)
    """By stream: records with which the call only goes on, and which it has not taken yet."""

    @property
    def is_open(self) -> bool:
        """Whether a new owner would have to read records of the call again."""
        return bool(self.waiting or self.call.open_offsets)

    @property
    def deadline_ms(self) -> int:
        """When the next of the call's streams stalls, or the call is idle."""
        idle_at_ms, active_at_ms = self.call.seen_at_ms + self.call.idle_ms, self.call.active_at_ms
        return idle_at_ms if active_at_ms is None else min(idle_at_ms, active_at_ms + STALL_MS)

    def can_wait(self, record: Record, chunk: Chunk, elapsed_ms: int) -> bool:
        """Whether the call only goes on with this record, and with those that wait; then it waits with them."""
        waiting = self.waiting.get(chunk.stream)
        if waiting is not None:
            if not waiting.series.add(chunk, elapsed_ms):
                return False
            waiting.records.append(record)
            return True
        series = self.call.series(chunk, elapsed_ms) if len(self.waiting) < _MOST_STREAMS else None
        if series is not None:
            self.waiting[chunk.stream] = Waiting(series, [record])
        return series is not None


class Carried(NamedTuple):
    """What a commit carries of one call; `ended` if the call is finished with it."""

    live: Live
    changes: int
    due: Due
    ended: Ended | None
    update: CallUpdate
    utterances: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, live: Live, stamps: Stamps, now_ms: float) -> "Carried | None":
        """What is due of a call, or None while nothing of it may be stored."""
        due, call = live.call.due(), live.call
        if due is None:
            return None
        ended = Ended.of(call, due.saved.blob) if call.is_finished else None
        utterances = tuple(_utterance(item, stamps, now_ms) for item in due.results)
        return cls(live, live.changes, due, ended, _update(live, due, ended, stamps), utterances)


def last_of(given_up: Call | None, state: CallUpdate, stamps: Stamps) -> CallUpdate:
    """The stored state of a call that is over; if it was given up and is shown as live, with its last summary."""
    if given_up is None or given_up.published is None or given_up.published.aggregate.end_reason is not None:
        return state
    given_up.fold.give_up(given_up.published)
    try:
        summary = given_up.fold.summary(stamps.policy, stamps.model)
    except Exception:  # noqa: BLE001 - the worker may have failed on just this
        return state
    return replace(state, summary=summary, is_known=True)


class Collected(NamedTuple):
    """A commit that is not confirmed, and what it carries."""

    commit: Commit
    calls: Iterable[Carried]
    past: Iterable[str]
    """Calls whose states it deletes."""
    given_up: Iterable[str]
    """Calls on which the worker failed; it stores that."""
    elapsed_ms: int


def _update(live: Live, due: Due, ended: Ended | None, stamps: Stamps) -> CallUpdate:
    call = live.call
    state = due.saved.blob if ended is None else ended.pack()
    is_known = not due.is_first
    if not due.is_changed and not live.must_publish:
        return CallUpdate(call.id, state, is_known=is_known)
    summary = call.fold.summary(stamps.policy, stamps.model)
    was_over = call.published is not None and call.published.aggregate.end_reason is not None
    return CallUpdate(call.id, state, summary, summary["risk"], due.is_first, is_known, was_over)


def _utterance(item: Released, stamps: Stamps, now_ms: float) -> Mapping[str, Any]:
    times = Times(item.decided_ms, item.known_ms, now_ms)
    return utterance_record(item.result, item.number, stamps, times)
