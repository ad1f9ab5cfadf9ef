"""The ledger against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from callmood.worker.partition.ledger import Ledger

STEPS = st.lists(
    st.one_of(st.tuples(st.just("open"), st.integers(1, 3)), st.tuples(st.just("settle"), st.floats(0, 1)))
)


@given(start=st.integers(0, 10**12), steps=STEPS)
def test_the_watermark_is_the_lowest_open_offset(start, steps):
    """After any steps: the lowest offset read and not settled, or else the position; it never falls."""
    ledger = Ledger(start, 0)
    position, needed, highest, marks = start, [], start, {}
    for kind, value in steps:
        if kind == "open":
            offset = position + value - 1
            marks[offset] = len(marks)
            ledger.open(offset, capture_ms=offset, mark_after=len(marks))
            needed.append(offset)
            position = offset + 1
        elif needed:
            ledger.settle(needed.pop(int(value * (len(needed) - 1))))
        expected = min(needed, default=position)
        assert ledger.watermark == expected >= highest
        assert ledger.watermark_after(()) == (expected, marks.get(expected, len(marks)))
        to_come = needed[::2]
        left = min((offset for offset in needed if offset not in to_come), default=position)
        assert ledger.watermark_after(to_come) == (left, marks.get(left, len(marks)))
        assert (ledger.position, ledger.open_records) == (position, len(needed))
        assert ledger.oldest_capture_ms == (expected if needed else None)
        highest = expected
