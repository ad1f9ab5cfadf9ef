"""One media session: disorder, loss and formats, record by record."""

from functools import partial

import numpy as np
import pytest
from telephony import CONFIGURED, EPOCH_MS, Leg, both, log_of, quiet, voice

from callmood.schemas.common import Event
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.intake import decode
from callmood.worker.records import Cut, Unheard
from callmood.worker.settings import InputSettings
from callmood.worker.speech.media_time import MediaTime
from callmood.worker.speech.stream import Stream

READ = partial(decode.decode, input_format="headers", max_record_ms=5000)
SENTENCE = quiet(0.6) + voice(1) + quiet(1)


def new(offset_ms=0):
    return Stream(MediaTime(offset_ms), CONFIGURED.segment, InputSettings())


def chunks(sent):
    return [READ(record) for record in log_of(sent)]


def push(stream, sent):
    """What records brought: spans as (channel, start, end, cut, missing) in ms, and stretches without audio."""
    spans, unheard = [], []
    for chunk in chunks(sent):
        taken, _ = stream.push(chunk)
        spans += [
            (c.channel, c.span.start_sample // 8, c.span.end_sample // 8, c.span.cut, c.span.missing_samples // 8)
            for c in taken.spans
        ]
        unheard += taken.unheard
    return spans, unheard


def test_records_in_order_give_spans():
    """A sentence is one span, cut by the silence after it."""
    (span,), unheard = push(new(), Leg().media(SENTENCE))
    assert span == (0, 460, 1_860, Cut.SILENCE, 0)
    assert unheard == []


def test_reordered_records_give_the_same_spans():
    """Swapped neighbours are put back."""
    sent = Leg().media(SENTENCE, chunk_ms=100)
    swapped = [item for pair in zip(sent[1::2], sent[::2], strict=True) for item in pair]
    assert push(new(), swapped) == push(new(), sent)


def test_a_record_that_comes_twice_is_heard_once():
    """The second is a duplicate and changes nothing."""
    sent = Leg().media(SENTENCE)
    doubled = [item for item in sent for _ in range(2)]
    assert push(new(), doubled) == push(new(), sent)
    stream = new()
    assert [stream.push(chunk)[1] for chunk in chunks(sent[:1] * 2)] == [False, True]


def test_a_short_loss_is_heard_as_silence():
    """A lost record inside a sentence does not cut it; the span says how much of it is missing."""
    sent = Leg().media(SENTENCE, chunk_ms=100)
    del sent[9]
    (span,), unheard = push(new(), sent + later(sent, 20))
    assert span == (0, 460, 1_860, Cut.SILENCE, 100)
    assert unheard == []


def test_a_successor_conceals_what_was_concealed():
    """It begins with the records that are lost, if they are the first audio that an open sentence needs."""
    sent = Leg().media(quiet(0.6) + voice(4) + quiet(1), chunk_ms=100)
    del sent[4]
    stream = new()
    stream.mark_active(0)
    for chunk in chunks(sent[:40]):
        assert not stream.push(chunk)[0].spans
        stream.forget_covered()
    state = stream.snapshot()
    assert state.seq == 4
    again = Stream.restore(state, CONFIGURED, -1)
    (span,), _ = push(stream, sent[40:])
    assert push(again, sent[4:]) == ([span], [])
    assert span[-1] == 40  # of the lost 100 ms, what is within the padding


def later(sent, count):
    """Silence right after these records, so that what waits for a lost one is given up."""
    leg = Leg(has_media_ms="media_ms" in sent[0].headers)
    leg.seq = int(sent[-1].headers["seq"]) + 1
    leg.media_ms = sent[-1].at_ms - leg.start_ms + len(sent[-1].value) / 8
    return leg.media(quiet(count / 10), chunk_ms=100)


def test_a_loss_is_as_long_as_its_records_where_there_is_no_media_time():
    """Without media_ms, the missing numbers times the length of a record are missing."""
    leg = Leg(has_media_ms=False)
    sent = leg.media(SENTENCE, chunk_ms=100)
    del sent[9]
    (span,), _ = push(new(), sent + later(sent, 20))
    assert span == (0, 460, 1_860, Cut.SILENCE, 100)


def test_a_long_loss_cuts_and_is_no_silence():
    """More than can be concealed ends the sentence, and the time line says what was not heard."""
    leg = Leg()
    sent = leg.media(quiet(0.6) + voice(1))
    leg.lose(5_000)
    spans, unheard = push(new(), sent + leg.media(SENTENCE))
    assert spans == [(0, 460, 1_600, Cut.GAP, 0), (0, 7_060, 8_460, Cut.SILENCE, 0)]
    assert unheard == [Unheard(1_600, 6_600, is_pause=False)]


@pytest.mark.parametrize("has_media_ms", [True, False])
@pytest.mark.parametrize("silent_s", [0.4, 5, 900])
def test_what_is_not_sent_is_silence(silent_s, has_media_ms):
    """A leg with silence suppression sends nothing while nobody speaks; its sentences are where they were said."""
    leg = Leg(has_media_ms=has_media_ms)
    sent = leg.media(quiet(0.6) + voice(1))
    leg.skip(silent_s * 1_000)
    sent += [*leg.media(SENTENCE), leg.send("end")]
    spans, unheard = push(new(), sent)
    start_ms = round(1_600 + silent_s * 1_000)
    ends_ms = [end for _, _, end, *_ in spans]
    assert ends_ms[-1] == pytest.approx(start_ms + 1_860, abs=20)
    if silent_s > 0.4:  # below, it is a pause within one utterance
        assert spans[0] == (0, 460, 1_740, Cut.SILENCE, 0)
        assert spans[1][:2] == (0, pytest.approx(start_ms + 460, abs=20))
    assert unheard == []


@pytest.mark.parametrize("is_sent", [True, False])
def test_the_noise_after_a_silence_that_was_not_sent_is_no_speech(is_sent):
    """The detector keeps what it knows of the line while nothing is sent."""
    leg, stream = Leg(), new()
    sent = leg.media(quiet(10))
    for _ in range(30):
        leg.skip(700)
        sent += [leg.send("silence")] if is_sent else []
        sent += leg.media(quiet(0.3), chunk_ms=20)
    assert push(stream, [*sent, leg.send("end")]) == ([], [])


def test_a_silence_record_says_how_long_nobody_spoke():
    """A producer that knows states it, without media time and with one capture time for all records too."""
    leg = Leg(has_media_ms=False)
    sent = [*leg.media(SENTENCE), leg.send("silence", discarded_ms="4000"), *leg.media(SENTENCE)]
    spans, unheard = push(new(), [item._replace(at_ms=EPOCH_MS) for item in sent])
    assert [start for _, start, *_ in spans] == [460, 460 + 2_600 + 4_000]
    assert unheard == []


def test_a_gap_record_is_a_loss():
    """The producer says what will never come."""
    leg = Leg(has_media_ms=False)
    sent = [*leg.media(SENTENCE), leg.send("gap", discarded_ms="4000"), *leg.media(SENTENCE)]
    spans, unheard = push(new(), sent)
    assert [start for _, start, *_ in spans] == [460, 460 + 2_600 + 4_000]
    assert unheard == [Unheard(2_600, 6_600, is_pause=False)]


def test_media_time_that_jumps_back_is_not_followed():
    """The order of the records wins: nothing is heard twice and nothing overlaps."""
    leg = Leg()
    sent = leg.media(SENTENCE)
    leg.media_ms = 0.0
    spans, _ = push(new(), sent + leg.media(SENTENCE))
    assert [(start, end) for _, start, end, *_ in spans] == [(460, 1_860), (3_060, 4_460)]


def test_a_stream_joined_late_begins_where_it_was_joined():
    """What was before is unheard, not silence, and the spans stand at their media time."""
    leg = Leg()
    leg.skip(60_000)
    leg.seq = 500
    spans, unheard = push(new(), leg.media(SENTENCE))
    assert [start for _, start, *_ in spans] == [60_460]
    assert unheard == [Unheard(0, 60_000, is_pause=False)]


def test_overlap_is_what_the_other_channel_says_meanwhile():
    """Voiced time of the other channel inside the span, even where a long gap follows at once."""
    leg = Leg(layout="customer,agent")
    sent = leg.media(both(quiet(0.6) + voice(2), quiet(1.6) + voice(1)))
    leg.skip(60_000)
    stream, overlaps = new(), {}
    for chunk in chunks(sent + leg.media(both(quiet(1), quiet(1)))):
        overlaps |= {closed.channel: closed.overlap_ms for closed in stream.push(chunk)[0].spans}
    assert overlaps == {0: pytest.approx(1_000, abs=200), 1: pytest.approx(1_000, abs=200)}


@pytest.mark.parametrize("header", [("encoding", "pcma"), ("rate", "16000"), ("layout", "agent,customer")])
def test_another_format_is_a_bad_record(header):
    """A stream has one format; the rest of it goes on."""
    leg = Leg()
    first, second, third = leg.media(voice(0.6))
    stream = new()
    stream.push(*chunks([first]))
    with pytest.raises(BadRecord) as caught:
        stream.push(*chunks([second._replace(headers={**second.headers, header[0]: header[1]})]))
    assert caught.value.reason is Reason.FORMAT_CHANGED
    assert not stream.push(*chunks([third]))[1]


def test_another_format_is_refused_while_records_wait():
    """Records that wait for an earlier one fix the format already: what is released later fits together."""
    leg = Leg()
    _, second, third = leg.media(voice(0.6))
    stream = new()
    stream.push(*chunks([second]))
    with pytest.raises(BadRecord, match="format"):
        stream.push(*chunks([third._replace(headers={**third.headers, "encoding": "s16le"})]))


def test_a_leap_of_the_numbers_can_be_stored():
    """The farthest seq that is believed, without media_ms, is a long gap, not a number beyond what a state can hold."""
    leg = Leg(has_media_ms=False)
    sent = leg.media(SENTENCE)
    leg.seq = 10**6
    stream = new()
    *known, first, second = chunks([*sent, *leg.media(quiet(0.4))])
    for chunk in known:
        stream.push(chunk)
    with pytest.raises(BadRecord, match="neither time is"):
        stream.push(first)
    stream.push(second)  # it confirms the first one
    (gap,) = stream.close(Cut.GAP).unheard
    assert gap.end_ms > 10**8
    assert stream.snapshot().time.sample < 2**63


def test_nothing_is_heard_after_the_end():
    """What comes later in the same stream is dropped."""
    leg, stream = Leg(), new()
    spans, _ = push(stream, [*leg.media(quiet(0.6) + voice(1)), leg.send("end")])
    assert [cut for *_, cut, _ in spans] == [Cut.END]
    assert stream.ended
    assert push(stream, leg.media(SENTENCE)) == ([], [])


def test_audio_lost_before_the_end_is_a_gap():
    """The end says when it is; what has not come before it when the stream stalls is missing, not silence."""
    leg, stream = Leg(), new()
    sent = leg.media(quiet(0.6) + voice(1))
    leg.lose(3_000)
    assert push(stream, [*sent, leg.send("end")]) == ([], [])
    taken = stream.close(Cut.GAP)
    assert [closed.span.cut for closed in taken.spans] == [Cut.END]
    assert taken.unheard == [Unheard(1_600, 4_600, is_pause=False)]
    assert [chunk.event for chunk in taken.ends] == [Event.END]
    assert stream.time.call_position_ms == 4_600


@pytest.mark.parametrize(("lost_ms", "has_ended"), [(20, True), (60, True), (80, False)])
def test_an_end_does_not_wait_for_a_few_packets(lost_ms, has_ended):
    """At once, if at most 60 ms are missing right before it; else it waits, as they may have been overtaken."""
    leg, stream = Leg(), new()
    sent = leg.media(quiet(0.6) + voice(1), chunk_ms=20)
    for _ in range(lost_ms // 20):
        leg.lose(20)
    push(stream, [*sent, leg.send("end")])
    assert stream.ended == has_ended
    stream.close(Cut.GAP)
    assert stream.time.call_position_ms == 1_600 + lost_ms


def test_an_absurd_number_is_refused_and_holds_nothing_back():
    """A record whose seq is damaged costs itself: what follows in order is heard as without it."""
    sent = Leg().media(SENTENCE, chunk_ms=100)
    damaged = sent[9]._replace(headers={**sent[9].headers, "seq": str(10**14)})
    stream = new()
    push(stream, sent[:9])
    with pytest.raises(BadRecord, match="seq is more than 1000000 ahead"):
        push(stream, [damaged])
    (span,), _ = push(stream, sent[9:])
    assert span == (0, 460, 1_860, Cut.SILENCE, 0)


def test_overlap_is_at_most_the_utterance():
    """Of three channels that speak at once, the one that speaks longest over an utterance counts."""
    parts = [np.frombuffer(part, np.uint8) for part in (voice(2) + quiet(1), voice(3), voice(3))]
    audio = np.stack(parts, axis=1).tobytes()
    stream, leg = new(), Leg(layout="customer,agent,agent")
    taken = [stream.push(chunk)[0] for chunk in chunks(leg.media(audio))]
    (closed,) = [c for one in taken for c in one.spans if c.channel == 0]
    length_ms = (closed.span.end_sample - closed.span.start_sample) // 8
    assert 0 < closed.overlap_ms <= length_ms


def test_a_gap_record_is_where_its_media_time_says():
    """The call is so far as that, also if nothing comes after it."""
    stream, leg = new(), Leg()
    push(stream, leg.media(quiet(1)))
    leg.skip(500)
    _, unheard = push(stream, [leg.send("gap", discarded_ms="900")])
    assert unheard == [Unheard(1_500, 2_400, is_pause=False)]
    assert stream.time.call_position_ms == 2_400
