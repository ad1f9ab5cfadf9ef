"""One partition: its clock, its calls, its ledger; records in, commits out. Pure.

What is published depends on the log and the model's answers alone. All code that decides it is in this file and below.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import extract_tb
from typing import Any, NamedTuple

from callmood.worker.call import signs
from callmood.worker.call.alert import Rule
from callmood.worker.call.call import Call
from callmood.worker.call.outputs import Due, Released
from callmood.worker.call.render import Stamps, Times, utterance_record
from callmood.worker.commits import CallUpdate, Commit, DeadLetter, Restored, TopicPartition
from callmood.worker.errors import BadRecord, CallmoodError, Reason, TooManyBadRecords
from callmood.worker.intake.decode import named_calls, wants_pause
from callmood.worker.partition.deadlines import Deadlines
from callmood.worker.partition.ended import Ended, EndedCalls, refuse_start
from callmood.worker.partition.ledger import Ledger
from callmood.worker.records import Chunk, Prediction, Record, Utterance
from callmood.worker.settings import Settings
from callmood.worker.stream_time import in_ms

STALL_MS = 5_000
"""Observed time without a record after which open speech of a stream is closed, so as not to hold the watermark."""

Decode = Callable[[Record], Chunk | None]


@dataclass(slots=True)
class _Live:
    """A call that is not over, or whose end is not committed."""

    call: Call
    saved_at_ms: int
    """The partition's clock at the newest commit of its state."""
    changes: int = 0
    """How often something happened that the next commit must hold."""
    committed_changes: int = 0
    must_publish: bool = False
    """Whether the store has lost the call's summary."""

    @property
    def is_changed(self) -> bool:
        return self.changes != self.committed_changes


class _Carried(NamedTuple):
    """What a commit carries of one call; `ended` if the call is finished with it."""

    live: _Live
    changes: int
    due: Due
    ended: Ended | None

    @classmethod
    def of(cls, live: _Live) -> "_Carried | None":
        """What is due of a call, or None while nothing of it may be stored."""
        due, call = live.call.due(), live.call
        if due is None:
            return None
        return cls(live, live.changes, due, _ended(call) if call.is_finished else None)

    def update(self, stamps: Stamps) -> CallUpdate:
        """The call's part of the commit."""
        call, due = self.live.call, self.due
        state = due.saved.blob if self.ended is None else self.ended.pack()
        is_known = not due.is_first
        if not due.is_changed and not self.live.must_publish:
            return CallUpdate(call.id, state, is_known=is_known)
        summary = call.fold.summary(stamps.policy, stamps.model)
        return CallUpdate(call.id, state, summary, signs.risk(summary), due.is_first, is_known)


class _Collected(NamedTuple):
    """A commit that is not confirmed, and what it carries."""

    commit: Commit
    calls: list[_Carried]
    past: list[str]
    """Ended calls that it deletes."""
    elapsed_ms: int


