"""A `pause` that is refused because of another field of its record still pauses its call."""

import json
from dataclasses import replace
from functools import partial

import pytest
from telephony import EPOCH_MS, SOURCE, STAMPS, Leg, Store, Worker, in_time, log_of, quiet, voice

from callmood.worker.call.call import Call
from callmood.worker.call.ending import Ending
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import Restored
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Position, Record
from callmood.worker.settings import Settings
from callmood.worker.stream_time import StreamTime

SENTENCE = quiet(0.6) + voice(1) + quiet(1)

REFUSED = {
    "its number is malformed": {"seq": "x"},
    "its number is absurd": {"seq": "999999999"},
    "its schema is another": {"schema": "callmood.audio/2"},
    "another field is wrong": {"media_ms": "soon"},
    "the event is in capitals": {"event": "PAUSE"},
    "the event has spaces": {"event": " pause"},
}


def paused_call(**headers):
    """Speech, a refused pause, a card number on both legs, a resume and speech."""
    one, two = Leg(stream="one"), Leg(stream="two")
    sent = in_time(one.media(SENTENCE), two.media(SENTENCE))
    bad = one.send("pause")
    bad = bad._replace(headers=bad.headers | headers)
    if "seq" not in headers:
        one.seq -= 1
    sent.append(bad._replace(at_ms=bad.at_ms + 1))
    sent += in_time(one.media(voice(3)), two.media(voice(3)))
    sent.append(one.send("resume"))
    return sent + in_time(one.media(SENTENCE), two.media(SENTENCE)) + [one.send("end", scope="call")]


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_nothing_is_heard_after_it(headers):
    """Neither leg is heard until `resume`, the record is dead-lettered, and all of the log is settled."""
    sent = paused_call(**headers)
    store = Worker().read(log_of(sent)).commit()
    assert len(store.dead) == 1
    assert not [u for u in store.of() if u["end_ms"] > 2_600 and u["start_ms"] < 5_600], store.of()
    assert len([u for u in store.of() if u["start_ms"] >= 5_600]) == 2
    assert store.calls["call-1"]["redacted_ms"] == 3_000
    assert store.watermark == len(sent)


def test_the_sixty_fifth_stream_pauses_its_call():
    """It may open no stream, but what it asks for counts."""
    legs = [Leg(stream=f"s{n}") for n in range(64)]
    sent = [leg.send("start") for leg in legs] + legs[0].media(SENTENCE)
    sent += [Leg(stream="one more", start_ms=EPOCH_MS + 2_600).send("pause"), *legs[0].media(voice(3) + quiet(1))]
    worker = Worker().read(log_of(sent))
    assert worker.partition._calls["call-1"].call.is_paused
    assert [u.end_ms for u in worker.waiting if u.end_ms > 2_600] == []


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_a_successor_does_the_same_wherever_it_takes_over(headers):
    """Utterances and aggregate are those of one life, whatever was answered and committed before the takeover."""
    log = log_of(paused_call(**headers))
    whole = Worker().read(log).commit()
    for at in range(14, len(log), 5):
        for has_answers in (False, True):
            first = Worker(Store()).read(log[:at])
            store = first.commit() if has_answers else first.commit_answered()
            successor = Worker(store).read(log[store.watermark :])
            store = successor.commit()
            assert store.of() == whole.of(), at
            assert store.calls["call-1"]["redacted_ms"] == 3_000
            assert (store.dead, store.watermark) == (whole.dead, len(log))


def test_the_watermark_waits_for_the_state_that_holds_the_pause():
    """The pause closes an utterance; until its answer is stored, a successor must read the refused record again."""
    leg = Leg()
    sent = [*leg.media(quiet(0.6) + voice(1)), leg.send("pause", seq="x")]
    worker = Worker().read(log_of(sent))
    assert worker.waiting
    store = worker.commit_answered()
    assert store.dead == {len(sent) - 1: "bad_header"}
    assert store.watermark < len(sent)
    assert worker.commit().watermark == len(sent)


