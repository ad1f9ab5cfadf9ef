"""One partition: its clock, its calls, its ledger; records in, commits out. Pure.

What is published depends on the log and the model's answers alone. All code that decides it is in this file and below.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, count

from callmood.worker.call.call import Call
from callmood.worker.call.render import Stamps
from callmood.worker.call.rule import Rule
from callmood.worker.commits import CallUpdate, Commit, DeadLetter, Restored, TopicPartition
from callmood.worker.errors import BadRecord, CallmoodError, Reason, TooManyBadRecords, place_of
from callmood.worker.intake.refused import Decode, decoded, named_calls, paused_calls
from callmood.worker.partition.carried import STALL_MS, Carried, Collected, Live, last_of
from callmood.worker.partition.deadlines import Deadlines
from callmood.worker.partition.due import DueCalls
from callmood.worker.partition.ended import Ended, EndedCalls, refuse_start
from callmood.worker.partition.gathering import Gathering
from callmood.worker.partition.held import Held
from callmood.worker.partition.ledger import Ledger
from callmood.worker.partition.letters import Letters
from callmood.worker.partition.stored import restored_call, resumed_call
from callmood.worker.records import Chunk, Position, Prediction, Record, Utterance
from callmood.worker.settings import Settings


class Partition:
    """One partition from its assignment to its revocation."""

    def __init__(
        self, source: TopicPartition, restored: Restored, decode: Decode, settings: Settings, rules: Sequence[Rule]
    ) -> None:
        self.source = source
        assert restored.watermark is not None
        assert restored.time is not None
        self._settings = settings
        self._rules = rules
        self._decode = decode
        self._time = restored.time
        self._ledger = Ledger(restored.watermark, restored.time)
        self._calls: dict[str, Live] = {}
        self._ended = EndedCalls(settings.call.ended_memory_s * 1000)
        self._held = Held(self._ended, settings.call.ended_memory_s * 1000)
        self._deadlines = Deadlines()
        self._due = DueCalls(settings.worker.state_interval_ms)
        self._gathering = Gathering(self._due.wait, self._refuse_waiting)
        self._numbers = count()
        self._skipped = {"late": 0, "duplicate": 0, "given_up": 0}
        self._letters = Letters()
        self._stores_all = False
        self._given_up: dict[str, Call] = {}  # calls that failed: the next commit says so and settles their records
        self._unreadable: set[str] = set()  # calls whose stored states are no states; the next commit deletes them
        self._bad_in_a_row = 0
        self._collected: Collected | None = None
        self._committed_watermark = restored.watermark
        for call_id, blob in restored.states.items():
            match restored_call(call_id, blob, settings, rules):
                case Call() as call:
                    self._add(call)
                case Ended() as ended:
                    self._ended.add(call_id, ended)
                case None:
                    self._unreadable.add(call_id)
        self._reported_offset = max([self._ended.last_offset, *(one.call.last_offset for one in self._calls.values())])
        """Records up to here that break the contract have their letter: it was written before the newest state was."""

    def _add(self, call: Call) -> Live:
        self._ended.go_on(call.id)
        self._unreadable.discard(call.id)  # its own state replaces that
        live = Live(call, next(self._numbers), saved_at_ms=self._time.elapsed_ms)
        self._calls[call.id] = live
        self._deadlines.set(call.id, live.deadline_ms)
        return live

    # -- records in

    def take(self, records: Iterable[Record], now_ms: float) -> Iterator[Utterance]:
        """Take the next records; yields utterances for the model. `now_ms` only feeds latency figures.

        While `is_waiting`, records are kept: call it again after `confirm`, also without new ones.

        Raises:
            TooManyBadRecords: more bad records in a row than `max_consecutive_bad`.
        """
        for item in chain(self._held.release(), records):
            if self._held.must_wait(self._calls.values(), self._time.elapsed_ms):
                self._held.keep(item)
            elif isinstance(item, int):
                self._ledger.skip_to(item)
            else:
                yield from self._take_next(item, now_ms)

    def _take_next(self, record: Record, now_ms: float) -> Sequence[Utterance]:
        self._time = self._time.after(record.timestamp_ms)
        self._ledger.open(
            record.position.offset, capture_ms=self._time.captured_ms(record.timestamp_ms), mark_after=self._time
        )
        try:
            utterances = self._take(record, now_ms)
        except BadRecord as bad:
            utterances = self._reject(record, bad, now_ms)
        return [*utterances, *self._age(now_ms)] if self._deadlines.has_due(self._time.elapsed_ms) else utterances

    def skip_to(self, offset: int) -> None:
        """The records before this offset that were not taken cannot be read; their calls go on with a gap."""
        if self._held:
            self._held.keep(offset)
        else:
            self._ledger.skip_to(offset)

    def _take(self, record: Record, now_ms: float) -> Sequence[Utterance]:
        chunk = decoded(self._decode, record)
        self._bad_in_a_row = 0  # readable, even if it does not fit its call
        if chunk is None:
            self._ledger.settle(record.position.offset)
            return ()
        if self._gathering.add(self._calls.get(chunk.call_id), record, chunk, self._time.elapsed_ms):
            return ()
        call = self._call_of(chunk)
        if call is None:
            self._ledger.settle(record.position.offset)
            self._skipped["given_up" if self._ended.was_given_up(chunk.call_id) else "late"] += 1
            return ()
        try:
            outcome = call.take(chunk, elapsed_ms=self._time.elapsed_ms, now_ms=now_ms)
        except CallmoodError:
            raise
        except Exception as error:  # a fault of ours: it costs the record, and not the other calls of the partition
            call.refuse(record.position.offset)
            raise BadRecord(Reason.WORKER_ERROR, place_of(error)) from error
        if outcome.is_duplicate:
            self._ledger.settle(record.position.offset)
            self._skipped["duplicate"] += 1
            if call.id not in self._calls:
                return ()  # a copy of a record continues nothing
        live = self._calls.get(call.id) or self._add(call)
        if not outcome.is_plain:
            self._deadlines.pull(call.id, live.deadline_ms)
        self._due.take(live)
        return outcome.utterances

    def _refuse_waiting(self, live: Live, record: Record, error: Exception) -> None:
        """Its dead-letter record may be missing, although states of later records are stored: it waited."""
        live.call.refuse(record.position.offset)
        self._report(record, BadRecord(Reason.WORKER_ERROR, place_of(error)))

    def _call_of(self, chunk: Chunk) -> Call | None:
        """The call of a record: a live one, one that goes on with it, or a new one; None if it is over."""
        live, elapsed_ms, offset = self._calls.get(chunk.call_id), self._time.elapsed_ms, chunk.position.offset
        if live is not None:
            ending = live.call.ending
            if ending.is_behind(chunk) or (live.call.is_over and not ending.allows(chunk, elapsed_ms)):
                live.call.last_offset = max(live.call.last_offset, offset)
                refuse_start(chunk)
                return None
            return live.call
        ended = self._ended.open_call(chunk.call_id, offset=offset, elapsed_ms=elapsed_ms)
        if ended is not None and ended.ending.allows(chunk, elapsed_ms):
            self._ended.note(chunk.call_id, offset)  # the call may refuse it
            return self._call(chunk.call_id, offset, ended.state)
        return None if self._ended.refuse(chunk, elapsed_ms=elapsed_ms) else self._call(chunk.call_id, offset)

    def _reject(self, record: Record, bad: BadRecord, now_ms: float) -> list[Utterance]:
        offset = record.position.offset
        utterances, is_held = self._pause_by(record, now_ms)
        if offset <= self._reported_offset and bad.reason is not Reason.WORKER_ERROR:  # that may be new at this reading
            if not is_held:
                self._ledger.settle(offset)
            return utterances
        if is_held:
            self._letters.hold(offset)
        self._report(record, bad)
        self._bad_in_a_row += 1
        if 0 < self._settings.input.max_consecutive_bad < self._bad_in_a_row:
            raise TooManyBadRecords.of(self._bad_in_a_row, f"{self.source.topic}/{self.source.partition}", bad)
        return utterances

    def _report(self, record: Record, bad: BadRecord) -> None:
        """The next commit writes its dead-letter record."""
        if self._may_be_paused(record):  # the audio may hold a card number
            record = replace(record, value=None)
        self._letters.add(DeadLetter(record, bad.reason, bad.detail))

    def _pause_by(self, record: Record, now_ms: float) -> tuple[list[Utterance], bool]:
        """Pause the calls that a refused `pause` names; returns whether the state of one settles the offset."""
        utterances, is_held = [], False
        offset, elapsed_ms = record.position.offset, self._time.elapsed_ms
        capture_ms = self._time.captured_ms(record.timestamp_ms)
        for call_id in sorted(paused_calls(record, input_format=self._settings.input.format)):
            live = self._calls.get(call_id) or self._begun(call_id, offset)
            if live is not None:
                with self._at_its_own_cost(live):
                    closed, holds = live.call.pause(offset, capture_ms, elapsed_ms, now_ms)
                    utterances += closed
                    is_held = is_held or holds
                    self._deadlines.pull(call_id, live.deadline_ms)
                    self._due.change(live)
        return utterances, is_held

    def _begun(self, call_id: str, offset: int) -> Live | None:
        """The call goes on or begins with a refused record; None if it is over."""
        elapsed_ms = self._time.elapsed_ms
        ended = self._ended.open_call(call_id, offset=offset, elapsed_ms=elapsed_ms)
        if ended is not None:
            return self._add(self._call(call_id, offset, ended.state))
        is_over = self._ended.is_over(call_id, offset=offset, elapsed_ms=elapsed_ms)
        return None if is_over else self._add(self._call(call_id, offset))

    def _call(self, call_id: str, offset: int, state: bytes = b"") -> Call:
        return resumed_call(call_id, state, self._settings, self._rules, first_offset=offset)

    def _may_be_paused(self, record: Record) -> bool:
        """Whether a refused record may belong to a paused call."""
        named = named_calls(record, input_format=self._settings.input.format)
        ids = self._calls.keys() if named is None else named.intersection(self._calls)
        calls, offset = (self._calls[call_id].call for call_id in ids), record.position.offset
        return self._ended.may_be_paused(named, offset) or any(c.is_paused or offset < c.first_offset for c in calls)

    def _age(self, now_ms: float) -> Sequence[Utterance]:
        """Close what is open in stalled streams, and end idle calls."""
        utterances: list[Utterance] = []
        for call_id in self._deadlines.pop_due(self._time.elapsed_ms):
            live = self._calls[call_id]
            with self._at_its_own_cost(live):
                utterances += self._age_one(live, now_ms)
        return utterances

    def _age_one(self, live: Live, now_ms: float) -> list[Utterance]:
        call, elapsed_ms, due_ms = live.call, self._time.elapsed_ms, live.deadline_ms
        if call.is_over:
            return []
        if due_ms > elapsed_ms:  # records have come since the deadline was set
            self._deadlines.set(call.id, due_ms)
            return []
        self._due.change(live)
        if elapsed_ms - call.seen_at_ms >= call.idle_ms:
            return call.end("end" if call.has_end else "idle", elapsed_ms=elapsed_ms, now_ms=now_ms)
        closed = call.stall(elapsed_ms - STALL_MS, now_ms)
        self._deadlines.set(call.id, live.deadline_ms)
        return closed

    # -- a call on which the worker fails

    @contextmanager
    def _at_its_own_cost(self, live: Live) -> Iterator[None]:
        """Work on a call that has taken its records: a fault of ours costs that call, and not the others."""
        self._gathering.take(live)
        try:
            yield
        except CallmoodError:
            raise
        except Exception as error:  # noqa: BLE001 - it would end every worker that takes the partition over
            self._give_up(live.call, error)

    def _give_up(self, call: Call, error: Exception) -> None:
        """Work on a call no more: what is published of it stays, its later records are dropped and counted.

        One dead-letter record, at its newest record, says so. No later value may get there: pauses are not followed.
        """
        self._remove(call)
        self._given_up[call.id] = call
        self._ended.add(call.id, Ended(call.last_offset, self._time.elapsed_ms, is_paused=True, was_given_up=True))
        newest = Position(*self.source, max(0, call.last_offset))
        record = Record(newest, call.id.encode(), None, (), self._time.newest_ms)
        self._letters.add(DeadLetter(record, Reason.WORKER_ERROR, f"the call was given up: {place_of(error)}"))

    # -- answers in

    def answer(self, call_id: str, utterance_id: str, prediction: Prediction, now_ms: float) -> None:
        """Take the model's answer for one of this partition's utterances; one for a call given up is ignored."""
        live = self._calls.get(call_id)
        if live is None:
            return
        live.call.answer(utterance_id, prediction, now_ms)
        self._due.change(live)

    # -- commits out

    def collect(self, stamps: Stamps, now_ms: float) -> Commit:
        """All that is due. Until `confirm`, the next `collect` returns it again, with what has come since."""
        elapsed_ms = self._time.elapsed_ms
        calls = self._carry(self._due.at(elapsed_ms, self._calls, is_whole=self._stores_all), stamps, now_ms)
        dead, given_up = self._letters.collect(), tuple(self._given_up)
        settled = [offset for one in calls for offset in one.due.saved.settled_offsets]
        settled += [offset for call in self._given_up.values() for offset in call.open_offsets]
        settled += self._letters.settled_offsets()
        watermark, time = self._ledger.watermark_after(settled)
        past = [*self._ended.past(watermark=watermark, elapsed_ms=elapsed_ms, live=self._calls), *self._unreadable]
        told = {one.update.call_id for one in calls}.union(past)
        kept = self._ended.states(None if self._stores_all else given_up, without=told)
        ended = [last_of(self._given_up.get(state.call_id), state, stamps) for state in kept]
        commit = Commit(
            self.source,
            watermark,
            time,
            utterances=tuple(utterance for one in calls for utterance in one.utterances),
            alerts=tuple(alert for one in calls for alert in one.due.alerts),
            calls=(*(one.update for one in calls), *(CallUpdate(call_id, state=None) for call_id in past), *ended),
            dead_letters=dead,
            is_news=bool(calls or past or dead or self._stores_all) or watermark != self._committed_watermark,
            is_whole=self._stores_all,
        )
        self._collected = Collected(commit, calls, past, given_up, elapsed_ms)
        return commit

    def _carry(self, due: Iterable[Live], stamps: Stamps, now_ms: float) -> list[Carried]:
        carried: list[Carried | None] = []
        for live in due:
            with self._at_its_own_cost(live):
                carried.append(Carried.of(live, stamps, now_ms))
        return [one for one in carried if one is not None]

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
        self._ledger.settle(*self._letters.confirm(len(commit.dead_letters)))
        for call_id in collected.given_up:
            self._ledger.settle(*self._given_up.pop(call_id).open_offsets)
        self._ended.forget(set(collected.past) - self._given_up.keys())
        self._unreadable.difference_update(collected.past)
        self._stores_all = self._stores_all and not commit.is_whole
        self._committed_watermark = commit.watermark

    def _confirm_call(self, carried: Carried, elapsed_ms: int) -> None:
        live, call = carried.live, carried.live.call
        call.confirm(carried.due)
        live.must_publish = False
        self._due.confirm(carried, elapsed_ms)
        self._ledger.settle(*carried.due.saved.settled_offsets)
        if carried.ended is not None and call.is_finished:  # it has not gone on since
            self._remove(call)
            self._ended.add(call.id, carried.ended._replace(last_offset=call.last_offset))
        elif self._calls.get(call.id) is live:
            self._ended.forget([call.id])

    def restore_store(self, summaries: Iterable[str], *, all_states: bool) -> None:
        """The store has lost the summaries of these calls, or states: the next commit holds them again."""
        self._stores_all = self._stores_all or all_states
        for call_id in summaries:
            if (live := self._calls.get(call_id)) is not None:
                live.must_publish = True
                self._due.change(live)

    def _remove(self, call: Call) -> None:
        del self._calls[call.id]
        self._deadlines.drop(call.id)
        self._due.forget(call.id)

    # -- facts

    def take_skipped(self) -> Mapping[str, int]:
        """Records skipped since the last call: late ones of ended calls, duplicates, those of calls given up."""
        skipped, self._skipped = self._skipped, dict.fromkeys(self._skipped, 0)
        return skipped

    @property
    def fresh_detectors(self) -> int:
        """Channels that could not be restored exactly and go on with a fresh detector."""
        return sum(live.call.fresh_detectors for live in self._calls.values())

    @property
    def is_waiting(self) -> bool:
        """Whether records wait until the end of a call is stored."""
        return bool(self._held)

    @property
    def unreadable_states(self) -> int:
        """Stored states that are no states; their calls start again."""
        return len(self._unreadable)

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
