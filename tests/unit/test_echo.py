"""The voice of one channel on another one, through the real `Partition`."""

from dataclasses import replace

import numpy as np
import pytest
from telephony import Leg, Worker, analyse, both, facts, is_true, line, log_of, unsent

from callmood.schemas.common import Encoding
from callmood.worker.g711 import encode_pcmu, to_s16
from callmood.worker.records import Prediction, Result
from callmood.worker.settings import Settings
from callmood.worker.speech import echo
from callmood.worker.speech.echo import MAX_LAG_FRAMES, Stretch, Stretches

_AGENT, _CUSTOMER = [(1.0, 3.5), (11.0, 4.0), (21.0, 3.0)], [(6.0, 3.0), (16.0, 3.0)]


def call_with_echo(loss_db: float | None, lag_ms: int = 60, customer=_CUSTOMER) -> bytes:
    """Agent and customer take turns for 26 s; the agent is on the customer's channel too, lower and later."""
    agent, own = line(26, _AGENT, seed=3), line(26, customer, seed=5)
    heard = to_s16(Encoding.PCMU, own).astype(float)
    if loss_db is not None:
        lag = lag_ms * 8
        again = to_s16(Encoding.PCMU, agent).astype(float)[: len(heard) - lag] * 10 ** (-loss_db / 20)
        heard[lag:] += again
    return both(encode_pcmu(np.clip(np.rint(heard), -32768, 32767).astype(np.int16)), agent)


def sent(audio: bytes, chunk_ms: float = 200):
    """The records of the call."""
    leg = Leg(layout="customer,agent")
    return [*leg.media(audio, chunk_ms), leg.send("end")]


@pytest.mark.parametrize("lag_ms", [0, 60, 137, 400])
@pytest.mark.parametrize("loss_db", [8, 12, 20, 26])
def test_the_agent_on_the_customers_channel_is_not_the_customer(loss_db, lag_ms):
    """Talk, overlap, interruptions and emotion are those of the call without the echo."""
    store = analyse(sent(call_with_echo(loss_db, lag_ms)))
    call = store.calls["call-1"]
    customer = call["roles"]["customer"]
    echoes = [utterance for utterance in store.of() if utterance["echo"]]
    assert len(echoes) == 3
    assert {(one["role"], one["kind"], one["withheld"], one["emotion"]) for one in echoes} == {
        ("customer", "not_speech", "echo", None)
    }
    assert is_true(customer["talk_ms"], 6_000)
    assert is_true(call["talk_ms"], 16_500)
    assert (customer["utterances"], customer["other_sounds"], call["overlap_ms"]) == (2, 3, 0)
    assert not any(role["interruptions"]["count"] for role in call["roles"].values())


@pytest.mark.parametrize("lag_ms", [550, 790])
def test_an_echo_from_far_away_is_one(lag_ms):
    """Through a satellite, or two mobile networks."""
    store = analyse(sent(call_with_echo(12, lag_ms, customer=[(7.0, 2.0), (17.0, 2.0)])))
    assert [utterance["echo"] for utterance in store.of() if utterance["role"] == "customer"] == [1, 0, 1, 0, 1]
    assert store.calls["call-1"]["overlap_ms"] == 0


def test_without_an_echo_nobody_is_one():
    """Two people who take turns, or speak at once, keep what they say."""
    at_once = [(start + 0.1, length) for start, length in _AGENT]
    for loss_db, customer in ((None, _CUSTOMER), (None, at_once), (20, at_once)):
        assert not any(one["echo"] for one in analyse(sent(call_with_echo(loss_db, customer=customer))).of())


def test_a_customer_who_speaks_in_the_echo_is_heard():
    """The words count, and no more than the words: a second of echo before them, or after them, is split off."""
    store = analyse(sent(call_with_echo(20, customer=[(2.2, 1.3), (12.2, 1.8), (22.2, 1.3)])))
    said = [one for one in store.of() if one["role"] == "customer"]
    assert [one["echo"] for one in said] == [True, False, True] * 3
    assert [(one["start_ms"], one["end_ms"]) for one in said[1::3]] == [(2200, 3500), (12200, 14000), (22200, 23500)]


