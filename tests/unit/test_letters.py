"""Dead-letter records that wait for the next commit."""

import pytest

from callmood.worker.commits import DeadLetter
from callmood.worker.errors import Reason
from callmood.worker.partition.letters import Letters
from callmood.worker.records import Position, Record


def letter(offset):
    """The dead-letter record of the record at this offset."""
    return DeadLetter(Record(Position("audio", 0, offset), b"call", b"", (), 1), Reason.EMPTY, "why")


@pytest.fixture
def letters():
    """Those of three records, of which a call settles the second."""
    made = Letters()
    made.hold(4)
    for offset in (3, 4, 5):
        made.add(letter(offset))
    return made


def test_those_that_wait_are_collected_until_they_are_confirmed(letters):
    """In the order of their records."""
    for _ in range(2):
        assert letters.collect() == (letter(3), letter(4), letter(5))
    assert letters.settled_offsets() == [3, 5]


def test_what_came_since_a_commit_was_collected_waits_for_the_next(letters):
    """The store has the first ones only; a record that is held is settled by its call."""
    assert letters.confirm(2) == [3]
    letters.add(letter(6))
    assert letters.collect() == (letter(5), letter(6))
    assert letters.settled_offsets() == letters.confirm(2) == [5, 6]
    assert letters.collect() == ()


def test_a_record_is_held_once(letters):
    """What is held does not grow with a partition's life."""
    letters.confirm(3)
    letters.add(letter(4))
    assert letters.confirm(1) == [4]
