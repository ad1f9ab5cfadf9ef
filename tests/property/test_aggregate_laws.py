"""Laws of the aggregate that hold for any call."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmood.schemas.call import Call
from callmood.schemas.common import EMOTIONS, Encoding, Notice, Role
from callmood.schemas.flat import flatten
from callmood.worker.call import aggregate, policy, scores, signs
from callmood.worker.records import Acoustics, Cut, ModelInfo, Position, Prediction, Result, Speech, Utterance
from callmood.worker.settings import PolicySettings

_MODEL = ModelInfo("demo-tiny", "1", "sha256:" + "0" * 64)
_POLICY = policy.stamp(PolicySettings())
_HEARD = (Role.CUSTOMER, Role.MIXED)


@st.composite
def _predictions(draw):
    weights = np.array(draw(st.lists(st.integers(0, 100), min_size=4, max_size=4))) + 0.25
    reason = draw(st.sampled_from((None, None, None, "low_confidence", "inference_failed")))
    return Prediction(None if reason == "inference_failed" else tuple(weights / weights.sum()), reason)


@st.composite
def _verdicts(draw, duration_ms):
    """No check, all of it, a part of it, or nobody."""
    start_ms = draw(st.integers(0, duration_ms - 1))
    part = Speech(0.8, start_ms, draw(st.integers(start_ms + 1, duration_ms)))
    return draw(st.sampled_from((None, Speech(1.0, 0, duration_ms), part, Speech(0.1, 0, 0))))


@st.composite
def _results(draw):
    """Utterances one after the other or in each other's words, with and without emotion."""
    results, at_ms = [], 0
    for number in range(draw(st.integers(0, 30))):
        role = draw(st.sampled_from(Role))
        start_ms = max(0, at_ms + draw(st.integers(-4_000, 20_000)))
        at_ms = start_ms + draw(st.integers(250, 15_000))
        position = Position("audio", 0, number)
        utterance = Utterance(
            id=f"c:{number}", call_id="c", stream=str(number % 2), channel=list(Role).index(role), role=role,
            start_ms=start_ms, end_ms=at_ms, capture_end_ms=10**12 + at_ms, encoding=Encoding.PCMU, rate_hz=8_000,
            audio=b"", cut=Cut.SILENCE, missing_ms=draw(st.sampled_from((0, 20, 200))), overlap_ms=0,
            acoustics=Acoustics(draw(st.floats(-90, 0)), 20.0, 0.0, 3_400), first=position, last=position,
            withheld=None if role in _HEARD else f"policy:role_{role}",
        )  # fmt: skip
        speech = draw(_verdicts(utterance.duration_ms))
        is_heard = role in _HEARD and (speech is None or speech.is_speech)
        results.append(Result(utterance, draw(_predictions()) if is_heard else None, speech))
    return results


def _fold(results, state=None):
    state = aggregate.start(aggregate.Aggregate("c"), started_at_ms=10**12) if state is None else state
    for result in results:
        state = aggregate.fold(state, result)
    return state


def _summary(state):
    return aggregate.summary(state, policy=_POLICY, model=_MODEL)


@given(_results(), st.sampled_from((None, "end", "idle", "no_audio")))
def test_every_aggregate_is_a_legal_record_that_adds_up(results, reason):
    """Any call's summary is call/1, and its parts add up to its wholes."""
    state = _fold(results)
    if reason:
        state = aggregate.finish(state, reason=reason, end_ms=100_000)
    call = Call.model_validate(_summary(state))
    assert flatten(_summary(state)) == flatten(call)  # what the worker writes to Redis without validating it again
    assert call.talk_ms + call.non_talk_ms == call.duration_ms
    assert call.longest_silence_ms <= call.non_talk_ms
    assert call.overlap_ms <= call.talk_ms <= sum(role.talk_ms for role in call.roles.values())
    assert call.missing_ms == sum(result.utterance.missing_ms for result in results)
    for name, role in call.roles.items():
        mine = [result for result in results if result.utterance.role is name]
        said = [result for result in mine if result.is_speech]
        assert role.talk_ms == sum(result.duration_ms for result in said)
        assert role.talk_ms + role.other_sound_ms == sum(result.utterance.duration_ms for result in mine)
        assert (role.utterances, role.other_sounds) == (len(said), len(mine) - len(said))
        assert (role.emotion is not None) == (name in _HEARD and bool(said))
        if role.emotion:
            assert role.emotion.utterances == len(said)
    assert 0 <= signs.risk(_summary(state)) <= 1