def test_the_watermark_of_a_successor_waits_too():
    """Its dead-letter record is written, and is not written again; the pause is not stored yet."""
    leg = Leg()
    log = log_of([*leg.media(quiet(0.6) + voice(1)), leg.send("pause", seq="x")])
    first = Worker().read(log[:2])
    first.commit()
    store = first.read(log[2:]).commit_answered()
    assert (store.dead, store.watermark < len(log)) == ({len(log) - 1: "bad_header"}, True)
    again = Worker(store).read(log[store.watermark :])
    assert again.waiting
    assert again.commit_answered().watermark < len(log)
    assert not again.partition._letters.collect()
    assert again.commit().watermark == len(log)


def test_the_pause_begins_where_the_call_was():
    """A stream that has ended before it is no part of it, nor is a stream that comes in the pause heard."""
    one, two = Leg(stream="one"), Leg(stream="two")
    sent = in_time([*one.media(SENTENCE), one.send("end", scope="stream")], two.media(SENTENCE * 3))
    sent += [two.send("pause", seq="x")]
    three = Leg(stream="three", start_ms=EPOCH_MS + 8_000)
    sent += [*three.media(voice(2)), three.send("resume"), *three.media(SENTENCE), three.send("end", scope="call")]
    store = Worker().read(log_of(sent)).commit()
    assert store.calls["call-1"]["redacted_ms"] == pytest.approx(2_200, abs=200)
    assert [u["start_ms"] for u in store.of() if u["stream"] == "three"] == [pytest.approx(10_460, abs=100)]


def test_a_refused_pause_of_another_call_pauses_nothing():
    """Nor does one that names no call."""
    leg = Leg()
    sent = log_of([*leg.media(SENTENCE), Leg("call-2").send("pause", seq="x"), Leg().send("pause", seq="x")])
    worker = Worker().read([*sent[:-1], replace(sent[-1], key=None)])
    assert not worker.partition._calls["call-1"].call.is_paused
    assert worker.commit().dead == {13: "bad_header", 14: "no_key"}


def test_a_pause_whose_numbers_begin_again_counts():
    """A gateway that has forgotten its numbers may have paused under the old ones, too."""
    leg = Leg()
    sent = [*leg.media(SENTENCE), leg.send("pause"), leg.send("resume"), *leg.media(SENTENCE)]
    again = leg.send("pause", seq="0")
    worker = Worker().read(log_of([*sent, again._replace(at_ms=again.at_ms + 1)]))
    assert worker.partition._calls["call-1"].call.is_paused
    assert list(worker.commit().dead.values()) == ["seq_backwards"]


def test_a_json_pause_counts_too():
    """Whatever else is wrong with the object, and whether the key or the object names the call."""
    media = {"encoding": "pcmu", "rate": 8000, "layout": "customer", "audio": "//8="}
    for key in (b"call-1", None, b"other"):
        read = partial(decode.decode, input_format="json", max_record_ms=5000)
        settings = Settings(input={"format": "json"})
        partition = Partition(SOURCE, Restored(0, StreamTime(), {}), read, settings, DEFAULT_RULES)
        for offset, fields in enumerate(({"seq": 0, **media}, {"event": "pause", "seq": [1]})):
            body = json.dumps({"schema": "callmood.audio/1", "call_id": "call-1", **fields}).encode()
            position = Position(*SOURCE, offset)
            list(partition.take([Record(position, key if offset else b"call-1", body, (), EPOCH_MS + offset)], 0.0))
        assert partition._calls["call-1"].call.is_paused
        partition.confirm(partition.collect(STAMPS, 0.0))
        assert partition.open_records == 0


def begun_paused():
    """A refused pause, before any other record of its call; then a card number on both legs, a resume and speech."""
    one, two = Leg(stream="one"), Leg(stream="two")
    sent = [one.send("pause", seq="x"), *in_time(one.media(voice(3)), two.media(voice(3))), one.send("resume")]
    return sent + in_time(one.media(SENTENCE), two.media(SENTENCE)) + [one.send("end", scope="call")]


