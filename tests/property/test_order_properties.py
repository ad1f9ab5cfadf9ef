"""Order is a function of the records that came."""

from hypothesis import given
from hypothesis import strategies as st

from callmood.schemas.common import Event
from callmood.worker.records import Chunk, Position
from callmood.worker.speech.order import StreamOrder

_MAX_HELD = 6


def _chunk(seq, event=Event.MEDIA):
    return Chunk("call", "0", seq, event, Position("audio", 0, seq), capture_ms=0)


def _push_all(order, chunks):
    return [ready for chunk in chunks for ready in order.push(chunk).ready]


@st.composite
def shuffled(draw, count=40):
    """Sequence numbers displaced within the bound, some of them twice."""
    displaced = [(seq + draw(st.integers(0, _MAX_HELD + 1)), seq) for seq in range(count)]  # ties keep their order
    seqs = [seq for _, seq in sorted(displaced)]
    for _ in range(draw(st.integers(0, 10))):
        at = draw(st.integers(0, count - 1))
        seqs.insert(draw(st.integers(seqs.index(at), len(seqs))), at)
    return seqs


@given(shuffled())
def test_records_within_the_bound_come_in_order(seqs):
    """Any displacement within the bound, with duplicates, is undone without a gap."""
    ready = _push_all(StreamOrder(None, max_held=_MAX_HELD, max_wait_ms=10_000), map(_chunk, seqs))
    assert [(item.chunk.seq, item.missing_seqs) for item in ready] == [(seq, 0) for seq in range(40)]


@given(shuffled(), st.sets(st.integers(0, 39), min_size=1, max_size=5))
def test_lost_records_are_gaps_of_the_right_size(seqs, lost):
    """Each run of lost records shows as one gap of its length, whatever the order."""
    order = StreamOrder(0, max_held=_MAX_HELD, max_wait_ms=10_000)
    ready = [*_push_all(order, (_chunk(seq) for seq in seqs if seq not in lost)), *order.flush()]
    expected, missing = [], 0
    for seq in range(40):
        missing += seq in lost
        if seq not in lost:
            expected.append((seq, missing))
            missing = 0
    released = [(item.chunk.seq, item.missing_seqs) for item in ready]
    assert [seq for seq, _ in released] == sorted({seq for seq, _ in released})
    if max(displacement(seqs, lost)) <= _MAX_HELD:
        assert released == expected


def displacement(seqs, lost):
    """How many later records came before each, once the lost ones hold places too."""
    came = [seq for seq in seqs if seq not in lost]
    for seq in set(came):
        first = came.index(seq)
        yield len({later for later in came[:first] if later > seq})


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([Event.MEDIA] * 8 + [Event.PAUSE, Event.END])), max_size=60),
    st.data(),
)
def test_a_successor_releases_the_same_rest(records, data):
    """Restored at `next_seq` and given the records again from the oldest that waited, it releases the same rest."""
    chunks = [_chunk(seq, event) for seq, event in records]
    crash = data.draw(st.integers(0, len(chunks)))
    order = StreamOrder(0, max_held=_MAX_HELD, max_wait_ms=10_000)
    _push_all(order, chunks[:crash])
    waiting = [i for i, chunk in enumerate(chunks[:crash]) if chunk.seq >= order.next_seq]
    begin = data.draw(st.integers(0, min(waiting, default=crash)))
    successor = StreamOrder(order.next_seq, max_held=_MAX_HELD, max_wait_ms=10_000, switch_seq=order.switch_seq)
    assert _push_all(successor, chunks[begin:crash]) == []
    assert successor.next_seq == order.next_seq
    assert _push_all(successor, chunks[crash:]) == _push_all(order, chunks[crash:])
    assert successor.flush() == order.flush()
