"""The aggregate of a call: what fold, the life-cycle facts and the risk do."""

import msgspec
import pytest

from callmood.schemas.call import Call
from callmood.schemas.common import EMOTIONS, Emotion, Encoding, Notice, Role
from callmood.worker.call import aggregate, policy, signs
from callmood.worker.records import Acoustics, Cut, ModelInfo, Position, Prediction, Result, Speech, Utterance
from callmood.worker.settings import PolicySettings

_MODEL = ModelInfo("demo-tiny", "1", "sha256:" + "0" * 64)
_POLICY = policy.stamp(PolicySettings())


def _result(role, start_ms, end_ms, label=None, **facts):
    """An utterance that is sure of its label; without one, the policy withheld it."""
    position = Position("audio", 0, 0)
    prediction = label and Prediction(tuple(0.7 if e is label else 0.1 for e in EMOTIONS))
    return Result(
        Utterance(
            id=f"c:0:0:{start_ms}",
            call_id="c",
            stream="0",
            channel=list(Role).index(role),
            role=role,
            start_ms=start_ms,
            end_ms=end_ms,
            capture_end_ms=1_000_000 + end_ms,
            encoding=Encoding.PCMU,
            rate_hz=8_000,
            audio=b"",
            cut=Cut.SILENCE,
            missing_ms=facts.get("missing_ms", 0),
            overlap_ms=0,
            acoustics=Acoustics(facts.get("rms_dbfs", -20.0), 20.0, 0.0, 3_400),
            first=position,
            last=position,
            withheld=None if label else f"policy:role_{role.value}",
        ),
        prediction,
        facts.get("speech"),
    )


def _summary(state):
    return Call.model_validate(aggregate.summary(state, policy=_POLICY, model=_MODEL))


def _call(*results):
    state = aggregate.start(aggregate.Aggregate("c"), started_at_ms=1_000_000)
    for result in results:
        state = aggregate.fold(state, result)
    return state


def test_a_call_of_two_parties_in_figures():
    """Talk, shares, overlap, silence and interruptions of a short call are what one counts by hand."""
    call = _summary(
        _call(
            _result(Role.AGENT, 1_000, 5_000),
            _result(Role.CUSTOMER, 4_000, 8_000, Emotion.ANGER),
            _result(Role.AGENT, 10_000, 12_000),
        )
    )
    assert (call.duration_ms, call.talk_ms, call.non_talk_ms) == (12_000, 9_000, 3_000)
    assert (call.longest_silence_ms, call.overlap_ms, call.utterances) == (2_000, 1_000, 3)
    agent, customer = call.roles[Role.AGENT], call.roles[Role.CUSTOMER]
    assert (agent.talk_ms, agent.talk_share, agent.utterances) == (6_000, 0.6, 2)
    assert (customer.interruptions.count, customer.interruptions.total_ms) == (1, 1_000)
    assert agent.interruptions.count == 0


def test_emotion_is_null_for_a_role_that_is_never_heard():
    """A role that the policy withholds has dynamics and loudness, and no emotion."""
    call = _summary(_call(_result(Role.AGENT, 0, 1_000), _result(Role.CUSTOMER, 0, 1_000, Emotion.NEUTRAL)))
    assert call.roles[Role.AGENT].emotion is None
    assert call.roles[Role.AGENT].loudness is not None
    assert call.roles[Role.CUSTOMER].emotion.counts.neutral == 1


def test_no_model_is_named_before_one_has_heard_the_call():
    """The model is stamped once an utterance of the call has reached it."""
    assert _summary(_call(_result(Role.AGENT, 0, 1_000))).model is None
    assert _summary(_call(_result(Role.CUSTOMER, 0, 1_000, Emotion.SADNESS))).model.id == "demo-tiny"


def test_loudness_is_mean_power_and_the_loudest_utterance():
    """Levels are averaged as power, weighted by duration: -10 dB and -20 dB for as long make -12.6 dB."""
    call = _summary(
        _call(
            _result(Role.AGENT, 0, 1_000, rms_dbfs=-10.0),
            _result(Role.AGENT, 2_000, 3_000, rms_dbfs=-20.0),
        )
    )
    loudness = call.roles[Role.AGENT].loudness
    assert (loudness.mean_dbfs, loudness.max_dbfs) == (-12.6, -10.0)


def test_missing_audio_is_what_was_concealed_and_what_was_lost():
    """Short gaps inside utterances and long gaps between them add up, and long gaps are no silence."""
    state = aggregate.fold_gap(_call(_result(Role.AGENT, 0, 1_000, missing_ms=40)), start_ms=1_000, end_ms=9_000)
    call = _summary(aggregate.fold(state, _result(Role.AGENT, 9_500, 10_000)))
    assert (call.missing_ms, call.non_talk_ms, call.longest_silence_ms) == (8_040, 500, 500)