@pytest.mark.parametrize("chunk_ms", [20, 200, 1_000, 4_990])
def test_an_echo_is_one_where_its_source_becomes_louder_and_is_split(chunk_ms):
    """The agent is far quieter for 14 s, then goes on; the echo of the end of that closes right before the split."""
    first, then = (to_s16(Encoding.PCMU, line(26, [turn], seed=3)).astype(float) for turn in ((1.0, 13.9), (15.0, 6.0)))
    agent, heard = first * 10 ** (-18 / 20) + then, np.zeros(26 * 8_000)
    heard[round(11.66 * 8_000) : round(14.76 * 8_000)] = agent[round(11.6 * 8_000) : round(14.7 * 8_000)] * 10 ** (
        -8 / 20
    )
    heard += to_s16(Encoding.PCMU, line(26, [], seed=5))
    channels = [encode_pcmu(np.rint(one).astype(np.int16)) for one in (heard, agent)]
    said = [one["echo"] for one in analyse(sent(both(*channels), chunk_ms)).of() if one["role"] == "customer"]
    assert said == [True]


def test_a_customer_who_speaks_all_through_the_echo_is_heard():
    """An utterance that has more than the echo counts."""
    store = analyse(sent(call_with_echo(20, customer=[(1.5, 2.5), (11.5, 3.0), (21.3, 2.5)])))
    assert not any(one["echo"] for one in store.of())


def test_the_channel_that_speaks_is_no_echo_of_its_echo():
    """The louder and earlier one is the speaker, whichever channel it is."""
    assert {one["role"] for one in analyse(sent(call_with_echo(12))).of() if one["echo"]} == {"customer"}


def test_two_equal_channels_are_no_echo():
    """A mono recording on both channels is noticed elsewhere; nothing of it is lower."""
    voice = line(10, [(1.0, 3.0), (6.0, 2.0)])
    assert not any(one["echo"] for one in analyse(sent(both(voice, voice))).of())


def test_a_quieter_copy_of_all_that_a_channel_carries_is_an_echo():
    """A recorder puts one line on both channels, 6 dB lower on one: its noise is a copy, too."""
    voice = to_s16(Encoding.PCMU, line(12, [(1.0, 1.2), (2.5, 1.4), (7.0, 1.0), (8.3, 2.0)]))
    store = analyse(sent(both(encode_pcmu(np.round(voice / 2).astype(np.int16)), encode_pcmu(voice))))
    assert {one["echo"] for one in store.of() if one["role"] == "customer"} == {True}
    assert not any(one["echo"] for one in store.of() if one["role"] == "agent")


@pytest.mark.parametrize("chunk_ms", [20, 50, 1_000, 4_999])
def test_the_length_of_the_records_changes_nothing(chunk_ms):
    """An echo is one in any chunking."""
    audio = call_with_echo(15, 90)
    assert unsent(analyse(sent(audio, chunk_ms)).of()) == unsent(analyse(sent(audio)).of())


def test_a_takeover_at_any_record_changes_nothing():
    """The successor knows the levels of what the source had said."""
    log = log_of(sent(call_with_echo(15, 300)))
    steady = Worker().read(log).commit()
    assert sum(one["echo"] for one in steady.of()) == 3
    for end in range(3, len(log), 7):
        store = Worker().read(log[:end]).commit()
        Worker(store).read(record for record in log if record.position.offset >= store.watermark).commit()
        assert facts(store) == facts(steady)


def test_an_echo_is_heard_by_no_model():
    """Neither the speech check nor the emotion model is asked."""
    worker = Worker().read(log_of(sent(call_with_echo(12))))
    assert [(one.role, one.is_echo) for one in worker.waiting if one.role == "customer"] == [("customer", False)] * 2


def test_an_echo_has_no_emotion_whatever_the_model_says():
    """Its result drops an answer."""
    (first, *_) = Worker(configured=Settings()).read(log_of(sent(call_with_echo(None)))).waiting
    result = Result.of(replace(first, is_echo=True, withheld="echo"), Prediction((0.7, 0.1, 0.1, 0.1)))
    assert (result.prediction, result.is_speech, result.duration_ms) == (None, False, 0)


