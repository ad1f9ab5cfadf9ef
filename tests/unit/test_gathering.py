"""Records that wait until their call takes them together."""

from typing import NamedTuple

import pytest

from callmood.worker.errors import BadRecord, Reason
from callmood.worker.partition.carried import Live
from callmood.worker.partition.gathering import Gathering

pytestmark = pytest.mark.plain_python


class Chunk(NamedTuple):
    """A record of a stream."""

    stream: str
    number: int


class Series(list):
    """Numbers that follow each other, at most three."""

    def add(self, chunk, _):
        """As `Series.add`."""
        goes_on = chunk.number == self[-1] + 1 and len(self) < 3
        self.extend([chunk.number] if goes_on else [])
        return goes_on


class Call:
    """A call in which only even numbers begin a series."""

    def __init__(self, fault=None):
        self.taken, self._fault = [], fault

    def series(self, first, _):
        """As `Call.series`."""
        return Series([first.number]) if first.number % 2 == 0 else None

    def take_series(self, series):
        """As `Call.take_series`."""
        if self._fault:
            raise self._fault
        self.taken.append(list(series))


class Scene:
    """A call, what was told of it, and which records wait after each."""

    def __init__(self, *numbers, fault=None):
        self.told, self.failed = 0, []
        self.live = Live(Call(fault), 0, 0)
        self.gathering = Gathering(self._wait, lambda _, *failed: self.failed.append(failed))
        self.waiting = [self.add(*number) for number in numbers]

    def _wait(self, _):
        self.told += 1

    def add(self, stream, number):
        """What waits by stream; None if the record has to be taken alone."""
        does_wait = self.gathering.add(self.live, f"{stream}{number}", Chunk(stream, number), 0)
        return {name: list(one.series) for name, one in self.live.waiting.items()} if does_wait else None


def test_records_that_go_on_wait_together():
    """Each with those of its stream; that records of the call begin to wait is told once."""
    scene = Scene(("a", 2), ("b", 2), ("a", 3))
    assert scene.waiting == [{"a": [2]}, {"a": [2], "b": [2]}, {"a": [2, 3], "b": [2]}]
    assert (scene.told, scene.live.call.taken) == (1, [])
    assert [one.records for one in scene.live.waiting.values()] == [["a2", "a3"], ["b2"]]


def test_a_record_that_does_not_go_on_begins_the_next_series():
    """All that waited is taken first, and that records wait again is told."""
    scene = Scene(("a", 2), ("b", 2), ("a", 8), ("a", 9), ("a", 10), ("a", 12))
    assert scene.waiting[2:] == [{"a": [8]}, {"a": [8, 9]}, {"a": [8, 9, 10]}, {"a": [12]}]
    assert (scene.told, scene.live.call.taken) == (3, [[2], [2], [8, 9, 10]])


def test_a_record_that_cannot_wait_is_taken_alone():
    """After all that waited; without a call, nothing waits."""
    scene = Scene(("a", 3), ("a", 4), ("a", 7))
    assert scene.waiting == [None, {"a": [4]}, None]
    assert (scene.told, scene.live.call.taken, scene.live.waiting) == (1, [[4]], {})
    assert not scene.gathering.add(None, "a2", Chunk("a", 2), 0)


def test_a_fault_costs_each_record_that_waited():
    """None of them is lost without a word, and none is told twice."""
    fault = RuntimeError("a bug")
    scene = Scene(("a", 2), ("a", 3), ("b", 4), fault=fault)
    for _ in range(2):
        scene.gathering.take(scene.live)
        assert scene.failed == [("a2", fault), ("a3", fault), ("b4", fault)]
        assert not scene.live.waiting


def test_an_error_with_a_meaning_of_its_own_is_passed_on():
    """It is no fault of ours."""
    scene = Scene(("a", 2), fault=BadRecord(Reason.BAD_HEADER, "no"))
    with pytest.raises(BadRecord):
        scene.gathering.take(scene.live)
    assert not scene.failed


class Open:
    """A call with these records open."""

    def __init__(self, *offsets):
        self.open_offsets = offsets


def test_a_call_is_open_while_records_of_it_wait_or_are_not_settled():
    """A new owner would have to read them again."""
    scene = Scene(("a", 2))
    scene.live.call.open_offsets = ()
    assert scene.live.is_open
    assert [Live(Open(*offsets), 0, 0).is_open for offsets in ((), (7,))] == [False, True]
