"""A pause applies to the whole call: no stream of it is analysed until `resume`."""

import base64
import json
from functools import partial

import pytest
from telephony import EPOCH_MS, SOURCE, STAMPS, Leg, Worker, analyse, in_time, log_of, quiet, voice

from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Restored
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Position, Record
from callmood.worker.settings import Settings
from callmood.worker.stream_time import StreamTime

SENTENCE = quiet(0.6) + voice(1) + quiet(1)


def spans(store):
    """Stream, start and end in ms, and the reason for the end of each utterance."""
    return [(u["stream"], u["start_ms"], u["end_ms"], u["quality"]["cut"]) for u in store.of()]


def two_legs(*, paused_audio=True):
    """Both legs speak before, during and after a pause of 4 s that the first leg brings."""
    one, two = Leg(stream="one"), Leg(stream="two")
    sent = in_time(one.media(quiet(0.6) + voice(1.4)), two.media(quiet(0.6) + voice(1.4)))
    sent.append(one.send("pause"))
    if paused_audio:
        sent += in_time(one.media(voice(4)), two.media(voice(4)))
    else:
        one.skip(4_000)
        two.skip(4_000)
    sent.append(one.send("resume"))
    return sent + in_time(one.media(SENTENCE), two.media(SENTENCE)) + [one.send("end")]


@pytest.mark.parametrize("paused_audio", [False, True])
def test_the_other_leg_is_paused_too(paused_audio):
    """The agent who reads the card number back is not heard, and both legs go on at `resume`; nothing is missing."""
    store = analyse(two_legs(paused_audio=paused_audio))
    assert sorted(spans(store)) == [
        ("one", 460, 2_000, "pause"),
        ("one", 6_460, 7_860, "silence"),
        ("two", 460, 2_000, "pause"),
        ("two", 6_460, 7_860, "silence"),
    ]
    assert (store.calls["call-1"]["redacted_ms"], store.calls["call-1"]["missing_ms"]) == (4_000, 0)


def test_a_reconnect_in_a_pause_begins_paused():
    """The new stream is not heard until its own `resume`."""
    old, new = Leg(stream="old"), Leg(stream="new", start_ms=EPOCH_MS + 6_000)
    sent = [*old.media(quiet(2)), old.send("pause"), *old.media(voice(2))]
    sent += [*new.media(quiet(1) + voice(2) + quiet(1)), new.send("resume"), *new.media(SENTENCE), new.send("end")]
    store = analyse(sent)
    assert spans(store) == [("new", 10_460, 11_860, "silence")]
    assert store.calls["call-1"]["redacted_ms"] == 8_000


def test_a_leg_whose_records_after_the_pause_are_lost_misses_them():
    """The pause of a leg is as long as that of the leg that ended it; what is lost after it is a gap."""
    one, two = Leg(stream="one"), Leg(stream="two")
    sent = in_time(one.media(quiet(1)), two.media(quiet(1)))
    sent.append(one.send("pause"))
    one.skip(2_000)
    sent += [one.send("resume"), *one.media(quiet(3))]
    two.lose(5_000)
    call = analyse([*sent, *two.media(SENTENCE), one.send("end")]).calls["call-1"]
    assert (call["redacted_ms"], call["missing_ms"]) == (2_000, 3_000)


def test_a_leg_that_sends_nothing_after_the_pause_misses_nothing():
    """No number is missing: after the pause the leg was silent."""
    one, two = Leg(stream="one"), Leg(stream="two")
    sent = [*in_time(one.media(quiet(1)), two.media(quiet(1))), one.send("pause")]
    one.skip(2_000)
    sent += [one.send("resume"), *one.media(quiet(3))]
    two.skip(5_000)
    call = analyse([*sent, *two.media(SENTENCE), one.send("end")]).calls["call-1"]
    assert (call["redacted_ms"], call["missing_ms"]) == (2_000, 0)


def test_a_record_that_waited_through_the_pause_is_not_heard():
    """What came in the pause and waited for a lost record does not come out after `resume`."""
    one, two = Leg(stream="one"), Leg(stream="two")
    sent = in_time(one.media(quiet(1)), two.media(quiet(1)))
    lost, *waiting = two.media(voice(1))
    sent += [one.send("pause"), *waiting]
    one.skip(1_000)
    sent += [one.send("resume"), lost, *two.media(quiet(2)), one.send("end")]
    assert spans(analyse(sent)) == []


def test_a_restart_in_a_pause_keeps_every_leg_paused():
    """A successor goes on where the pause was, for each leg."""
    log = log_of(two_legs())
    steady = analyse(two_legs())
    for end in range(1, len(log)):
        worker = Worker().read(log[:end])
        store = worker.commit()
        successor = Worker(store).read(record for record in log if record.position.offset >= store.watermark)
        assert spans(successor.commit()) == spans(steady)


CARD = base64.b64encode(voice(0.2)).decode()
MEDIA = {"encoding": "pcmu", "rate": 8000, "layout": "customer", "audio": CARD}


