"""Streams that end, calls that end, hold, and streams with the same audio: through the real `Partition`."""

from functools import partial

import pytest
from telephony import CONFIGURED, EPOCH_MS, Leg, Sent, Worker, analyse, facts, in_time, log_of, quiet, voice

from callmood.worker.settings import CallSettings

SENTENCE = quiet(0.6) + voice(1) + quiet(1.4)


def ticks(from_s: float, to_s: float) -> list[Sent]:
    """Another call that only moves the partition's clock: a record each second, without audio."""
    leg, sent = Leg("other", start_ms=EPOCH_MS + from_s * 1_000), []
    while leg.media_ms < (to_s - from_s) * 1_000:
        sent.append(leg.send("hold"))
        leg.skip(1_000)
    return sent


def transfer(**end: str) -> list[Sent]:
    """The customer's leg for 18 s, one agent for 6 s and another for the rest; each leg is a stream."""
    customer = Leg(stream="customer")
    one = Leg(stream="one", layout="agent")
    two = Leg(stream="two", layout="agent", start_ms=EPOCH_MS + 9_000)
    legs = [
        [*customer.media(SENTENCE * 6), customer.send("end")],
        [*one.media(SENTENCE * 2), one.send("end", **end)],
        [*two.media(SENTENCE * 3), two.send("end")],
    ]
    return in_time(*legs)


def test_an_end_ends_its_stream_and_the_last_one_the_call():
    """An agent who hands over takes nothing along."""
    call = analyse(transfer()).calls["call-1"]
    assert (call["status"], call["end_reason"], call["duration_ms"]) == ("completed", "end", 18_000)
    assert {name: role["utterances"] for name, role in call["roles"].items()} == {"customer": 6, "agent": 5}


def test_an_end_can_end_the_call():
    """`scope=call` ends every stream, whatever they still send."""
    call = analyse(transfer(scope="call")).calls["call-1"]
    assert (call["end_reason"], call["duration_ms"]) == ("end", pytest.approx(6_000, abs=200))


def test_a_stream_can_leave_and_the_call_wait_for_another():
    """With `scope=stream` the call goes on though nobody is left, and is over when nobody comes."""
    leg, next_leg = Leg(stream="one"), Leg(stream="two", start_ms=EPOCH_MS + 20_000)
    sent = [*leg.media(SENTENCE), leg.send("end", scope="stream")]
    went_on = analyse([*sent, *next_leg.media(SENTENCE), next_leg.send("end")]).calls["call-1"]
    assert (went_on["utterances"], went_on["end_reason"], went_on["duration_ms"]) == (2, "end", 23_000)
    assert (went_on["redacted_ms"], went_on["non_talk_ms"]) == (17_000, pytest.approx(4_000, abs=200))
    alone = analyse(in_time(sent, ticks(0, 70))).calls["call-1"]
    assert (alone["status"], alone["end_reason"], alone["duration_ms"]) == ("completed", "end", 3_000)


def test_a_call_that_waits_is_as_long_as_it_was():
    """Until the minute is over, the figures reach to the `end`, and what the silent leg had said is among them."""
    one, two = Leg(stream="one"), Leg(stream="two", layout="agent")
    sent = in_time(one.media(quiet(20)), two.media(quiet(0.6) + voice(1)))
    call = analyse([*sent, one.send("end")]).calls["call-1"]
    assert (call["status"], call["duration_ms"], call["utterances"]) == ("live", 20_000, 1)
    assert call["non_talk_ms"] == pytest.approx(19_000, abs=200)


def test_a_call_of_a_stream_that_was_cut_off_ends_with_the_one_in_its_place():
    """After a reconnect, the first stream's missing `end` keeps nothing alive."""
    one, two = Leg(stream="one"), Leg(stream="two", start_ms=EPOCH_MS + 3_500)
    call = analyse([*one.media(SENTENCE), *two.media(SENTENCE), two.send("end")]).calls["call-1"]
    assert (call["status"], call["utterances"]) == ("completed", 2)


def test_a_leg_that_neither_ends_nor_sends_is_waited_for_a_minute():
    """An `end` of one leg, and silence of the other: the call is over long before it would be idle."""
    one, two = Leg(stream="one"), Leg(stream="two", layout="agent")
    sent = in_time([*one.media(SENTENCE), one.send("end")], two.media(SENTENCE))
    assert analyse(in_time(sent, ticks(0, 55))).calls["call-1"]["status"] == "live"
    assert analyse(in_time(sent, ticks(0, 70))).calls["call-1"]["end_reason"] == "end"