def test_a_call_begins_with_it():
    """Nothing is heard until `resume`, and the call says when it began."""
    sent = begun_paused()
    store = Worker().read(log_of(sent[:1])).commit()
    assert (store.calls["call-1"]["status"], store.watermark) == ("live", 1)
    assert store.calls["call-1"]["started_at_ms"] == round(sent[0].at_ms)
    store = Worker().read(log_of(sent)).commit()
    assert sorted((u["stream"], u["start_ms"]) for u in store.of()) == [("one", 3_460), ("two", 3_460)]
    assert store.calls["call-1"]["redacted_ms"] == 3_000
    assert (store.dead, store.watermark) == ({0: "bad_header"}, len(sent))


def test_a_successor_of_a_call_that_began_with_it_does_the_same():
    """Wherever it takes over, whatever was answered and committed before."""
    log = log_of(begun_paused())
    whole = Worker().read(log).commit()
    for at in range(1, len(log), 3):
        for has_answers in (False, True):
            first = Worker(Store()).read(log[:at])
            store = first.commit() if has_answers else first.commit_answered()
            store = Worker(store).read(log[store.watermark :]).commit()
            assert (store.of(), store.dead) == (whole.of(), whole.dead), at
            assert store.calls["call-1"]["redacted_ms"] == 3_000


def test_a_call_of_nothing_else_ends():
    """It is no live call for ever."""
    other = Leg("other").media(quiet(660), chunk_ms=1_000)
    store = Worker().read(log_of([Leg().send("pause", seq="x"), *other])).commit()
    assert store.calls["call-1"]["end_reason"] == "no_audio"


def test_a_call_that_is_over_does_not_begin_again():
    """A pause after the end is a late record, however often it comes and whichever worker reads it."""
    leg = Leg()
    sent = [*leg.media(SENTENCE), leg.send("end"), leg.send("pause", seq="x"), leg.send("pause", seq="x")]
    log = log_of(sent)
    worker = Worker().read(log[:-2])
    worker.commit()
    store = worker.read(log[-2:]).commit()
    assert (store.calls["call-1"]["status"], len(store.dead), store.watermark) == ("completed", 2, len(log))
    assert worker.partition.live_calls == 0
    at_once = Worker().read(log).commit()
    assert (at_once.calls, at_once.dead, at_once.watermark) == (store.calls, store.dead, len(log))


def test_a_call_that_goes_on_with_it_before_its_idle_end_is_stored_ends_again():
    """The answer for its last utterance is late, so the end waits when the pause comes."""
    leg = Leg()
    spoken = leg.media(quiet(1) + voice(1))
    ticks = Leg("other").media(quiet(1_400), chunk_ms=1_000)
    worker = Worker().read(log_of(in_time(spoken, ticks[:690])))
    assert worker.partition._calls["call-1"].call.is_over
    leg.skip(690_000)
    log = log_of([*in_time(spoken, ticks[:690]), leg.send("pause", seq="x"), *ticks[690:]])[10 + 690 :]
    assert worker.read(log[:100]).commit().calls["call-1"]["status"] == "live"
    assert worker.read(log[100:]).commit().calls["call-1"]["end_reason"] == "idle"


def test_it_keeps_its_call_alive():
    """A producer that asks for a pause is there."""
    leg = Leg()
    spoken = leg.media(SENTENCE)
    leg.skip(500_000)
    sent = in_time([*spoken, leg.send("pause", seq="x")], Leg("other").media(quiet(700), chunk_ms=1_000))
    assert Worker().read(log_of(sent)).commit().calls["call-1"]["status"] == "live"


@pytest.mark.parametrize(("elapsed_ms", "goes_on"), [(4_999, True), (5_000, False)])
def test_it_continues_a_call_that_is_over_only_in_time(elapsed_ms, goes_on):
    """As it does once the end is stored; until then, the same call waits for its commit."""
    call = Call("call-1", Settings(), ())
    call.is_over, call.ending = True, Ending(5_000)
    assert call.pause(1, EPOCH_MS, elapsed_ms, 0.0) == ([], goes_on)
    assert call.is_over != goes_on
