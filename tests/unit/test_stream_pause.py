"""A stream during a pause."""

import pytest
from telephony import CONFIGURED, Leg, analyse, log_of, quiet, voice

from callmood.schemas.call import Call
from callmood.worker.intake import decode
from callmood.worker.settings import InputSettings
from callmood.worker.speech.media_time import MediaTime
from callmood.worker.speech.stream import Stream

BEFORE, AFTER = quiet(0.6) + voice(1), quiet(0.6) + voice(1) + quiet(1)


def told(sent):
    """Start and end of each utterance in ms with its cut; redacted, missing and whole time of the call."""
    store = analyse(sent)
    call = store.calls["call-1"]
    Call.model_validate(call)
    spans = [(u["start_ms"], u["end_ms"], u["quality"]["cut"]) for u in store.of()]
    return spans, (call["redacted_ms"], call["missing_ms"], call["duration_ms"])


def paused(leg, ms, *, sends=False):
    """A pause of this length; `sends`: the gateway sends audio nevertheless."""
    pause = [leg.send("pause")]
    if sends:
        pause += leg.media(voice(ms / 1000))
    else:
        leg.skip(ms)
    return [*pause, leg.send("resume")]


@pytest.mark.parametrize("sends", [False, True])
def test_a_pause_cuts_and_is_redacted(sends):
    """What was said before is an utterance, the pause is neither silence nor loss, and what comes after is heard."""
    leg = Leg()
    sent = [*leg.media(BEFORE), *paused(leg, 8_000, sends=sends), *leg.media(AFTER), leg.send("end")]
    spans, times = told(sent)
    assert spans == [(460, 1_600, "pause"), (10_060, 11_460, "silence")]
    assert times == (8_000, 0, 12_200)


def test_a_pause_without_media_times_takes_its_length_from_the_resume():
    """`discarded_ms` says how long it was."""
    leg = Leg(has_media_ms=False)
    sent = [*leg.media(BEFORE), leg.send("pause"), leg.send("resume", discarded_ms="8000"), *leg.media(AFTER)]
    assert told([*sent, leg.send("end")]) == ([(460, 1_600, "pause"), (10_060, 11_460, "silence")], (8_000, 0, 12_200))


def test_a_pause_until_the_end_is_redacted():
    """A call that ends in its pause ends there, and the pause lasted until then."""
    leg = Leg()
    sent = [*leg.media(AFTER), leg.send("pause")]
    leg.skip(5_000)
    assert told([*sent, leg.send("end")])[1] == (5_000, 0, 7_600)


def test_a_call_that_begins_paused_misses_nothing():
    """A pause before the first audio is a pause, not audio that never arrived."""
    leg = Leg()
    sent = [leg.send("start"), *paused(leg, 5_000), *leg.media(AFTER), leg.send("end")]
    spans, times = told(sent)
    assert [start for start, *_ in spans] == [5_460]
    assert times == (5_000, 0, 7_600)


def test_a_pause_that_is_said_twice_is_one():
    """A second pause changes nothing; one resume ends it."""
    leg = Leg()
    sent = [*leg.media(BEFORE), leg.send("pause"), leg.send("pause")]
    leg.skip(3_000)
    assert told([*sent, leg.send("resume"), *leg.media(AFTER), leg.send("end")])[1] == (3_000, 0, 7_200)


def test_a_resume_without_a_pause_is_nothing():
    """A call joined in its middle may begin with one."""
    leg = Leg()
    assert told([leg.send("resume"), *leg.media(AFTER), leg.send("end")]) == ([(460, 1_860, "silence")], (0, 0, 2_600))


def test_a_pause_does_not_wait_for_a_lost_record():
    """What was said before the pause and comes after it is dropped; the pause begins at once."""
    leg = Leg()
    sent = leg.media(BEFORE)
    late = sent.pop(-2)
    spans, times = told([*sent, leg.send("pause"), late, *leg.media(voice(3)), leg.send("end")])
    assert [cut for *_, cut in spans] == ["pause"]
    assert times[0] == 3_000


