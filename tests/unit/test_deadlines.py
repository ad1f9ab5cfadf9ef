"""Deadlines come due in order, once, and only the newest of a key counts."""

from callmood.worker.partition.deadlines import Deadlines


def at(**deadlines_ms):
    deadlines = Deadlines()
    for key, at_ms in deadlines_ms.items():
        deadlines.set(key, at_ms)
    return deadlines


def test_due_keys_come_earliest_first_and_once():
    """What is due is taken out; what is not stays."""
    deadlines = at(b=20, a=30, c=10)
    assert list(deadlines.pop_due(20)) == ["c", "b"]
    assert list(deadlines.pop_due(29)) == []
    assert list(deadlines.pop_due(30)) == ["a"]


def test_a_moved_deadline_replaces_the_old_one():
    """Later or earlier, the newest time counts."""
    deadlines = at(a=10, b=50)
    deadlines.set("a", 40)
    deadlines.set("b", 20)
    assert list(deadlines.pop_due(39)) == ["b"]
    assert list(deadlines.pop_due(100)) == ["a"]


def test_pulling_only_makes_it_earlier():
    """A pulled deadline is never later than it was, and a key without one gets it."""
    deadlines = at(a=10, b=50)
    deadlines.pull("a", 40)
    deadlines.pull("b", 20)
    deadlines.pull("c", 30)
    assert list(deadlines.pop_due(10)) == ["a"]
    assert list(deadlines.pop_due(25)) == ["b"]
    assert list(deadlines.pop_due(30)) == ["c"]


def test_a_dropped_key_never_comes_due():
    """Dropping forgets, also what was never known."""
    deadlines = at(a=10)
    deadlines.drop("a")
    deadlines.drop("unknown")
    assert list(deadlines.pop_due(99)) == []


def test_a_key_may_be_set_again_while_due_ones_are_taken():
    """A deadline that is set again and due at once comes in the same round."""
    deadlines, seen = at(a=10, b=20), []
    for key in deadlines.pop_due(20):
        seen.append(key)
        if seen == ["a"]:
            deadlines.set("a", 15)
    assert seen == ["a", "a", "b"]