def test_a_paused_call_is_redacted_not_silent():
    """What the producer kept from us is neither talk nor silence."""
    state = aggregate.fold_pause(_call(_result(Role.AGENT, 0, 1_000)), start_ms=1_000, end_ms=31_000)
    call = _summary(state)
    assert (call.redacted_ms, call.non_talk_ms, call.duration_ms) == (30_000, 0, 31_000)
    assert call.updated_at_ms == 1_031_000


def test_pauses_gaps_and_holds_have_their_places():
    """Each is a span; what goes on where the newest of its kind ended is one span; the oldest give way.

    What has no length has no place.
    """
    state = aggregate.fold_hold(_call(_result(Role.AGENT, 0, 1_000)), start_ms=2_000, end_ms=5_000)
    state = aggregate.fold_pause(state, start_ms=3_000, end_ms=4_000)
    state = aggregate.fold_hold(state, start_ms=5_000, end_ms=9_000)
    state = aggregate.fold_gap(state, start_ms=9_000, end_ms=9_500)
    state = aggregate.fold_pause(state, start_ms=9_700, end_ms=9_700)
    spans = [(span.kind, span.start_ms, span.end_ms) for span in _summary(state).spans]
    assert spans == [("hold", 2_000, 9_000), ("pause", 3_000, 4_000), ("gap", 9_000, 9_500)]
    for number in range(100):
        state = aggregate.fold_gap(state, start_ms=10_000 + 10 * number, end_ms=10_005 + 10 * number)
    found = _summary(state).spans
    assert (len(found), found[-1].end_ms) == (64, 10_995)


def test_a_call_lives_until_it_is_finished():
    """The status follows the end: live, then completed, and failed only when there was no audio."""
    state = _call(_result(Role.AGENT, 0, 1_000))
    assert _summary(state).status == "live"
    ended = _summary(aggregate.finish(state, reason="end", end_ms=4_000))
    assert (ended.status, ended.end_reason, ended.non_talk_ms) == ("completed", "end", 3_000)
    assert _summary(aggregate.finish(aggregate.Aggregate("c"), reason="no_audio", end_ms=0)).status == "failed"


def test_what_the_producer_says_is_kept_and_repeating_it_changes_nothing():
    """Attributes merge, the notice is kept, and a description without news returns an equal state."""
    state = aggregate.describe(_call(), attributes={"queue": "billing"}, notice=Notice.GIVEN)
    again = aggregate.describe(state, attributes={"queue": "billing"}, notice=None)
    assert again == state
    changed = aggregate.describe(state, attributes={"agent": "7"}, notice=Notice.NOT_GIVEN)
    call = _summary(changed)
    assert (call.attributes, call.notice) == ({"queue": "billing", "agent": "7"}, Notice.NOT_GIVEN)
    assert call.version == _summary(state).version + 1


def test_attributes_are_bounded():
    """A producer that sends ever new names keeps the first 64, whose values may still change."""
    state = aggregate.describe(_call(), attributes={f"a{n}": "x" for n in range(64)}, notice=None)
    state = aggregate.describe(state, attributes={"a0": "y", "b": "z"}, notice=None)
    assert len(state.attributes) == 64
    assert state.attributes["a0"] == "y"


def test_folding_leaves_the_earlier_state_as_it_was():
    """A state is a value: what was published before a fold still reads the same."""
    before = _call(_result(Role.CUSTOMER, 0, 1_000, Emotion.ANGER))
    copy = _summary(before)
    aggregate.finish(
        aggregate.fold(before, _result(Role.CUSTOMER, 2_000, 90_000, Emotion.ANGER)), reason="end", end_ms=9
    )
    assert _summary(before) == copy


def _risk(*labels):
    results = [_result(Role.CUSTOMER, n * 5_000, n * 5_000 + 4_000, label) for n, label in enumerate(labels)]
    return signs.risk(aggregate.summary(_call(*results), policy=_POLICY, model=_MODEL))


def test_a_calm_call_has_no_risk():
    """Neutral and happy customers, and calls without any emotion, are no risk."""
    assert _risk() == 0
    assert _risk(Emotion.NEUTRAL, Emotion.HAPPINESS, Emotion.NEUTRAL) < 0.01


def test_risk_rises_with_every_angry_answer():
    """A lengthening run of anger raises the risk each time, and never past 1."""
    risks = [_risk(*[Emotion.ANGER] * count) for count in range(6)]
    assert risks == sorted(set(risks))
    assert risks[-1] <= 1


def test_risk_falls_once_the_customer_is_calm_again():
    """What counts is the newest quarter and the running streak, not that there was anger."""
    assert (
        _risk(*[Emotion.ANGER] * 4, *[Emotion.NEUTRAL] * 4) < 0.1 < _risk(*[Emotion.NEUTRAL] * 4, *[Emotion.ANGER] * 4)
    )


