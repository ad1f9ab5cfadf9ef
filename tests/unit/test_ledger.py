"""What the watermark says, record by record."""

import pytest

from callmood.worker.partition.ledger import Ledger


def opened(*offsets, start=0):
    """A ledger that has read these offsets; the mark after each is its own offset, captured at ten times that."""
    ledger = Ledger(start, "start")
    for offset in offsets:
        ledger.open(offset, capture_ms=offset * 10, mark_after=offset)
    return ledger


def test_a_fresh_ledger_stands_where_it_begins():
    """Before the first record the watermark is where the successor of somebody began."""
    ledger = Ledger(7, "mark")
    assert (ledger.watermark, ledger.position, ledger.mark) == (7, 7, "mark")
    assert ledger.open_records == 0
    assert ledger.oldest_capture_ms is None


def test_an_open_record_holds_the_watermark():
    """What was read and is still needed is read again by a successor, whatever came after it is done."""
    ledger = opened(0, 1, 2)
    ledger.settle(1)
    ledger.settle(2)
    assert (ledger.watermark, ledger.position) == (0, 3)
    assert ledger.open_records == 1
    assert ledger.oldest_capture_ms == 0


def test_settling_the_oldest_frees_all_that_was_done_behind_it():
    """The watermark goes on to the next record that is needed."""
    ledger = opened(0, 1, 2, 3)
    for offset in (2, 1, 0):
        ledger.settle(offset)
    assert ledger.watermark == 3
    assert ledger.oldest_capture_ms == 30


def test_when_all_is_settled_the_watermark_is_the_position():
    """Nothing is read twice where nothing is open."""
    ledger = opened(4, 5, start=4)
    ledger.settle(5)
    ledger.settle(4)
    assert ledger.watermark == ledger.position == 6
    assert ledger.open_records == 0


def test_holes_between_offsets_are_nobodys_work():
    """Control records and deleted ones take offsets that never come."""
    ledger = opened(3, 10, start=0)
    ledger.settle(3)
    assert ledger.watermark == 10
    ledger.settle(10)
    assert ledger.watermark == 11


def test_the_mark_is_that_before_the_oldest_open_record():
    """A successor that reads a record again starts with what was known just before it."""
    ledger = opened(0, 1, 2)
    assert ledger.mark == "start"
    ledger.settle(0)
    assert ledger.mark == 0
    ledger.settle(1)
    ledger.settle(2)
    assert ledger.mark == 2


def test_an_offset_read_again_is_refused():
    """A position that disagrees with the state must not pass as progress."""
    ledger = opened(5, start=5)
    with pytest.raises(ValueError, match="offset 5 read again; 6 was next"):
        ledger.open(5, capture_ms=0, mark_after="")