def test_a_gap_inside_a_pause_is_part_of_it():
    """What is lost while nobody may listen is not missing."""
    leg = Leg()
    sent = [*leg.media(BEFORE), leg.send("pause"), leg.send("gap", discarded_ms="2000")]
    leg.skip(2_000)
    assert told([*sent, *leg.media(voice(1)), leg.send("resume"), *leg.media(AFTER), leg.send("end")])[1][:2] == (
        3_000,
        0,
    )


@pytest.mark.parametrize(("event", "heard"), [("pause", False), ("resume", True)])
def test_a_pause_or_resume_that_comes_after_it_was_given_up_still_counts(event, heard):
    """Else a pause delayed by a retry would never begin, or one would never end."""
    leg = Leg()
    sent = leg.media(quiet(0.4))
    if event == "resume":
        sent.append(leg.send("pause"))
    switch = leg.send(event)
    waiting = leg.media(quiet(4))  # more than is waited for
    spans, _ = told([*sent, *waiting, switch, *leg.media(AFTER), leg.send("end")])
    assert bool(spans) is heard


def test_a_resume_with_an_old_number_moves_no_audio():
    """A gateway that counts from 0 again without a new stream sends one; the records that wait keep their places."""
    leg = Leg(has_media_ms=False)
    leg.seq = 54
    sent = leg.media(BEFORE)
    del sent[3]  # what follows waits for it for a while
    old = leg.send("resume")
    stray = old._replace(headers={**old.headers, "seq": "3"})
    sent += [*leg.media(AFTER), leg.send("end")]
    assert told([*sent[:7], stray, *sent[7:]]) == told(sent)


def test_a_pause_that_comes_twice_with_a_resume_in_between_counts_once():
    """A record that was sent again does not pause again what was resumed."""
    leg = Leg()
    pause = leg.send("pause")
    resume = leg.send("resume")
    spans, _ = told([pause, resume, pause, *leg.media(AFTER), leg.send("end")])
    assert [cut for *_, cut in spans] == ["silence"]


def test_media_time_that_runs_back_in_a_pause_turns_nothing_around():
    """A pause never ends before it began."""
    leg = Leg()
    leg.skip(5_000)
    sent = [leg.send("pause")]
    leg.media_ms = 0.0
    sent += [*leg.media(voice(1)), leg.send("resume"), *leg.media(AFTER), leg.send("end")]
    assert told(sent)[1] == (1_000, 0, 8_600)


def test_a_second_pause_does_not_shorten_the_first():
    """All of it is redacted, from the first `pause` on."""
    leg = Leg()
    sent = [*leg.media(BEFORE), leg.send("pause"), *leg.media(voice(2)), leg.send("pause"), *leg.media(voice(1))]
    spans, times = told([*sent, leg.send("resume"), *leg.media(AFTER), leg.send("end")])
    assert spans == [(460, 1_600, "pause"), (5_060, 6_460, "silence")]
    assert times == (3_000, 0, 7_200)


def test_a_stall_does_not_end_a_pause():
    """Five seconds without a record, and the producer goes on to read the card number: it is not heard."""
    leg, clock = Leg(), Leg("clock")
    before = [*leg.media(BEFORE), leg.send("pause")]
    leg.skip(10_000)
    between = clock.media(quiet(12), chunk_ms=1_000)
    spans, _ = told([*before, *between, *leg.media(voice(3) + quiet(1)), leg.send("end")])
    assert spans == [(460, 1_600, "pause")]


@pytest.mark.parametrize("is_copy", [True, False])
def test_what_was_before_a_stream_that_is_not_heard_is_not_missing(is_copy):
    """A stream that is joined late in a pause, or beside one that brings the same audio, has lost nothing."""
    stream, leg = Stream(MediaTime(0), CONFIGURED.segment, InputSettings()), Leg()
    stream.is_copy = is_copy
    if not is_copy:
        stream.paused.begin(0)
    leg.lose(20_000)
    for record in log_of(leg.media(voice(1))):
        taken, _ = stream.push(decode.decode(record, input_format="headers", max_record_ms=5_000))
        assert (taken.spans, taken.unheard) == ([], [])
    assert stream.time.call_position_ms == 21_000