def test_of_two_roles_with_emotion_the_worse_one_is_the_risk():
    """A second role that is happy does not hide the first one's anger."""
    angry = [_result(Role.CUSTOMER, n * 10_000, n * 10_000 + 4_000, Emotion.ANGER) for n in range(5)]
    happy = [_result(Role.MIXED, n * 10_000 + 5_000, n * 10_000 + 9_000, Emotion.HAPPINESS) for n in range(5)]
    alone, together = (
        signs.risk(aggregate.summary(_call(*results), policy=_POLICY, model=_MODEL))
        for results in (angry, sorted(angry + happy, key=lambda result: result.utterance.start_ms))
    )
    assert together == pytest.approx(alone, abs=0.01)
    assert together > 0.7


@pytest.mark.parametrize("role", [Role.AGENT, Role.IVR])
def test_silence_and_interruptions_alone_stay_a_small_risk(role):
    """Signs without emotion reach at most their own weights."""
    state = aggregate.fold(_call(), _result(role, 500_000, 501_000))
    assert 0 < signs.risk(aggregate.summary(state, policy=_POLICY, model=None)) <= 0.1


_NOBODY = Speech(0.02, 0, 0)


def test_what_is_not_speech_is_other_sound_and_nothing_else():
    """Hold music on a leg: no talk, no overlap, no interruption, no loudness, no emotion; the silence goes on."""
    call = _summary(
        _call(
            _result(Role.AGENT, 1_000, 5_000),
            _result(Role.AGENT, 6_000, 21_000, speech=_NOBODY, rms_dbfs=-3.0),
            _result(Role.CUSTOMER, 2_000, 4_000, speech=_NOBODY),
            _result(Role.AGENT, 21_000, 36_000, speech=_NOBODY, missing_ms=40),
        )
    )
    assert (call.utterances, call.talk_ms, call.overlap_ms, call.duration_ms) == (1, 4_000, 0, 36_000)
    assert (call.non_talk_ms, call.longest_silence_ms, call.missing_ms) == (32_000, 31_000, 40)
    agent, customer = call.roles[Role.AGENT], call.roles[Role.CUSTOMER]
    assert (agent.utterances, agent.talk_ms, agent.talk_share) == (1, 4_000, 1.0)
    assert (agent.other_sounds, agent.other_sound_ms, agent.loudness.max_dbfs) == (2, 30_000, -20.0)
    assert (customer.utterances, customer.talk_ms, customer.talk_share, customer.loudness) == (0, 0, 0.0, None)
    assert (customer.other_sounds, customer.other_sound_ms, customer.emotion) == (1, 2_000, None)
    assert agent.interruptions.count == customer.interruptions.count == 0
    assert call.model is None


def test_only_the_part_that_counts_is_talk():
    """Music, then a word: the word's time is talk and emotion, the rest is other sound."""
    word = Speech(0.9, 10_000, 11_500)
    call = _summary(
        _call(_result(Role.AGENT, 0, 9_000), _result(Role.CUSTOMER, 1_000, 13_000, Emotion.ANGER, speech=word))
    )
    customer = call.roles[Role.CUSTOMER]
    assert (customer.talk_ms, customer.other_sounds, customer.other_sound_ms) == (1_500, 0, 10_500)
    assert (customer.emotion.durations_ms.anger, customer.emotion.last.end_ms) == (1_500, 12_500)
    assert (call.talk_ms, call.overlap_ms, call.duration_ms) == (10_500, 0, 13_000)


def test_what_a_model_that_was_behind_has_skipped_is_counted():
    """It is talk of its role like any other, has no emotion, and is in `skipped`."""
    spoken, silent = _result(Role.CUSTOMER, 0, 900, Emotion.ANGER), _result(Role.CUSTOMER, 3_000, 3_900, speech=_NOBODY)
    skipped = [
        Result.of(result.utterance, Prediction(None, speech=result.speech, is_skipped=True))
        for result in (_result(Role.CUSTOMER, 1_000, 1_900, Emotion.ANGER), _result(Role.AGENT, 2_000, 2_900))
    ]
    assert [result.utterance.withheld for result in skipped] == ["overloaded", "policy:role_agent"]
    call = _summary(_call(spoken, *skipped, silent))
    customer, agent = call.roles[Role.CUSTOMER], call.roles[Role.AGENT]
    assert (customer.utterances, customer.talk_ms, customer.skipped) == (2, 1_800, 1)
    assert (customer.emotion.utterances, customer.emotion.abstained) == (1, 0)
    assert agent.skipped == 0


def test_a_role_of_an_earlier_version_is_read():
    """A stored state without other sounds goes on from none."""
    stored = aggregate.RoleFigures(3, 4_500, 0.5, -12.0, None, 7, 8_000, 2)
    fields = msgspec.to_builtins(stored)
    assert len(fields) == 8
    assert msgspec.convert(fields[:5], aggregate.RoleFigures) == aggregate.RoleFigures(3, 4_500, 0.5, -12.0)
