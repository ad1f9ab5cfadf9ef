"""Garbled media times: refused alone, believed together."""

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