def hold(silent_s: float, *, is_told: bool) -> list[Sent]:
    """A sentence, a hold without records, a sentence."""
    leg = Leg()
    sent = [*leg.media(SENTENCE), *([leg.send("hold")] if is_told else [])]
    leg.skip(silent_s * 1_000)
    sent += [leg.send("unhold")] if is_told else []
    return in_time([*sent, *leg.media(SENTENCE), leg.send("end")], ticks(0, silent_s + 10))


def test_a_hold_of_any_length_resumes():
    """Twenty minutes without a record: the call goes on, and the time is neither silence nor missing."""
    call = analyse(hold(1_200, is_told=True)).calls["call-1"]
    assert (call["end_reason"], call["utterances"], call["duration_ms"]) == ("end", 2, 1_206_000)
    assert (call["hold_ms"], call["missing_ms"]) == (1_200_000, 0)
    assert call["non_talk_ms"] == pytest.approx(4_000, abs=200)
    assert call["silences"]["count"] == 0


def test_a_hold_raises_no_alert_of_silence():
    """Silence that the producer explains alarms nobody; the same without `hold` does."""
    assert [a["rule"] for a in analyse(hold(120, is_told=True)).alerts] == []
    assert "long_silence" in [a["rule"] for a in analyse(hold(120, is_told=False)).alerts]


def test_what_is_said_on_hold_counts():
    """The agent talks to a colleague while the customer hears music: talk, and hold at the same time."""
    leg = Leg(layout="agent")
    sent = [*leg.media(SENTENCE), leg.send("hold"), *leg.media(quiet(60) + SENTENCE + quiet(40)), leg.send("unhold")]
    call = analyse([*sent, *leg.media(SENTENCE), leg.send("end")]).calls["call-1"]
    assert (call["hold_ms"], call["utterances"]) == (103_000, 3)
    assert call["talk_ms"] == pytest.approx(3_000, abs=200)
    assert call["longest_silence_ms"] <= 3_000


def test_a_hold_until_the_end_is_a_hold():
    """The caller gives up."""
    leg = Leg()
    sent = [*leg.media(SENTENCE), leg.send("hold")]
    leg.skip(30_000)
    call = analyse([*sent, leg.send("end")]).calls["call-1"]
    assert (call["hold_ms"], call["duration_ms"]) == (30_000, 33_000)


