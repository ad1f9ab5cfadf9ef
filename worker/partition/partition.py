"""One partition: its clock, its calls, its ledger; records in, commits out. Pure.

Everything that decides what is published lives here and below, as a function of the log and of the model's answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from callmood.worker.call import aggregate
from callmood.worker.call.alert import Rule
from callmood.worker.call.call import Call
from callmood.worker.call.render import Stamps, Times, utterance_record
from callmood.worker.commits import CallUpdate, Commit, DeadLetter, Restored, TopicPartition
from callmood.worker.errors import BadRecord, TooManyBadRecords
from callmood.worker.partition.deadlines import Deadlines
from callmood.worker.partition.ended import Ended, EndedCalls, refuse_start
from callmood.worker.partition.ledger import Ledger
from callmood.worker.records import Chunk, Prediction, Record, Utterance
from callmood.worker.settings import Settings

STALL_MS = 5_000
"""Observed time without a record after which a stream's open speech is closed: it must not hold back the partition."""

Decode = Callable[[Record], Chunk | None]


class _Outputs(NamedTuple):
    utterances: list[Mapping[str, Any]]
    alerts: list[Mapping[str, Any]]
    calls: list[CallUpdate]


class Partition:
    """The work on one partition between two assignments."""

    def __init__(
        self, source: TopicPartition, restored: Restored, decode: Decode, settings: Settings, rules: Sequence[Rule]
    ) -> None:
        self.source = source
        assert restored.watermark is not None
        self._settings = settings
        self._idle_ms = settings.call.idle_s * 1000
        self._rules = rules
        self._decode = decode
        self._time = restored.time
        self._ledger = Ledger(restored.watermark, restored.time)
        self._calls: dict[str, Call] = {}
        self._ended = EndedCalls(settings.call.ended_memory_s * 1000)
        self._deadlines = Deadlines()
        self._skipped = {"late": 0, "duplicate": 0}
        self._dead: list[DeadLetter] = []
        self._bad_in_a_row = 0
        self._changed: dict[str, None] = {}
        self._first: set[str] = set()
        self._saved_at_ms: dict[str, int] = {}
        self._committed_watermark = restored.watermark
        for call_id, blob in restored.states.items():
            if not self._ended.restore(call_id, blob):
                self._add(Call.restore(call_id, blob, settings, rules))

    def _add(self, call: Call) -> None:
        self._calls[call.id] = call
        self._saved_at_ms[call.id] = self._time.elapsed_ms
        self._deadlines.set(call.id, self._deadline_ms(call))

    # -- records in

    def take(self, record: Record, now_ms: float) -> list[Utterance]:
        """Take the next record; returns the utterances for the model. `now_ms` only feeds latency figures.

        Raises:
            TooManyBadRecords: nothing readable has come for a long time.
        """
        self._time = self._time.after(record.timestamp_ms)
        self._ledger.open(record.position.offset, capture_ms=record.timestamp_ms, mark_after=self._time)
        try:
            utterances = self._take(record, now_ms)
        except BadRecord as bad:
            self._reject(record, bad)
            utterances = []
        return utterances + self._age(now_ms)

    def _take(self, record: Record, now_ms: float) -> list[Utterance]:
        chunk = self._decode(record)
        self._bad_in_a_row = 0  # it can be read; whether it fits its call is the matter of that call alone
        if chunk is None:
            self._ledger.settle(record.position.offset)
            return []
        call = self._calls.get(chunk.call_id)
        if self._is_late(chunk, call):
            self._ledger.settle(record.position.offset)
            self._skipped["late"] += 1
            return []
        is_first = call is None
        call = call or Call(chunk.call_id, self._settings, self._rules)
        outcome = call.take(chunk, elapsed_ms=self._time.elapsed_ms, now_ms=now_ms)
        if is_first:
            self._add(call)
            self._first.add(call.id)
        self._deadlines.pull(call.id, self._deadline_ms(call))
        if outcome.is_settled:
            self._ledger.settle(record.position.offset)
            self._skipped["duplicate"] += 1
        if call.has_news:
            self._changed[call.id] = None
        return outcome.utterances

    def _is_late(self, chunk: Chunk, call: Call | None) -> bool:
        if call is None or not call.is_over:
            return self._ended.refuse(chunk, watermark=self._ledger.watermark, elapsed_ms=self._time.elapsed_ms)
        call.last_offset = chunk.position.offset
        refuse_start(chunk)
        return True

    def _reject(self, record: Record, bad: BadRecord) -> None:
        call_id = (record.key or b"").decode(errors="replace")
        call = self._calls.get(call_id)
        if record.position.offset < (call.last_offset if call else self._ended.last_offset(call_id)):
            self._ledger.settle(record.position.offset)  # read again: its letter went out before this state was stored
            return
        perhaps = self._calls.values() if not record.key else [call] if call else []
        if any(call.is_paused for call in perhaps):  # what is spoken now may be a card number
            record = replace(record, value=None)
        self._dead.append(DeadLetter(record, bad.reason, bad.detail))
        self._bad_in_a_row += 1
        if self._bad_in_a_row > self._settings.input.max_consecutive_bad:
            raise TooManyBadRecords(
                f"{self._bad_in_a_row} unreadable records in a row on {self.source.topic}/{self.source.partition}; "
                f"the newest: {bad}. Check what the producers send, and input.format"
            )

    def _age(self, now_ms: float) -> list[Utterance]:
        """Close what stalled calls hold open, and end the idle ones."""
        utterances: list[Utterance] = []
        elapsed_ms = self._time.elapsed_ms
        for call_id in self._deadlines.pop_due(elapsed_ms):
            call = self._calls[call_id]
            if call.is_over:
                continue
            if elapsed_ms - call.seen_at_ms >= self._idle_ms:
                utterances += call.end("idle", elapsed_ms=elapsed_ms, now_ms=now_ms)
            else:
                utterances += call.stall(elapsed_ms - STALL_MS, now_ms)
                self._deadlines.set(call_id, self._deadline_ms(call))
            self._changed[call_id] = None
        return utterances

    def _deadline_ms(self, call: Call) -> int:
        """When one of the call's streams will have stalled, or all of it will be idle."""
        idle_at_ms, active_at_ms = call.seen_at_ms + self._idle_ms, call.active_at_ms
        return idle_at_ms if active_at_ms is None else min(idle_at_ms, active_at_ms + STALL_MS)

    # -- results in

    def settle(self, call_id: str, utterance_id: str, prediction: Prediction, now_ms: float) -> None:
        """The model answered for one of this partition's utterances."""
        call = self._calls[call_id]
        call.settle(utterance_id, prediction, now_ms)
        self._changed[call_id] = None

    # -- commits out

    def collect(self, stamps: Stamps, now_ms: float) -> Commit | None:
        """All that is due since the last commit, or None. The caller commits it before it collects again."""
        changed, self._changed = self._changed, {}
        outputs = _Outputs([], [], [])
        for call_id in changed:
            self._publish(self._calls[call_id], outputs, stamps, now_ms)
        for call in self._calls.values():
            if self._is_due(call):
                outputs.calls.append(CallUpdate(call.id, self._save(call)))
        dead, self._dead = tuple(self._dead), []
        for letter in dead:
            self._ledger.settle(letter.record.position.offset)
        watermark = self._ledger.watermark
        for call_id in self._ended.expire(watermark=watermark, elapsed_ms=self._time.elapsed_ms):
            outputs.calls.append(CallUpdate(call_id, state=None))
        if not outputs.calls and not dead and watermark == self._committed_watermark:
            return None
        self._committed_watermark = watermark
        return Commit(
            self.source,
            watermark,
            self._ledger.mark,
            utterances=tuple(outputs.utterances),
            alerts=tuple(outputs.alerts),
            calls=tuple(outputs.calls),
            dead_letters=dead,
        )

    def confirm(self) -> Commit:
        """Nothing new, committed all the same: a store that has lost what was committed refuses it."""
        return Commit(self.source, self._committed_watermark, self._ledger.mark)

    def _publish(self, call: Call, outputs: _Outputs, stamps: Stamps, now_ms: float) -> None:
        """What the call has to show: its new utterances, its aggregate, and the state that belongs to them."""
        released = call.release()
        for item in released:
            times = Times(item.decided_ms, item.known_ms, now_ms)
            outputs.utterances.append(utterance_record(item.result, item.number, stamps, times))
        state = self._finish(call) if call.is_finished else self._save(call)
        if state is None:  # its first results are awaited: a successor would find no trace of what is shown now
            return
        outputs.alerts.extend(call.fold.take_alerts())
        if not call.fold.is_changed:
            outputs.calls.append(CallUpdate(call.id, state))
            return
        call.fold.is_changed = False
        summary = call.fold.summary(stamps.policy, stamps.model)
        outputs.calls.append(
            CallUpdate(call.id, state, summary, aggregate.risk(summary), is_first=call.id in self._first)
        )
        self._first.discard(call.id)

    def _is_due(self, call: Call) -> bool:
        """Whether the call holds records back for so long that its state is saved without anything new to show."""
        quiet_ms = self._time.elapsed_ms - self._saved_at_ms[call.id]
        return call.has_unsettled and quiet_ms >= self._settings.worker.state_interval_ms

    def _save(self, call: Call) -> bytes | None:
        self._saved_at_ms[call.id] = self._time.elapsed_ms
        saved = call.save()
        if saved is None:
            return None
        self._settle(call.forget_before(saved.resume))
        return saved.blob

    def _finish(self, call: Call) -> bytes:
        del self._calls[call.id], self._saved_at_ms[call.id]
        self._deadlines.drop(call.id)
        self._settle(call.forget_all())
        ended = Ended(call.last_offset, call.seen_at_ms)
        self._ended.add(call.id, ended)
        return ended.pack()

    def _settle(self, offsets: list[int]) -> None:
        for offset in offsets:
            self._ledger.settle(offset)

    # -- facts

    def take_skipped(self) -> Mapping[str, int]:
        """Records with nothing new since the last time: of ended calls, and duplicates."""
        skipped, self._skipped = self._skipped, dict.fromkeys(self._skipped, 0)
        return skipped

    @property
    def fresh_detectors(self) -> int:
        """Channels that could not be restored exactly and go on with a fresh detector."""
        return sum(call.fresh_detectors for call in self._calls.values())

    @property
    def position(self) -> int:
        """The next offset to read."""
        return self._ledger.position

    @property
    def open_records(self) -> int:
        """Records read that a successor would have to read again."""
        return self._ledger.open_records

    @property
    def oldest_capture_ms(self) -> int | None:
        """Capture time of the oldest unprocessed audio."""
        return self._ledger.oldest_capture_ms

    @property
    def live_calls(self) -> int:
        """Calls that are not over."""
        return len(self._calls)
