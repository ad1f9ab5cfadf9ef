"""Garbled media times and numbers: refused alone, believed together."""

import pytest
from telephony import Leg, Worker, analyse, facts, log_of, quiet, unsent, voice

_CALL = quiet(2) + voice(2) + quiet(6) + voice(2) + quiet(8)


def _garbled(sent, number, off_ms, count=1):
    """The records with the media time of some of them off."""
    changed = list(sent)
    for at in range(number, min(number + count, len(sent))):
        media_ms = float(changed[at].headers["media_ms"]) + off_ms
        changed[at] = changed[at]._replace(headers={**changed[at].headers, "media_ms": f"{media_ms:.3f}"})
    return changed


def _call(leg=None):
    leg = leg or Leg()
    return [*leg.media(_CALL), leg.send("end")]


@pytest.mark.parametrize("off_ms", [2**31 / 8, 60_000, 999_000_000])
@pytest.mark.parametrize("number", [30, 75])
def test_one_absurd_media_time_costs_its_record(number, off_ms):
    """The record is dead-lettered with the reason, and the call is as long as it was."""
    whole, store = analyse(_call()).calls["call-1"], analyse(_garbled(_call(), number, off_ms))
    call = store.calls["call-1"]
    assert store.dead == {number: "bad_media_time"}
    assert (call["duration_ms"], call["overlap_ms"]) == (whole["duration_ms"], 0)
    assert call["talk_ms"] == pytest.approx(whole["talk_ms"], abs=100)
    assert call["missing_ms"] <= 200


def test_media_time_that_jumps_for_good_costs_one_record():
    """At a re-INVITE the RTP timestamps go on elsewhere: the second record confirms the first."""
    whole, store = analyse(_call()), analyse(_garbled(_call(), 40, 2**31 / 8, count=1_000))
    assert list(store.dead) == [40]
    assert store.calls["call-1"]["duration_ms"] == pytest.approx(whole.calls["call-1"]["duration_ms"], abs=200)
    assert [u["voiced_start_ms"] for u in store.of()] == [u["voiced_start_ms"] for u in whole.of()]


def test_a_garbled_time_behind_costs_nothing():
    """A packet that is stamped 0 is heard in its turn."""
    whole, store = analyse(_call()), analyse(_garbled(_call(), 40, -8_000))
    assert store.dead == {}
    assert unsent(facts(store)[0]) == unsent(facts(whole)[0])


@pytest.mark.parametrize("off_ms", [2**31 / 8, -5_000])
@pytest.mark.parametrize("count", [1, 1_000])
def test_a_restart_at_any_record_changes_nothing(count, off_ms):
    """What was refused is refused again, and nothing else."""
    log = log_of(_garbled(_call(), 30, off_ms, count))
    steady = Worker().read(log).commit()
    for end in range(20, 60, 3):
        store = Worker().read(log[:end]).commit()
        Worker(store).read(record for record in log if record.position.offset >= store.watermark).commit()
        assert facts(store) == facts(steady)
        assert store.dead == steady.dead


def _numbered(sent, first, ahead, count=1):
    """The records with the numbers of some of them too high."""
    return [
        one._replace(headers={**one.headers, "seq": str(int(one.headers["seq"]) + ahead)})
        if first <= at < first + count
        else one
        for at, one in enumerate(sent)
    ]


@pytest.mark.parametrize("has_media_ms", [True, False])
@pytest.mark.parametrize("ahead", [100, 65_535, 900_000])
def test_one_absurd_number_costs_its_record(ahead, has_media_ms):
    """It does not hold the watermark, and the stream goes on after it, also when it has been silent for a while."""
    leg = Leg(has_media_ms=has_media_ms)
    talk = _numbered(leg.media(_CALL), 30, ahead)
    leg.skip(20_000)
    sent = [*talk, *Leg("other").media(quiet(40)), *leg.media(_CALL), leg.send("end")]
    worker = Worker().read(log_of(sent)[: len(talk)])
    assert worker.commit().watermark > 30
    store = worker.read(log_of(sent)[len(talk) :]).commit()
    assert (store.dead, len(store.of())) == ({30: "bad_header"}, 4)
    assert store.calls["call-1"]["status"] == "completed"


def test_two_absurd_numbers_do_not_confirm_each_other():
    """Each costs its record, and what follows is no copy."""
    store = analyse(_numbered(_numbered(_call(), 30, 5_000), 31, 9_000))
    assert store.dead == {30: "bad_header", 31: "bad_header"}
    assert len(store.of()) == len(analyse(_call()).of())


@pytest.mark.parametrize("chunk_ms", [200, 1_000])
def test_media_time_in_ticks_costs_one_record(chunk_ms):
    """It leaps 48 times as far as the audio is long; the second record confirms the first."""
    sent = [*Leg().media(_CALL, chunk_ms=chunk_ms)]
    ticks = [
        one._replace(headers={**one.headers, "media_ms": f"{48 * float(one.headers['media_ms']):.3f}"}) for one in sent
    ]
    assert len(analyse(ticks).dead) <= 1


def test_a_number_that_was_refused_is_heard_in_its_turn():
    """A number that was refused once comes again in its turn."""
    whole, store = analyse(_call()), analyse(_numbered(_call(), 30, 60))
    assert store.dead == {30: "bad_header"}
    assert [u["voiced_end_ms"] for u in store.of()] == [u["voiced_end_ms"] for u in whole.of()]


def test_numbers_that_jump_for_good_cost_one_record():
    """The second record confirms the first; what is between the numbers was never sent."""
    sent = _call()
    whole, store = analyse(sent), analyse(_numbered(sent, 40, 70_000, count=1_000))
    assert store.dead == {40: "bad_header"}
    assert [u["voiced_start_ms"] for u in store.of()] == [u["voiced_start_ms"] for u in whole.of()]
    assert store.calls["call-1"]["status"] == "completed"


def test_long_losses_are_no_wrong_numbers():
    """Times that are as far ahead as the numbers say that audio is missing."""
    for has_media_ms in (True, False):
        leg = Leg(has_media_ms=has_media_ms)
        sent = leg.media(_CALL)
        leg.lose(60_000)
        store = analyse([*sent, *leg.media(_CALL), leg.send("end")])
        assert store.dead == {}
        assert store.calls["call-1"]["missing_ms"] == 60_000


@pytest.mark.parametrize(("ahead", "count"), [(60, 1), (900_000, 1), (70_000, 1_000)])
def test_a_restart_after_a_wrong_number_changes_nothing(ahead, count):
    """What was refused is refused again, however near its number has come."""
    log = log_of(_numbered(_call(), 30, ahead, count))
    steady = Worker().read(log).commit()
    for end in range(28, len(log), 3):
        store = Worker().read(log[:end]).commit()
        store.watermark = min(store.watermark, 28)  # another call holds it
        Worker(store).read(record for record in log if record.position.offset >= store.watermark).commit()
        assert facts(store) == facts(steady)
        assert store.dead == steady.dead
