"""The place of a stream whose first record is not at its beginning."""

import pytest
from telephony import EPOCH_MS, Leg, Worker, analyse, in_time, log_of, quiet, voice

SENTENCE = quiet(0.6) + voice(1) + quiet(1)


def spans(store):
    """Kind, start and end of each span of the call."""
    return [(span["kind"], span["start_ms"], span["end_ms"]) for span in store.calls["call-1"]["spans"]]


def test_what_a_second_leg_lacks_is_at_its_beginning():
    """Its first four seconds are lost; they are missing where they were, not once more as far on."""
    one, two = Leg(stream="one"), Leg(stream="two", layout="agent")
    sent = in_time(one.media(SENTENCE * 3), two.media(SENTENCE * 3)[20:])
    store = analyse([*sent, one.send("end"), two.send("end")])
    assert spans(store) == [("gap", 0, 4_000)]
    assert store.calls["call-1"]["duration_ms"] == 7_800


@pytest.mark.parametrize("media_ms", [0, 500, 2_600])
@pytest.mark.parametrize(("begins", "ends", "kind"), [("pause", "resume", "pause"), ("hold", "unhold", "hold")])
def test_the_first_event_of_a_stream_of_events_is_where_its_media_time_says(media_ms, begins, ends, kind):
    """The event comes 2.6 s into the call; a successor finds the same."""
    one, events = Leg(stream="one"), Leg(stream="events", start_ms=EPOCH_MS + 2_600 - media_ms)
    events.skip(media_ms)
    sent = [*one.media(SENTENCE), events.send(begins), *one.media(quiet(3))]
    events.skip(3_000)
    log = log_of([*sent, events.send(ends), *one.media(SENTENCE), one.send("end", scope="call")])
    for at in range(12, len(log), 4):
        store = Worker().read(log[:at]).commit()
        store = Worker(store).read(log[store.watermark :]).commit()
        assert spans(store) == [(kind, 2_600, 5_600)], at