def json_letters(key, *, ended=False, **fields):
    """The dead-letter record of a bad JSON record that follows the pause of call-1."""
    settings = Settings(input={"format": "json"})
    read = partial(decode.decode, input_format="json", max_record_ms=5000)
    partition = Partition(SOURCE, Restored(0, StreamTime(), {}), read, settings, DEFAULT_RULES)

    def send(offset, key, value):
        list(partition.take([Record(Position(*SOURCE, offset), key, value, (), EPOCH_MS + 200 * offset)], 0.0))

    def value(**fields):
        return json.dumps({"schema": "callmood.audio/1", **fields}).encode()

    send(0, b"call-1", value(call_id="call-1", seq=0, **MEDIA))
    send(1, b"call-1", value(call_id="call-1", seq=1, event="pause"))
    if ended:
        send(2, b"call-1", value(call_id="call-1", seq=2, event="end"))
        partition.confirm(partition.collect(STAMPS, 0.0))
    send(3, key, fields["raw"] if "raw" in fields else value(**(MEDIA | {"rate": 1} | fields)))
    (letter,) = partition.collect(STAMPS, 0.0).dead_letters
    return letter


@pytest.mark.parametrize("key", [None, b"call-1", b"other", b"\xff\xfe", b"x" * 300])
@pytest.mark.parametrize("ended", [False, True])
def test_no_dead_letter_record_holds_audio_of_a_paused_call(key, ended):
    """Whatever its key says, a refused record that names the paused call goes without its value; after its end too."""
    assert json_letters(key, ended=ended, call_id="call-1", seq=3).record.value is None


@pytest.mark.parametrize("key", [None, b"other", b"call-1"])
def test_an_illegible_record_goes_without_its_value_while_a_call_is_paused(key):
    """It may be the paused call's, whatever its key says."""
    assert json_letters(key, raw=b'{"call_id": "call-1", "audio": "' + CARD.encode()).record.value is None


def test_a_record_of_another_call_keeps_its_value():
    """A pause does not touch the dead-letter records of other calls."""
    assert json_letters(b"call-2", call_id="call-2", seq=0).record.value is not None
    assert json_letters(None, call_id="call-2", seq=0).record.value is not None


def ended_leg_pauses(*, ends_in_pause):
    """One leg ends before or in the pause that its stream brings; the other one goes on alone."""
    one, two = Leg(stream="one"), Leg(stream="two")
    sent = in_time(one.media(SENTENCE), two.media(SENTENCE))
    sent += [one.send(event) for event in (("pause", "end") if ends_in_pause else ("end", "pause"))]
    sent += two.media(voice(3))
    one.skip(3_000)
    return [*sent, one.send("resume"), *two.media(SENTENCE), two.send("end")]


@pytest.mark.parametrize("ends_in_pause", [False, True])
def test_a_stream_that_has_ended_still_pauses_and_resumes_its_call(ends_in_pause):
    """A recorder may send both on the leg that it knows; a successor does the same, wherever it takes over."""
    log = log_of(ended_leg_pauses(ends_in_pause=ends_in_pause))
    whole = Worker().read(log).commit()
    assert [(stream, start_ms) for stream, start_ms, *_ in spans(whole) if start_ms > 2_000] == [("two", 6_060)]
    assert whole.calls["call-1"]["redacted_ms"] == 3_000
    for at in range(20, len(log), 3):
        store = Worker().read(log[:at]).commit()
        store = Worker(store).read(log[store.watermark :]).commit()
        assert (spans(store), store.calls["call-1"]["redacted_ms"]) == (spans(whole), 3_000), at


def test_a_pause_under_the_number_of_a_record_that_waits_counts():
    """It is no copy of that record: audio has that number."""
    one = Leg()
    sent = one.media(SENTENCE)
    one.lose(200)
    sent += one.media(quiet(0.2))
    one.seq -= 1
    sent += [one.send("pause"), *one.media(voice(3)), one.send("resume"), *one.media(SENTENCE), one.send("end")]
    assert [start_ms for _, start_ms, *_ in spans(analyse(sent))] == [460, 6_460]


def test_a_pause_under_an_old_number_counts():
    """Its content shows that it is no copy, also if it is as old as the newest record."""
    one = Leg()
    sent = [*one.media(SENTENCE), one.send("pause"), one.send("resume"), one.send("pause", seq="5")]
    store = analyse([*sent, *one.media(voice(3)), one.send("resume"), *one.media(SENTENCE), one.send("end")])
    assert store.dead == {15: "seq_backwards"}
    assert [start_ms for _, start_ms, *_ in spans(store)] == [460, 6_060]


def test_a_leg_with_another_clock_that_begins_in_a_pause_pauses_where_the_call_does():
    """Its gateway is an hour behind, and its first record comes while the other leg is paused."""
    one, other = Leg(stream="one"), Leg(stream="other", layout="agent", start_ms=EPOCH_MS - 3_600_000)
    sent = [*one.media(quiet(2) + voice(4) + quiet(4.4)), one.send("pause")]
    other.skip(10_400)
    sent += other.media(quiet(5))
    one.skip(10_000)
    sent += [one.send("resume"), *one.media(voice(2) + quiet(2)), one.send("end", scope="call")]
    (span,) = analyse(sent).calls["call-1"]["spans"]
    assert (span["kind"], span["end_ms"]) == ("pause", 20_400)
    assert span["start_ms"] == pytest.approx(10_400, abs=200)
