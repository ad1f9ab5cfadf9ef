"""Copies of records, and numbers that start again, in one media session."""

from functools import partial

import pytest
from telephony import CONFIGURED, Leg, log_of, quiet, voice

from callmood.worker.errors import BadRecord, Reason
from callmood.worker.intake import decode
from callmood.worker.records import Cut
from callmood.worker.settings import InputSettings
from callmood.worker.speech.media_time import MediaTime
from callmood.worker.speech.stream import Stream

READ = partial(decode.decode, input_format="headers", max_record_ms=5000)


def new():
    return Stream(MediaTime(0), CONFIGURED.segment, InputSettings())


def chunks(sent):
    return [READ(record) for record in log_of(sent)]


def push(stream, sent):
    for chunk in chunks(sent):
        stream.push(chunk)


@pytest.mark.parametrize("first_seq", [0, 500])
def test_numbers_that_begin_again_are_bad_records(first_seq):
    """A gateway that counts from 0 again without a new stream gets dead-letter records: its audio is not heard.

    So it is with a stream that was joined late, of whose earlier numbers there is no checksum.
    """
    leg, stream = Leg(), new()
    leg.seq = first_seq
    push(stream, leg.media(voice(1)))
    leg.seq = 0
    with pytest.raises(BadRecord) as caught:
        push(stream, leg.media(voice(1)))
    assert caught.value.reason is Reason.SEQ_BACKWARDS


def test_copies_are_duplicates_whatever_their_time():
    """A retry, or a buffer that is sent again, has a newer timestamp if the broker sets it; events have copies too."""
    leg, stream = Leg(), new()
    sent = [leg.send("start"), *leg.media(voice(2), chunk_ms=20), leg.send("pause"), leg.send("resume")]
    push(stream, sent)
    late = [item._replace(at_ms=item.at_ms + 60_000) for item in sent]
    assert [stream.push(chunk)[1] for chunk in chunks(late)] == [True] * len(sent)


def test_a_copy_of_a_record_that_waits_is_a_duplicate():
    """A record that is held for a lost one is known, though it was not released."""
    stream = new()
    first, _, third = Leg().media(voice(0.6))
    push(stream, [first, third])
    assert stream.push(*chunks([third._replace(at_ms=third.at_ms + 1)]))[1]


def test_a_copy_after_numbers_that_started_again_is_known():
    """Once the stream goes on with a new number, copies are duplicates again; a restored stream knows the same."""
    leg, stream = Leg(), new()
    sent = leg.media(voice(1))
    push(stream, sent)
    again = Leg(start_ms=leg.start_ms + 10_000)
    for item in again.media(quiet(0.6)):
        with pytest.raises(BadRecord, match="seq started again"):
            stream.push(*chunks([item]))
    push(stream, leg.media(voice(0.2)))
    stream.close(Cut.GAP)
    stream.let_go()
    restored = Stream.restore(stream.snapshot(), CONFIGURED, -1)
    late = sent[0]._replace(at_ms=sent[0].at_ms + 60_000)
    assert stream.push(*chunks([late]))[1]
    assert restored.push(*chunks([late]))[1]
    with pytest.raises(BadRecord, match="seq started again"):
        restored.push(*chunks([again.send("start", seq="1")]))


@pytest.mark.parametrize("first_seq", [0, 500])
def test_a_record_from_before_the_first_one_is_late_whatever_its_time(first_seq):
    """The broker stamps it with a newer time; the stream was joined at the record after it, or has given it up."""
    leg, stream = Leg(), new()
    leg.seq = first_seq
    late, *sent = leg.media(voice(5))
    push(stream, sent)
    assert stream.push(*chunks([late._replace(at_ms=sent[-1].at_ms + 20)]))[1]
    assert stream.push(*chunks([sent[9]._replace(at_ms=sent[-1].at_ms + 40)]))[1]


@pytest.mark.parametrize(("reorder_records", "is_late"), [(0, False), (100, True)])
def test_a_record_is_late_as_far_back_as_records_may_be_out_of_order(reorder_records, is_late):
    """A stream joined in the middle of a long disorder: what was sent before its first record comes after it."""
    leg, settings = Leg(), InputSettings(reorder_records=reorder_records)
    leg.seq = 500
    late, *more = leg.media(voice(3))
    *_, first = leg.media(voice(5))
    stream = Stream(MediaTime(0), CONFIGURED.segment, settings)
    push(stream, [first])
    assert len(more) > 10
    copies = chunks([late._replace(at_ms=first.at_ms + 20)])
    if is_late:
        assert stream.push(*copies)[1]
    else:
        with pytest.raises(BadRecord, match="seq started again"):
            stream.push(*copies)


def test_records_read_again_do_not_change_what_is_known_of_the_numbers():
    """Whether the numbers had started again is known from the stored state, not from what was before it."""
    leg, stream = Leg(), new()
    sent = leg.media(voice(2))
    other, copy = (item._replace(at_ms=item.at_ms + 10_000) for item in (Leg().media(quiet(1))[3], sent[9]))
    log = [READ(record) for record in log_of([*sent, other, leg.send("unhold"), copy, other])]
    *taken, started_again, new_number, is_copy, again = log
    for chunk in taken:
        stream.push(chunk)
    stream.close(Cut.GAP)
    stream.let_go()
    with pytest.raises(BadRecord, match="seq started again"):
        stream.push(started_again)
    stream.push(new_number)
    stream.close(Cut.GAP)
    restored = Stream.restore(stream.snapshot(), CONFIGURED, new_number.position.offset)
    with pytest.raises(BadRecord, match="seq started again"):
        restored.push(started_again)
    assert restored.push(is_copy)[1]
    with pytest.raises(BadRecord, match="seq started again"):
        stream.push(again)
    restored = Stream.restore(stream.snapshot(), CONFIGURED, again.position.offset)
    restored.push(new_number)
    with pytest.raises(BadRecord, match="seq started again"):
        restored.push(READ(log_of([copy], again.position.offset + 1)[0]))