class Partition:
    """One partition from its assignment to its revocation."""

    def __init__(
        self, source: TopicPartition, restored: Restored, decode: Decode, settings: Settings, rules: Sequence[Rule]
    ) -> None:
        self.source = source
        assert restored.watermark is not None
        self._settings = settings
        self._rules = rules
        self._decode = decode
        self._time = restored.time
        self._ledger = Ledger(restored.watermark, restored.time)
        self._calls: dict[str, _Live] = {}
        self._ended = EndedCalls(settings.call.ended_memory_s * 1000)
        self._deadlines = Deadlines()
        self._skipped = {"late": 0, "duplicate": 0}
        self._dead: list[DeadLetter] = []
        self._stores_all = False
        self._held: set[int] = set()
        """Offsets of dead-letter records that are settled by the state of the call that they pause."""
        self._bad_in_a_row = 0
        self._collected: _Collected | None = None
        self._committed_watermark = restored.watermark
        for call_id, blob in restored.states.items():
            if not self._ended.restore(call_id, blob):
                self._add(Call.restore(call_id, blob, settings, rules))
        self._reported_offset = self._newest_restored_offset()
        """Bad records up to here have their dead-letter record: it was written before the newest state was stored."""

    def _newest_restored_offset(self) -> int:
        return max([self._ended.last_offset, *(live.call.last_offset for live in self._calls.values())])

    def _add(self, call: Call) -> _Live:
        live = _Live(call, saved_at_ms=self._time.elapsed_ms)
        self._calls[call.id] = live
        self._deadlines.set(call.id, self._deadline_ms(call))
        return live

    # -- records in

    def take(self, record: Record, now_ms: float) -> list[Utterance]:
        """Take the next record; returns the utterances for the model. `now_ms` only feeds latency figures.

        Raises:
            TooManyBadRecords: more bad records in a row than `max_consecutive_bad`.
        """
        self._time = self._time.after(record.timestamp_ms)
        captured_ms = self._time.newest_ms if record.timestamp_ms < 0 else in_ms(record.timestamp_ms)
        self._ledger.open(record.position.offset, capture_ms=captured_ms, mark_after=self._time)
        try:
            utterances = self._take(record, now_ms)
        except BadRecord as bad:
            utterances = self._reject(record, bad, now_ms)
        return [*utterances, *self._age(now_ms)]

    def skip_to(self, offset: int) -> None:
        """The records before this offset that were not taken cannot be read; their calls go on with a gap."""
        self._ledger.skip_to(offset)

    def _take(self, record: Record, now_ms: float) -> list[Utterance]:
        chunk = self._decoded(record)
        self._bad_in_a_row = 0  # readable, even if it does not fit its call
        if chunk is None:
            self._ledger.settle(record.position.offset)
            return []
        live = self._calls.get(chunk.call_id)
        if self._is_late(chunk, live):
            self._ledger.settle(record.position.offset)
            self._skipped["late"] += 1
            return []
        call = live.call if live else Call(chunk.call_id, self._settings, self._rules)
        try:
            outcome = call.take(chunk, elapsed_ms=self._time.elapsed_ms, now_ms=now_ms)
        except CallmoodError:
            raise
        except Exception as error:  # a fault of ours: it costs the record, and not the other calls of the partition
            call.refuse(record.position.offset)
            raise BadRecord(Reason.WORKER_ERROR, _place_of(error)) from error
        live = live or self._add(call)
        if not call.goes_on:
            self._deadlines.pull(call.id, self._deadline_ms(call))
        if outcome.is_duplicate:
            self._ledger.settle(record.position.offset)
            self._skipped["duplicate"] += 1
        live.changes += call.has_news
        return outcome.utterances

    def _decoded(self, record: Record) -> Chunk | None:
        try:
            return self._decode(record)
        except CallmoodError:
            raise
        except Exception as error:  # reading changes no state, so the record alone is to blame
            raise BadRecord(Reason.WORKER_ERROR, _place_of(error)) from error

    def _is_late(self, chunk: Chunk, live: _Live | None) -> bool:
        if live is None or not live.call.is_over:
            return self._ended.refuse(chunk, watermark=self._ledger.watermark, elapsed_ms=self._time.elapsed_ms)
        live.call.drop(chunk)
        refuse_start(chunk, was_idle=live.call.was_idle)
        return True

    def _reject(self, record: Record, bad: BadRecord, now_ms: float) -> list[Utterance]:
        offset = record.position.offset
        utterances, is_held = self._pause_by(record, now_ms)
        if offset <= self._reported_offset:
            if not is_held:
                self._ledger.settle(offset)
            return utterances
        if is_held:
            self._held.add(offset)
        if self._may_be_paused(record):  # the audio may hold a card number
            record = replace(record, value=None)
        self._dead.append(DeadLetter(record, bad.reason, bad.detail))
        self._bad_in_a_row += 1
        limit = self._settings.input.max_consecutive_bad
        if limit and self._bad_in_a_row > limit:
            raise TooManyBadRecords(
                f"{self._bad_in_a_row} bad records in a row on {self.source.topic}/{self.source.partition}; "
                f"the newest: {bad}. Check what the producers send, and CALLMOOD_INPUT__FORMAT"
            )
        return utterances

    def _pause_by(self, record: Record, now_ms: float) -> tuple[list[Utterance], bool]:
        """Pause the calls that a refused `pause` names; returns whether the state of one settles the offset."""
        input_format = self._settings.input.format
        if not wants_pause(record, input_format=input_format):
            return [], False
        utterances, is_held = [], False
        for call_id in sorted(named_calls(record, input_format=input_format) or ()):
            if (live := self._calls.get(call_id)) is not None:
                closed, holds = live.call.pause(record.position.offset, now_ms)
                utterances += closed
                is_held = is_held or holds
                live.changes += 1
        return utterances, is_held

    def _may_be_paused(self, record: Record) -> bool:
        """Whether a refused record may belong to a paused call."""
        named = named_calls(record, input_format=self._settings.input.format)
        if named is None:
            return self._ended.has_paused or any(live.call.is_paused for live in self._calls.values())
        return any(self._is_paused(call_id) for call_id in named)

    def _is_paused(self, call_id: str) -> bool:
        live = self._calls.get(call_id)
        return (live is not None and live.call.is_paused) or self._ended.is_paused(call_id)

    def _age(self, now_ms: float) -> Sequence[Utterance]:
        """Close what is open in stalled streams, and end idle calls."""
        elapsed_ms = self._time.elapsed_ms
        if not self._deadlines.has_due(elapsed_ms):
            return ()
        utterances: list[Utterance] = []
        for call_id in self._deadlines.pop_due(elapsed_ms):
            live = self._calls[call_id]
            call = live.call
            if call.is_over:
                continue
            if elapsed_ms - call.seen_at_ms >= call.idle_ms:
                utterances += call.end("end" if call.has_end else "idle", elapsed_ms=elapsed_ms, now_ms=now_ms)
            else:
                utterances += call.stall(elapsed_ms - STALL_MS, now_ms)
                self._deadlines.set(call_id, self._deadline_ms(call))
            live.changes += 1
        return utterances

    def _deadline_ms(self, call: Call) -> int:
        """When the next of the call's streams stalls, or the call is idle."""
        idle_at_ms, active_at_ms = call.seen_at_ms + call.idle_ms, call.active_at_ms
        return idle_at_ms if active_at_ms is None else min(idle_at_ms, active_at_ms + STALL_MS)

    # -- answers in

    def answer(self, call_id: str, utterance_id: str, prediction: Prediction, now_ms: float) -> None:
        """Take the model's answer for one of this partition's utterances."""
        live = self._calls[call_id]
        live.call.answer(utterance_id, prediction, now_ms)
        live.changes += 1

    # -- commits out

    def collect(self, stamps: Stamps, now_ms: float) -> Commit:
        """All that is due. Until `confirm`, the next `collect` returns it again, with what has come since."""
        due = self._calls.values() if self._stores_all else filter(self._is_due, self._calls.values())
        carried = [_Carried.of(live) for live in due]
        calls = [one for one in carried if one is not None]
        dead = tuple(self._dead)
        settled = [offset for one in calls for offset in one.due.saved.settled_offsets]
        settled += [offset for offset in _offsets(dead) if offset not in self._held]
        watermark, time = self._ledger.watermark_after(settled)
        past = self._ended.past(watermark=watermark, elapsed_ms=self._time.elapsed_ms)
        commit = Commit(
            self.source,
            watermark,
            time,
            utterances=tuple(_utterance(item, stamps, now_ms) for one in calls for item in one.due.results),
            alerts=tuple(alert for one in calls for alert in one.due.alerts),
            calls=(
                *(one.update(stamps) for one in calls),
                *(CallUpdate(call_id, state=None) for call_id in past),
                *(self._ended.states(without=past) if self._stores_all else ()),
            ),
            dead_letters=dead,
            is_news=bool(calls or past or dead or self._stores_all) or watermark != self._committed_watermark,
            is_whole=self._stores_all,
        )
        self._collected = _Collected(commit, calls, past, self._time.elapsed_ms)
        return commit

    def confirm(self, commit: Commit) -> None:
        """Drop what the commit carried that was collected last, because the store has it now.

        Raises:
            ValueError: another commit was collected since.
        """
        collected, self._collected = self._collected, None
        if collected is None or collected.commit is not commit:
            raise ValueError("only the commit that was collected last can be confirmed")
        for one in collected.calls:
            self._confirm_call(one, collected.elapsed_ms)
        for offset in _offsets(commit.dead_letters):
            if offset in self._held:
                self._held.discard(offset)
            else:
                self._ledger.settle(offset)
        del self._dead[: len(commit.dead_letters)]
        self._ended.forget(collected.past)
        self._stores_all = self._stores_all and not commit.is_whole
        self._committed_watermark = commit.watermark

    def _confirm_call(self, carried: "_Carried", elapsed_ms: int) -> None:
        live, call = carried.live, carried.live.call
        call.confirm(carried.due)
        live.committed_changes = carried.changes
        live.must_publish = False
        live.saved_at_ms = elapsed_ms
        self._ledger.settle(*carried.due.saved.settled_offsets)
        if carried.ended is not None:
            del self._calls[call.id]
            self._deadlines.drop(call.id)
            self._ended.add(call.id, carried.ended._replace(last_offset=call.last_offset))

    def restore_store(self, summaries: Iterable[str], *, all_states: bool) -> None:
        """The store has lost the summaries of these calls, or states: the next commit holds them again."""
        self._stores_all = self._stores_all or all_states
        for call_id in summaries:
            if (live := self._calls.get(call_id)) is not None:
                live.must_publish = True
                live.changes += 1

    def _is_due(self, live: _Live) -> bool:
        return live.is_changed or self._is_overdue(live)

    def _is_overdue(self, live: _Live) -> bool:
        """Whether the call has held the watermark for so long that its state is saved without any result."""
        quiet_ms = self._time.elapsed_ms - live.saved_at_ms
        return live.call.has_unsettled and quiet_ms >= self._settings.worker.state_interval_ms

    # -- facts

    def take_skipped(self) -> Mapping[str, int]:
        """Records skipped since the last call: late ones of ended calls, and duplicates."""
        skipped, self._skipped = self._skipped, dict.fromkeys(self._skipped, 0)
        return skipped

    @property
    def fresh_detectors(self) -> int:
        """Channels that could not be restored exactly and go on with a fresh detector."""
        return sum(live.call.fresh_detectors for live in self._calls.values())

    @property
    def position(self) -> int:
        """The next offset to read."""
        return self._ledger.position

    @property
    def open_records(self) -> int:
        """Records that a successor would have to read again."""
        return self._ledger.open_records

    @property
    def oldest_capture_ms(self) -> int | None:
        """Capture time of the oldest unprocessed audio."""
        return self._ledger.oldest_capture_ms

    @property
    def live_calls(self) -> int:
        """Calls that are not over, or whose end is not committed."""
        return len(self._calls)


def _utterance(item: Released, stamps: Stamps, now_ms: float) -> Mapping[str, Any]:
    times = Times(item.decided_ms, item.known_ms, now_ms)
    return utterance_record(item.result, item.number, stamps, times)


def _offsets(letters: Iterable[DeadLetter]) -> list[int]:
    return [letter.record.position.offset for letter in letters]


def _place_of(error: Exception) -> str:
    """The kind of an error and where it was raised; its text may hold what the record holds."""
    frame = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"


def _ended(call: Call) -> Ended:
    return Ended(call.last_offset, call.seen_at_ms, call.is_paused, call.was_idle)