@pytest.mark.parametrize(
    "make",
    [
        transfer,
        partial(hold, 40, is_told=True),
        partial(hold, 640, is_told=False),
        lambda: ticks(0, 7) + overtaken(10) + ticks(7, 20),
        lambda: ticks(0, 7) + [r for n, r in enumerate(overtaken(20)) if n != 52] + ticks(7, 20),  # one is lost
        lambda: overtaken_by_its_own(lost=(25,)),
        lambda: overtaken_by_its_own(lost=(25,), scope="call"),
        lambda: lost_tail() + ticks(4, 75),
        lambda: lost_tail(late=True) + ticks(4, 75),
    ],
)
def test_a_restart_at_any_record_changes_nothing(make):
    """Ends, holds and waits survive."""
    log = log_of(make())
    steady = Worker().read(log).commit()
    for end in sorted({*range(1, len(log), max(4, len(log) // 20)), *range(len(log) - 20, len(log), 4)}):
        store = Worker().read(log[:end]).commit()
        Worker(store).read(record for record in log if record.position.offset >= store.watermark).commit()
        assert facts(store) == facts(steady)


@pytest.mark.parametrize("silent_s", [700, 1_500, 3_900])
def test_a_call_that_ended_idle_goes_on_with_its_next_record(silent_s):
    """A hold of any length without packets: the call is live again, its numbers go on, and nothing is lost."""
    store = analyse(hold(silent_s, is_told=False))
    call, lasting = store.calls["call-1"], CONFIGURED.model_copy(update={"call": CallSettings(idle_s=14_400)})
    steady = analyse(hold(silent_s, is_told=False), lasting).calls["call-1"]
    assert (call["end_reason"], call["utterances"], store.dead) == ("end", 2, {})
    assert [u["number"] for u in store.of()] == [1, 2]
    assert {**call, "version": 0} == {**steady, "version": 0}


def test_a_record_that_continues_a_call_says_its_attributes_and_notice():
    """A second leg says more of the call than the first one did: it counts, as it does in a call that never ended."""
    one, two = Leg(stream="one"), Leg(stream="two")
    sent = [one.send("start", notice="given", **{"attr.queue": "sales"}), *one.media(SENTENCE)]
    two.skip(700_000)
    again = two.send("start", notice="not_given", **{"attr.queue": "billing", "attr.team": "blue"})
    sent += [again, *two.media(SENTENCE), two.send("end")]
    log, worker = log_of(in_time(sent, ticks(0, 720))), Worker()
    for first in range(0, len(log), 50):
        call = worker.read(log[first : first + 50]).commit().calls["call-1"]
    assert (call["utterances"], call["notice"]) == (2, "not_given")
    assert call["attributes"] == {"queue": "billing", "team": "blue"}


def test_after_its_time_an_idle_call_does_not_go_on():
    """More than an hour after the end, the id starts another call."""
    log, worker = log_of(hold(4_300, is_told=False)), Worker()
    for first in range(0, len(log), 1_000):
        store = worker.read(log[first : first + 1_000]).commit()
    assert [u["number"] for u in store.of()] == [1, 1]


def test_a_call_that_ended_idle_while_it_was_paused_goes_on_paused():
    """What is said before the `resume` is not heard, however long it took."""
    leg = Leg()
    sent = [*leg.media(SENTENCE), leg.send("pause")]
    leg.skip(700_000)
    sent += [*leg.media(SENTENCE), leg.send("resume"), *leg.media(SENTENCE), leg.send("end")]
    store = analyse(in_time(sent, ticks(0, 720)))
    call = store.calls["call-1"]
    assert (call["utterances"], call["end_reason"], call["redacted_ms"]) == (2, "end", 703_000)


def test_a_refused_pause_counts_in_a_call_that_ended_idle():
    """Its audio goes on later, and is not heard."""
    leg = Leg()
    sent = leg.media(SENTENCE)
    leg.skip(700_000)
    bad = leg.send("pause", traceparent="x", seq="none")
    store = analyse(in_time([*sent, bad, *leg.media(SENTENCE), leg.send("end")], ticks(0, 720)))
    assert (store.calls["call-1"]["utterances"], list(store.dead.values())) == (1, ["bad_header"])


def test_a_reconnect_after_an_idle_end_goes_on():
    """The gateway comes back with a new stream, and says `start`."""
    one, two = Leg(stream="one"), Leg(stream="two", start_ms=EPOCH_MS + 900_000)
    back = [two.send("start"), *two.media(SENTENCE), two.send("end")]
    call = analyse(in_time(one.media(SENTENCE), back, ticks(0, 910))).calls["call-1"]
    assert (call["utterances"], call["end_reason"], call["duration_ms"]) == (2, "end", 903_000)


def test_a_copy_of_a_record_continues_nothing():
    """A producer that sends its newest record again does not make an idle call live."""
    leg = Leg()
    sent = leg.media(SENTENCE)
    copy = sent[-1]._replace(at_ms=EPOCH_MS + 650_000)
    call = analyse(in_time([*sent, copy], ticks(0, 660))).calls["call-1"]
    assert (call["status"], call["end_reason"]) == ("completed", "idle")


def test_an_end_after_an_idle_end_ends_the_call_and_is_settled():
    """An `end` that comes when the clock has ended the call gives its reason, and the watermark passes it."""
    leg = Leg()
    sent = leg.media(SENTENCE)
    leg.skip(620_000)
    log = log_of(in_time([*sent, leg.send("end")], ticks(0, 660)))
    at = next(place for place, record in enumerate(log) if ("event", b"end") in record.headers)
    worker = Worker().read(log[:at])
    assert worker.commit().calls["call-1"]["end_reason"] == "idle"
    store = worker.read(log[at:]).commit()
    assert (store.calls["call-1"]["status"], store.calls["call-1"]["end_reason"]) == ("completed", "end")
    assert store.watermark > log[at].position.offset


def overtaken(late: int) -> list[Sent]:
    """The agent's `end` of the call arrives before the newest records of the customer, which were captured before."""
    customer, agent = Leg(stream="customer"), Leg(stream="agent", layout="agent")
    legs = in_time(customer.media(quiet(2) + voice(4) + quiet(1)), agent.media(quiet(7)))
    rest = [item for item in legs if item.headers["stream"] == "customer"][-late:]
    customer.skip(200)
    after = customer.media(voice(1))
    return [*[item for item in legs if item not in rest], agent.send("end", scope="call"), *rest, *after]


@pytest.mark.parametrize("late", [3, 10, 20])
def test_audio_that_the_end_of_the_call_has_overtaken_counts(late):
    """What another leg had sent before the `end` is heard; what it sends after is not."""
    store = analyse(ticks(0, 7) + overtaken(late) + ticks(7, 20))
    call = store.calls["call-1"]
    assert (call["status"], call["end_reason"], call["duration_ms"]) == ("completed", "end", 7_000)
    assert call["talk_ms"] == pytest.approx(4_000, abs=200)
    assert call["missing_ms"] == 0


@pytest.mark.parametrize("late", [3, 10, 20])
def test_a_new_owner_hears_what_an_end_has_overtaken_although_the_one_before_had_read_it(late):
    """The state that the owner before stored with those records is older than the end, and names them as read."""
    sent = ticks(0, 7) + overtaken(late) + ticks(7, 20)
    log = log_of(sent)
    expected = facts(Worker().read(log).commit())
    end = next(place for place, item in enumerate(sent) if item.headers.get("scope") == "call")
    for read in range(end + 2, end + late + 2):
        before = Worker().read(log[: len(ticks(0, 7)) + 5])
        before.commit()
        before.read(log[before.partition.position : read])
        before.partition.restore_store([], all_states=True)
        again = Worker(before.commit_answered())
        at = again.store.watermark
        assert at < end
        again.read(log[at : end + 1]).commit()
        assert facts(again.read(log[end + 1 :]).commit()) == expected


def test_after_the_end_a_new_stream_is_late_whatever_its_timestamp():
    """Only a stream that was sending before the `end` can have audio on its way."""
    legs = overtaken(3)
    stray = Leg(stream="stray", layout="agent").media(quiet(0.2) + voice(1))
    stray = [item._replace(at_ms=EPOCH_MS + 6_900) for item in stray]
    expected = analyse(ticks(0, 7) + legs + ticks(7, 20)).calls["call-1"]
    assert analyse(ticks(0, 7) + legs + stray + ticks(7, 20)).calls["call-1"] == expected


def overtaken_by_its_own(lost: tuple[int, ...] = (), late_ms: float = 0, **end: str) -> list[Sent]:
    """The `end` of the customer's leg arrives before the last two of its 3.5 s, and the agent's leg ends later."""
    customer, agent = Leg(stream="customer"), Leg(stream="agent", layout="agent")
    records = customer.media(quiet(0.5) + voice(2.6) + quiet(0.4), chunk_ms=100)
    kept = [record for number, record in enumerate(records) if number not in lost]
    first, rest = kept[:15], [record._replace(at_ms=record.at_ms + late_ms) for record in kept[15:]]
    sent = [*in_time(first, agent.media(quiet(3.5))), customer.send("end", **end)]
    waited = ticks(3.5, 3.5 + late_ms / 1_000)
    return [*sent, *waited, *rest, *([] if end else [agent.send("end")]), *ticks(4 + late_ms / 1_000, 75)]


@pytest.mark.parametrize("end", [{}, {"scope": "stream"}, {"scope": "call"}])
@pytest.mark.parametrize(("lost", "late_ms"), [((), 0), ((), 4_000), ((25,), 0), ((34,), 0)])
def test_audio_that_its_own_end_has_overtaken_counts(lost, late_ms, end):
    """An `end` waits for the missing records of its stream, and is not delayed for ever by those that are lost."""
    worker = Worker().read(log_of(overtaken_by_its_own(lost, late_ms, **end)))
    call = worker.commit().calls["call-1"]
    assert (call["status"], call["end_reason"], call["utterances"]) == ("completed", "end", 1)
    assert call["duration_ms"] == pytest.approx(3_500, abs=200)
    assert call["talk_ms"] == pytest.approx(2_600, abs=200)
    assert worker.partition.take_skipped()["late"] == 0


def lost_tail(*, late: bool = False) -> list[Sent]:
    """A second of silence before the `end` is lost, or comes after it."""
    leg = Leg()
    sent = leg.media(SENTENCE + quiet(1))
    return [*sent[:-5], leg.send("end"), *(sent[-5:] if late else [])]


def test_a_call_ends_although_its_last_records_are_lost_and_nothing_more_comes():
    """Nobody was speaking, so the wait is not shown: the figures are those after the wait."""
    worker = Worker().read(log_of(lost_tail()))
    call = worker.commit().calls["call-1"]
    assert (call["status"], call["end_reason"], call["duration_ms"]) == ("completed", "end", 4_000)
    assert (call["missing_ms"], call["utterances"]) == (1_000, 1)
    before = facts(worker.store)
    assert facts(worker.read(log_of(ticks(4, 75), len(lost_tail()))).commit()) == before


def test_a_call_that_shows_as_ended_goes_on_with_what_its_end_has_overtaken():
    """As if the records had come in order; a successor does the same."""
    log = log_of(lost_tail(late=True))
    expected = analyse(
        lost_tail(late=True)[:-6] + sorted(lost_tail(late=True)[-6:], key=lambda sent: int(sent.headers["seq"]))
    )
    for split in range(len(log) - 6, len(log)):
        store = Worker().read(log[:split]).commit()
        worker = Worker(store)
        worker.read(log[store.watermark :])
        call = worker.commit().calls["call-1"]
        assert (call["status"], call["missing_ms"]) == ("completed", 0)
        assert facts(store)[1] == facts(expected)[1]


@pytest.mark.parametrize(("silent_ms", "length_ms"), [(0, 6_000), (4_000, 8_000)])
def test_a_call_whose_end_waits_is_as_long_as_its_longest_leg(silent_ms, length_ms):
    """Of the leg whose last second is lost, the silence that was not sent after it counts; the wait changes nothing."""
    leg, agent = Leg(), Leg(stream="agent", layout="agent")
    sent = in_time(leg.media(SENTENCE + quiet(1))[:-5], agent.media(quiet(6)))
    leg.skip(silent_ms)
    worker = Worker().read(log_of([*sent, leg.send("end", scope="call")]))
    call = worker.commit().calls["call-1"]
    assert (call["status"], call["duration_ms"], call["missing_ms"]) == ("completed", length_ms, 1_000)
    before = facts(worker.store)
    assert facts(worker.read(log_of(ticks(9, 75), first_offset=100)).commit()) == before


def test_a_call_whose_end_waits_is_live_while_a_leg_speaks():
    """Though the leg that ends it is quiet: what the other one says is not complete."""
    leg, agent = Leg(), Leg(stream="agent", layout="agent")
    sent = in_time(leg.media(SENTENCE + quiet(1))[:-5], agent.media(quiet(2) + voice(2)))
    worker = Worker().read(log_of([*sent, leg.send("end", scope="call")]))
    assert worker.commit().calls["call-1"]["status"] == "live"


def test_a_successor_that_reads_an_end_again_publishes_nothing_again():
    """The call that shows as ended keeps its version."""
    log = log_of(lost_tail())
    store = Worker().read(log).commit()
    version = store.calls["call-1"]["version"]
    assert store.watermark < len(log)
    assert Worker(store).read(log[store.watermark :]).commit().calls["call-1"]["version"] == version


def test_a_call_whose_end_waits_is_live_if_a_leg_speaks_meanwhile():
    """It shows as ended only while nothing more of it comes."""
    agent = Leg(stream="agent", layout="agent", start_ms=EPOCH_MS + 4_000)
    worker = Worker().read(log_of([*lost_tail(), *agent.media(SENTENCE)]))
    assert worker.commit().calls["call-1"]["status"] == "live"


def test_an_end_that_waited_too_long_has_ended_its_stream():
    """Five seconds after an `end`, what is missing before it is given up: it does not come again."""
    worker = Worker().read(log_of(overtaken_by_its_own(late_ms=6_000, scope="call")))
    call = worker.commit().calls["call-1"]
    assert (call["status"], call["end_reason"], call["duration_ms"]) == ("completed", "end", 3_500)
    assert call["talk_ms"] == pytest.approx(1_000, abs=200)
    assert worker.partition.take_skipped()["late"] == 20


def test_a_role_can_change_on_a_stream():
    """An IVR answers, then an agent on the same stream: each has what it said."""
    leg = Leg(layout="customer,ivr")
    both = bytes(byte for pair in zip(quiet(3), SENTENCE, strict=True) for byte in pair)
    sent = leg.media(both)
    leg.layout = "customer,agent"
    store = analyse([*sent, *leg.media(both), leg.send("end")])
    assert [u["role"] for u in store.of()] == ["ivr", "agent"]
    assert store.dead == {}


# -- Twilio