@given(_results())
def test_emotion_equals_a_recount_of_all_labels(results):
    """Counts, durations, mean probabilities and overall order equal a recount over the whole list."""
    call = Call.model_validate(_summary(_fold(results)))
    for name in set(_HEARD) & set(call.roles):
        heard = [r for r in results if r.utterance.role is name and r.prediction is not None]
        labelled = [r for r in heard if r.prediction.reason is None]
        shares = np.array([r.prediction.probabilities for r in labelled]).reshape(-1, 4)
        lengths_ms = np.array([r.duration_ms for r in labelled])
        labels = shares.argmax(axis=1)
        emotion = call.roles[name].emotion
        if not heard:
            assert emotion is None
            continue
        for index, label in enumerate(EMOTIONS):
            assert getattr(emotion.counts, label) == (labels == index).sum()
            assert getattr(emotion.durations_ms, label) == lengths_ms[labels == index].sum()
        if not labelled:
            assert emotion.probabilities is None
            continue
        means = [getattr(emotion.probabilities, label) for label in EMOTIONS]
        assert means == pytest.approx(list(np.average(shares, axis=0, weights=lengths_ms)), abs=2e-6)
        assert emotion.last.label == EMOTIONS[labels[-1]]


@given(_results(), st.data())
def test_an_aggregate_survives_storage_at_any_moment(results, data):
    """Packing and unpacking the state in the middle of a call changes nothing of what follows."""
    cut = data.draw(st.integers(0, len(results)))
    state = aggregate.describe(_fold(results[:cut]), attributes={"queue": "q"}, notice=Notice.GIVEN)
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=aggregate.Aggregate)
    assert stored == state
    assert _fold(results[cut:], stored) == _fold(results[cut:], state)


@given(st.lists(st.sampled_from("ahns"), min_size=4, max_size=40), st.integers(1, 500))
def test_the_trend_is_the_least_squares_line(letters, step):
    """The slope equals numpy's fit through the labels at the middles of their bins."""
    emotion, values = scores.Scores(), {"a": -5, "h": 5, "n": 0, "s": -5}
    for number, letter in enumerate(letters):
        certain = tuple(1.0 if label.startswith(letter) else 0.0 for label in EMOTIONS)
        emotion = scores.add(emotion, number * step * 100, number * step * 100 + 50, Prediction(certain))
    bins = np.array([(number * step * 100 + 25) // emotion.bin_ms for number in range(len(letters))])
    trend = scores.summary(emotion, 10**6)["trend"]
    if len(set(bins)) == 1:
        assert trend == {"direction": "steady", "slope_per_min": 0.0}
        return
    minutes = (bins + 0.5) * emotion.bin_ms / 60_000
    slope = np.polyfit(minutes - minutes.mean(), [values[letter] for letter in letters], 1)[0]
    assert trend["slope_per_min"] == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_the_state_of_a_call_without_end_stays_small():
    """After ten thousand utterances of two roles the state is as small as after fifty."""
    state, sizes = aggregate.Aggregate("a" * 36), []
    for number in range(10_000):
        role = (Role.CUSTOMER, Role.AGENT)[number % 2]
        position = Position("audio", 0, number)
        utterance = Utterance(
            id="u", call_id="c", stream="0", channel=number % 2, role=role, start_ms=number * 3_000,
            end_ms=number * 3_000 + 3_500, capture_end_ms=0, encoding=Encoding.PCMU, rate_hz=8_000, audio=b"",
            cut=Cut.SILENCE, missing_ms=0, overlap_ms=0, acoustics=Acoustics(-20.0, 20.0, 0.0, 3_400),
            first=position, last=position, withheld=None,
        )  # fmt: skip
        state = aggregate.fold(state, Result(utterance, Prediction((0.7, 0.1, 0.1, 0.1)) if number % 2 == 0 else None))
        sizes.append(len(msgspec.msgpack.encode(state)))
    assert max(sizes) < 2_000
    assert max(sizes[5_000:]) - max(sizes[100:5_000]) < 100
