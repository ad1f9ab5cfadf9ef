"""Which calls the next commit examines."""

from types import SimpleNamespace

import pytest

from callmood.worker.partition.due import DueCalls

pytestmark = pytest.mark.plain_python


def live(number=0, *, is_open=True, has_news=False, saved_at_ms=0):
    call = SimpleNamespace(id=f"call-{number}", has_news=has_news)
    return SimpleNamespace(call=call, number=number, saved_at_ms=saved_at_ms, changes=0, is_open=is_open)


def at(due, elapsed_ms, *calls, is_whole=False):
    """The numbers of the calls that are due."""
    return [one.number for one in due.at(elapsed_ms, {one.call.id: one for one in calls}, is_whole=is_whole)]


def carried(one):
    """What a commit carries of a call."""
    return SimpleNamespace(live=one, changes=one.changes)


def test_changed_calls_are_due_in_the_order_in_which_they_came():
    """Whatever the order of the changes; a commit of everything has the others too."""
    due, calls = DueCalls(1_000), [live(number) for number in range(3)]
    for one in (calls[2], calls[0]):
        due.change(one)
    assert at(due, 0, *calls) == [0, 2]
    assert at(due, 0, *calls, is_whole=True) == [0, 1, 2]


def test_a_call_with_open_records_is_stored_after_a_while():
    """The time counts from when it was last stored, and again from each commit."""
    due, one = DueCalls(1_000), live(saved_at_ms=500)
    due.take(one)
    assert (at(due, 1_499, one), at(due, 1_500, one)) == ([], [0])
    due.confirm(carried(one), 1_500)
    assert one.saved_at_ms == 1_500
    assert (at(due, 2_499, one), at(due, 2_500, one)) == ([], [0])


def test_a_call_without_open_records_needs_no_storing():
    """Neither when its time comes, nor after a commit."""
    due, one = DueCalls(1_000), live(is_open=False)
    due.wait(one)
    assert at(due, 1_000, one) == []
    due.change(one)
    due.confirm(carried(one), 1_000)
    one.is_open = True
    assert at(due, 9_000, one) == []


def test_a_call_that_changes_while_it_is_committed_stays_due():
    """The store has only what it was before."""
    due, one = DueCalls(1_000), live(has_news=True)
    due.take(one)
    collected = carried(one)
    due.take(one)
    due.confirm(collected, 0)
    assert at(due, 0, one) == [0]
    due.confirm(carried(one), 0)
    assert at(due, 0, one) == []


def test_a_call_that_is_no_more_is_not_due():
    """It was forgotten, or another one has its place."""
    due, gone, forgotten = DueCalls(1_000), live(1), live(2)
    for one in (gone, forgotten):
        due.wait(one)
    due.change(forgotten)
    due.forget(forgotten.call.id)
    assert at(due, 9_000, forgotten) == []
