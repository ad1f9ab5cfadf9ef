"""The watermark, record by record."""

import pytest

from callmood.worker.partition.ledger import Ledger


def opened(*offsets, start=0):
    """A ledger that has read these offsets; the mark after each is its own offset, captured at ten times that."""
    ledger = Ledger(start, "start")
    for offset in offsets:
        ledger.open(offset, capture_ms=offset * 10, mark_after=offset)
    return ledger


def test_a_new_ledger_starts_at_its_first_offset():
    """Before the first record the watermark is the offset that it was given."""
    ledger = Ledger(7, "mark")
    assert (ledger.watermark, ledger.position, ledger.watermark_after(())) == (7, 7, (7, "mark"))
    assert ledger.open_records == 0
    assert ledger.oldest_capture_ms is None


def test_an_open_record_holds_the_watermark():
    """A successor reads an open record again, even if later ones are settled."""
    ledger = opened(0, 1, 2)
    ledger.settle(1)
    ledger.settle(2)
    assert (ledger.watermark, ledger.position) == (0, 3)
    assert ledger.open_records == 1
    assert ledger.oldest_capture_ms == 0


def test_settling_the_oldest_record_moves_the_watermark_past_all_settled_ones():
    """The watermark moves to the next open record."""
    ledger = opened(0, 1, 2, 3)
    for offset in (2, 1, 0):
        ledger.settle(offset)
    assert ledger.watermark == 3
    assert ledger.oldest_capture_ms == 30


def test_when_all_is_settled_the_watermark_is_the_position():
    """Without open records a successor reads nothing again."""
    ledger = opened(4, 5, start=4)
    ledger.settle(5)
    ledger.settle(4)
    assert ledger.watermark == ledger.position == 6
    assert ledger.open_records == 0


def test_holes_between_offsets_do_not_hold_the_watermark():
    """Offsets of control records and deleted records never arrive."""
    ledger = opened(3, 10, start=0)
    ledger.settle(3)
    assert ledger.watermark == 10
    ledger.settle(10)
    assert ledger.watermark == 11


def test_the_mark_is_that_before_the_oldest_open_record():
    """A successor that reads a record again starts with the mark from just before it."""
    ledger = opened(0, 1, 2)
    assert ledger.watermark_after(()) == (0, "start")
    ledger.settle(0)
    assert ledger.watermark_after(()) == (1, 0)
    ledger.settle(1)
    ledger.settle(2)
    assert ledger.watermark_after(()) == (3, 2)


def test_the_watermark_after_a_commit_is_known_before_it():
    """Asking where the watermark will be settles nothing."""
    ledger = opened(0, 1, 2, 3)
    ledger.settle(1)
    assert ledger.watermark_after([0, 2]) == (3, 2)
    assert ledger.watermark_after([2]) == (0, "start")
    assert (ledger.watermark, ledger.open_records) == (0, 3)


def test_an_offset_read_again_is_refused():
    """A position that disagrees with the state is an error."""
    ledger = opened(5, start=5)
    with pytest.raises(ValueError, match="offset 5 read again; 6 was next"):
        ledger.open(5, capture_ms=0, mark_after="")


def test_what_is_skipped_is_not_open():
    """Offsets that cannot be read hold nothing back, also at the end of the log, and are never taken back."""
    ledger = Ledger(5, "start")
    ledger.open(5, capture_ms=0, mark_after="a")
    ledger.skip_to(9)
    assert ledger.watermark == 5
    ledger.settle(5)
    assert (ledger.watermark_after([]), ledger.position) == ((9, "a"), 9)
    ledger.skip_to(7)
    assert ledger.position == 9
