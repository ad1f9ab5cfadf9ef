"""Media time that runs faster than the audio, through the real `Partition`."""

import pytest
from telephony import EPOCH_MS, Leg, Sent, Worker, analyse, both, facts, is_true, line, log_of

_CUSTOMER, _AGENT = [(4.0, 3.0), (12.0, 3.5), (21.0, 4.0)], [(8.0, 3.0), (16.5, 3.5)]


def sent(times, captured=lambda ms: ms, record_ms: int = 20, skipped=()) -> list[Sent]:
    """A call of 28 s: its media times and capture times by the true time in ms; `skipped`: silence that is not sent."""
    leg = Leg(layout="customer,agent")
    audio = both(line(28, _CUSTOMER, seed=3), line(28, _AGENT, seed=5))
    records = []
    for one in (*leg.media(audio, record_ms), leg.send("end")):
        ms = one.at_ms - EPOCH_MS
        if not any(start <= ms < end for start, end in skipped):
            headers = {**one.headers, "seq": str(len(records)), "media_ms": f"{times(ms):.3f}"}
            records.append(one._replace(headers=headers, at_ms=EPOCH_MS + captured(ms)))
    return records


@pytest.mark.parametrize("record_ms", [20, 60, 200])
@pytest.mark.parametrize("faster", [2, 3, 6, 8, 48])
def test_a_media_clock_that_runs_too_fast_is_given_up(faster, record_ms):
    """Samples instead of ms, or a clock of 48 kHz read as one of 8: what is said counts after the first second."""
    call = analyse(sent(lambda ms: faster * ms, record_ms=record_ms)).calls["call-1"]
    assert is_true(call["talk_ms"], 17_000)
    assert (call["overlap_ms"], call["missing_ms"]) == (0, 0)
    assert 28_000 <= call["duration_ms"] < 28_000 + faster * 1_500


@pytest.mark.parametrize(
    ("captured", "skipped"),
    [
        pytest.param(lambda ms: ms, [(15_600, 16_300), (20_100, 20_900), (25_200, 27_800)], id="between turns"),
        pytest.param(lambda ms: ms, [(at, at + 140) for at in range(0, 3_900, 160)], id="comfort noise each 160 ms"),
        pytest.param(lambda ms: ms / 10, [(at, at + 140) for at in range(0, 3_900, 160)], id="sent faster than spoken"),
        pytest.param(lambda _: 0, [(at, at + 140) for at in range(0, 3_900, 160)], id="one timestamp for all"),
        pytest.param(lambda ms: ms / 50 * 20, [(15_600, 16_300), (20_100, 20_900)], id="sent without its pauses"),
    ],
)
def test_silence_that_is_not_sent_keeps_its_length(captured, skipped):
    """A right media clock is believed whatever the capture times say."""
    call = analyse(sent(lambda ms: ms, captured, skipped=skipped)).calls["call-1"]
    assert is_true(call["duration_ms"], 28_000)
    assert is_true(call["talk_ms"], 17_000)
    assert call["missing_ms"] == 0


def test_a_takeover_at_any_record_changes_nothing():
    """The successor knows that the media clock is wrong, or how far that has been seen."""
    log = log_of(sent(lambda ms: 6 * ms))
    steady = Worker().read(log).commit()
    for end in [*range(30, 130, 9), 400, 700, 1_100]:
        store = Worker().read(log[:end]).commit()
        Worker(store).read(record for record in log if record.position.offset >= store.watermark).commit()
        assert facts(store) == facts(steady)
