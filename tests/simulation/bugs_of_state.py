"""Bugs that somebody could write tomorrow: what counts as done, and what a successor is told."""

from collections import deque
from collections.abc import Iterator
from unittest.mock import patch

from callmood.worker.call.call import Call
from callmood.worker.call.fold import Fold
from callmood.worker.call.group import Group, Groups
from callmood.worker.partition.ended import Ended, EndedCalls
from callmood.worker.partition.ledger import Ledger
from callmood.worker.partition.partition import Partition
from callmood.worker.speech.order import StreamOrder
from callmood.worker.speech.segment import Segmenter
from callmood.worker.speech.stream import Stream
from tests.simulation.kafka_side import SimDeadLetters
from tests.simulation.planting import around, planted

_RESTORE_SEGMENTER = Segmenter.restore

# -- what is done


@planted(3)
def watermark_off_by_one() -> Iterator[None]:
    """The watermark is the newest settled offset plus one too many."""

    def watermark_after(original, self, offsets):
        watermark, mark = original(self, offsets)
        return watermark + (watermark < self.position), mark

    with around(Ledger, "watermark_after", watermark_after):
        yield


@planted(3)
def clock_after_the_watermark() -> Iterator[None]:
    """The clock that is stored has already counted the record at the watermark."""

    def watermark_after(original, self, offsets):
        return original(self, offsets)[0], self._next_mark

    with around(Ledger, "watermark_after", watermark_after):
        yield


@planted(2)
def settled_on_read() -> Iterator[None]:
    """A record counts as done once it is read."""

    def opened(original, self, offset, **more):
        original(self, offset, **more)
        self.settle(offset)

    with around(Ledger, "open", opened):
        yield


@planted(54)
def ended_calls_are_forgotten_by_time_alone() -> Iterator[None]:
    """An ended call is forgotten although a replay can still reach it."""

    def is_past(self, ended, _, elapsed_ms):
        return elapsed_ms - ended.ended_at_ms >= self._memory_ms

    with patch.object(EndedCalls, "_is_past", is_past):
        yield


@planted(10)
def ended_calls_are_not_stored() -> Iterator[None]:
    """The end of a call is remembered by its worker alone."""
    with patch.object(Ended, "pack", lambda _: None):
        yield


# -- the state of a call


@planted(22)
def a_continued_call_stays_over() -> Iterator[None]:
    """A record that continues a call does not undo its end."""
    with patch.object(Group, "has_reopened", property(lambda _: False, lambda *_: None)):
        yield


@planted(38)
def a_successor_does_not_know_that_a_call_is_over() -> Iterator[None]:
    """Whether a call is over is not part of its state."""
    original = Call.restore

    def restore(*state):
        call = original(*state)
        call.is_over = False
        return call

    with patch.object(Call, "restore", restore):
        yield


@planted(14)
def state_before_the_record() -> Iterator[None]:
    """What a record closed is published with the state of the record before."""

    def take(original, self, chunk, **more):
        before, groups = self._checkpoint_now(), len(self._groups.waiting)
        outcome = original(self, chunk, **more)
        for group in list(self._groups.waiting)[groups:]:
            group.checkpoint = before
        return outcome

    with around(Call, "take", take):
        yield


@planted(28)
def state_of_the_newest_record() -> Iterator[None]:
    """The state that is stored is ahead of the results that are published."""

    def save(original, self):
        if self.is_over:
            return original(self)
        self._checkpoint = self._checkpoint_now()
        groups, self._groups = self._groups, Groups()
        saved, self._groups = original(self), groups
        return saved

    with around(Call, "_save", save):
        yield


@planted(2)
def results_overtake_each_other() -> Iterator[None]:
    """Results are released as they come."""

    def release(original, self):
        self._groups.waiting = deque(sorted(self._groups.waiting, key=lambda group: not group.is_complete))
        return original(self)

    with around(Call, "release", release):
        yield


@planted(0)
def half_of_a_group() -> Iterator[None]:
    """Results are released before all of what a record closed is known."""

    def release(original, self):
        for group in self._groups.waiting:
            if group.answers:
                group.answers.update({u.id: (None, 0.0) for u in group.utterances if u.id not in group.answers})
                break
        return original(self)

    with around(Call, "release", release):
        yield


@planted(2)
def aggregate_of_the_commit_before() -> Iterator[None]:
    """The stored aggregate lacks what was folded last."""

    def save(original, self):
        newest, self._saved = original(self), getattr(self, "_saved", None)
        before, self._saved = self._saved or newest, newest
        return before

    with around(Fold, "save", save):
        yield


@planted(2)
def aggregate_folded_twice() -> Iterator[None]:
    """A restored aggregate counts its last result again."""

    def load(original, self, saved):
        original(self, saved)
        self.number += bool(self.number)

    with around(Fold, "load", load):
        yield


@planted(2)
def resume_off_by_one() -> Iterator[None]:
    """A successor hears the record after the one that it needs."""
    original = Stream.resume_seq.fget
    with patch.object(Stream, "resume_seq", property(lambda self: original(self) + bool(self._heard))):
        yield


@planted(54)
def held_records_are_forgotten() -> Iterator[None]:
    """A record that waits for an earlier one counts as heard."""

    def next_seq(self):
        return max(self._held, default=(self._next or 0) - 1) + 1

    snapshot = Stream.snapshot

    def patched(self):
        with patch.object(StreamOrder, "next_seq", property(next_seq)):
            return snapshot(self)

    with patch.object(Stream, "snapshot", patched):
        yield


@planted(24)
def concealed_once_only() -> Iterator[None]:
    """A gap that was bridged is not bridged again by a successor."""

    def conceal(original, self, samples, first_sample=None):
        refilling = self._refilling
        spans = original(self, samples, first_sample)
        if refilling and self._concealed:
            self._concealed.pop()
        return spans

    with around(Segmenter, "conceal", conceal):
        yield


@planted(2)
def detector_starts_again() -> Iterator[None]:
    """The voice detector's memory is not restored."""

    def restore(*args):
        segmenter = _RESTORE_SEGMENTER(*args)
        segmenter._vad = segmenter._fresh_vad()
        return segmenter

    with patch.object(Segmenter, "restore", restore):
        yield


@planted(38)
def pause_is_forgotten() -> Iterator[None]:
    """A successor hears what the producer asked not to hear."""

    def checkpoint_now(original, self):
        checkpoint = original(self)
        streams = {name: stream._replace(paused_at_ms=None) for name, stream in checkpoint.streams.items()}
        return checkpoint._replace(streams=streams, paused_at_ms=None)

    with around(Call, "_checkpoint_now", checkpoint_now):
        yield


# -- dead letters


@planted(32)
def letters_are_not_flushed() -> Iterator[None]:
    """Letters are still in the producer's buffer when the watermark passes them."""

    def send(original, self, letters):
        buffered, self._buffer = getattr(self, "_buffer", []), list(letters)
        original(self, buffered)

    with around(SimDeadLetters, "send", send):
        yield


@planted(31)
def letters_are_written_again() -> Iterator[None]:
    """A letter is sent again by a successor that knows its call only as it was later."""
    with patch.object(Partition, "_reported_offset", property(lambda _: -1, lambda *_: None), create=True):
        yield