# -- levels


def test_levels_are_known_from_the_frame_on_at_which_they_were():
    """What was opened later is not looked at, or the chunking would decide."""
    stretches = Stretches()
    stretches.add(Stretch(10, 5, bytes([40, 41, 42])), oldest_frame=0)
    assert list(stretches.levels(4, 9, known_by=9)) == [0, 0, 0, 0, 0]
    assert list(stretches.levels(4, 9, known_by=10)) == [0, 40, 41, 42, 0]
    assert list(stretches.levels(6, 7, known_by=10, more=[Stretch(1, 6, bytes([50]))])) == [50]


def test_a_lost_frame_has_the_level_before_it():
    """Silence that fills a hole is no level of the line; at the beginning, there is nothing before it."""
    frames = np.array([[0, 0], [100, -100], [0, 0], [0, 0], [10, -10]], np.int16)
    assert list(echo.levels_of(frames, [2, 3])) == [0, 40, 40, 40, 20]
    assert list(echo.levels_of(frames, [0])) == [0, 40, 0, 0, 20]


def test_old_levels_are_forgotten():
    """The state does not grow with the call."""
    stretches = Stretches([(0, 0, bytes(10)), (10, 10, bytes(range(5)))])
    stretches.add(Stretch(20, 20, bytes(5)), oldest_frame=12)
    assert stretches.save() == (Stretch(10, 12, bytes([2, 3, 4])), Stretch(20, 20, bytes(5)))


@pytest.mark.parametrize("frames", [echo.MIN_FRAMES - 1, echo.MIN_FRAMES])
def test_a_short_utterance_is_not_judged(frames):
    """Below half a second, two people can be too alike."""
    source = np.random.default_rng(1).integers(40, 80, frames + MAX_LAG_FRAMES).astype(float)
    assert echo.is_echo(source[:frames] - 20, source) is (frames >= echo.MIN_FRAMES)


def computed_in_full(own, other):
    """`is_echo` without its early exits."""
    noise_db = np.percentile(own, 10)
    is_loud = own > noise_db + echo._LOUD_DB
    if len(own) < echo.MIN_FRAMES or is_loud.sum() < echo._MIN_LOUD_FRAMES:
        return False
    lagged = np.lib.stride_tricks.sliding_window_view(other, len(own))
    lost_db = np.median((lagged - own)[:, is_loud], axis=1)
    copied = lagged - lost_db[:, None]
    in_noise = 10 * np.log10(10 ** (copied / 10) + 10 ** (noise_db / 10))
    return any(echo._follows(own, expected, lost_db) for expected in (in_noise, copied))


def test_what_is_ruled_out_early_is_no_echo():
    """Random utterances, and copies with noise, after a lag, with up to 20 dB less, and with frames missing."""
    random, found = np.random.default_rng(7), []
    for _ in range(1_500):
        length, lag = int(random.integers(25, 120)), int(random.integers(0, echo.MAX_LAG_FRAMES))
        other = np.rint(random.uniform(20, random.choice([35, 70]), length + echo.MAX_LAG_FRAMES))
        own = other[echo.MAX_LAG_FRAMES - lag :][:length] - random.choice([4, 5, 12, 20]) + random.normal(0, 1, length)
        own = np.rint(np.maximum(own, random.choice([0, 25])))
        other[: int(random.choice([0, length // 2, length]))] = 0
        other[random.integers(0, len(other), int(random.choice([0, 3])))] = 0
        found.append(echo.is_echo(own, other))
        assert found[-1] == computed_in_full(own, other)
    assert 100 < sum(found) < 1_400


def test_an_echo_may_lack_some_loud_frames_of_its_source():
    """Its source was taken for speech later: two of 80 loud frames have none, and the others are 4 dB louder."""
    own = np.concatenate([np.full(20, 20.0), np.full(2, 30.0), np.tile([32.0, 40.0, 48.0], 26)])
    other = np.concatenate([np.zeros(MAX_LAG_FRAMES), own + 4])
    other[MAX_LAG_FRAMES + 20 : MAX_LAG_FRAMES + 22] = 0
    assert echo.is_echo(own, other)
    assert computed_in_full(own, other)
