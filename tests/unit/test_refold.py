"""Stored utterances, folded again, give the same aggregate and alerts as the call."""

import json
from dataclasses import replace

import pytest

from callmood.schemas.common import EMOTIONS, Encoding, LooksLike, Notice, Role
from callmood.schemas.utterance import Utterance as UtteranceRecord
from callmood.worker.call import aggregate, alert, policy
from callmood.worker.call.refold import refold, result_of
from callmood.worker.call.render import Stamps, Times, utterance_record
from callmood.worker.call.rule import DEFAULT_RULES, Measure, Rule
from callmood.worker.records import Acoustics, Cut, ModelInfo, Position, Prediction, Result, Speech, Utterance
from callmood.worker.settings import PolicySettings

_STAMPS = Stamps(policy.stamp(PolicySettings()), ModelInfo("demo-tiny", "1", "sha256:" + "0" * 64))


def _results():
    """Two parties, a run of anger with probabilities of many digits, doubt, a failure and a long silence."""
    for number in range(24):
        is_customer = number % 2 == 0
        start_ms = number * 4_000 + (60_000 if number > 16 else 0)
        weights = [0.2 + 1 / (3 + number), 0.2, 0.17, 0.05] if number < 14 else [0.1, 0.3, 1 / 3, 0.2]
        share = tuple(weight / sum(weights) for weight in weights)
        reason = {4: "low_confidence", 6: "inference_failed"}.get(number)
        position = Position("audio", 0, number)
        utterance = Utterance(
            id=f"c:0:{number % 2}:{start_ms * 8}", call_id="c", stream="0", channel=number % 2,
            role=Role.CUSTOMER if is_customer else Role.AGENT, start_ms=start_ms, end_ms=start_ms + 4_700,
            capture_end_ms=10**12 + start_ms + 4_700, encoding=Encoding.PCMU, rate_hz=8_000, audio=b"\xff" * 80,
            cut=Cut.SILENCE, missing_ms=20 * (number == 3), overlap_ms=0,
            acoustics=Acoustics(-20.123456 - number, 20.0, 0.0, 3_400), first=position, last=position,
            withheld=None if is_customer else "policy:role_agent",
        )  # fmt: skip
        speech = {8: Speech(0.1, 0, 0), 9: Speech(0.2, 0, 0), 10: Speech(0.8, 500, 4_000)}.get(number)
        is_heard = is_customer and number != 8
        yield Result(utterance, Prediction(None if number == 6 else share, reason) if is_heard else None, speech)


def test_a_stored_call_is_judged_as_it_was_live():
    """The aggregate and the alerts from the published JSON equal those of the live call, but for its version."""
    state, judged, alerts, stored = aggregate.Aggregate("c"), alert.Memory(), [], []
    state = aggregate.start(state, started_at_ms=10**12)
    state = aggregate.describe(state, attributes={"queue": "billing"}, notice=Notice.GIVEN)
    for number, result in enumerate(_results(), 1):
        state = aggregate.fold(state, result)
        judged, raised = alert.evaluate(DEFAULT_RULES, judged, state, result if result.is_speech else None)
        alerts += raised
        record = UtteranceRecord.model_validate(utterance_record(result, number, _STAMPS, None))
        stored.append(json.loads(record.model_dump_json()))
    state = aggregate.finish(state, reason="end", end_ms=200_000)
    alerts += alert.evaluate(DEFAULT_RULES, judged, state)[1]
    assert {one["rule"] for one in alerts} >= {"long_silence", "negative_run"}

    call = aggregate.summary(state, policy=_STAMPS.policy, model=_STAMPS.model)
    again = refold(call, reversed(stored))
    assert again.alerts == alerts
    summary = aggregate.summary(again.aggregate, policy=_STAMPS.policy, model=_STAMPS.model)
    assert {**summary, "version": 0} == {**call, "version": 0}


def test_other_rules_find_other_things_in_the_same_call():
    """A rule that did not exist when the call was made is judged as if it had."""
    rule = Rule(name="quick", measure=Measure.NEGATIVE_RUN, role=Role.CUSTOMER, raise_at=1, clear_at=0)
    stored = [
        json.loads(UtteranceRecord.model_validate(utterance_record(result, number, _STAMPS, None)).model_dump_json())
        for number, result in enumerate(_results(), 1)
    ]
    call = aggregate.summary(aggregate.Aggregate("c"), policy=_STAMPS.policy, model=None)
    assert [one["rule"] for one in refold(call, stored, [rule]).alerts][:1] == ["quick"]
    assert len(EMOTIONS) == len(stored[0]["emotion"]["probabilities"])


def test_a_stored_utterance_of_an_earlier_version_counts_as_speech():
    """Without the speech check's fields, all of it is talk."""
    names = ("kind", "speech_probability", "speech_start_ms", "speech_end_ms")
    result = next(_results())
    record = {name: value for name, value in utterance_record(result, 1, _STAMPS, None).items() if name not in names}
    call = aggregate.summary(aggregate.Aggregate("c"), policy=_STAMPS.policy, model=None)
    (role,) = refold(call, [record]).aggregate.roles.values()
    assert (role.talk_ms, role.other_sounds, role.other_sound_ms) == (4_700, 0, 0)


_TOLD = Utterance(
    id="c:0:1:3680", call_id="c", stream="0", channel=1, role=Role.CUSTOMER, start_ms=460, end_ms=1_860,
    capture_end_ms=10**12, encoding=Encoding.PCMA, rate_hz=16_000, audio=b"sound", cut=Cut.FORCED, missing_ms=20,
    overlap_ms=30, acoustics=Acoustics(-23.5, 31.0, 0.001, 3_400), first=Position("audio", 1, 4),
    last=Position("audio", 1, 9), withheld=None, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    voiced_start_ms=500, voiced_end_ms=1_700, spoken_at_ms=10**12, attributes={"queue": "sales"},
    looks_like=LooksLike.PCMU,
)  # fmt: skip
_ANSWER, _PART = Prediction((0.1, 0.2, 0.65, 0.05), "low_confidence"), Speech(0.9, 100, 1_100)


@pytest.mark.parametrize(
    ("result", "speech"),
    [
        (Result(_TOLD, _ANSWER, _PART), _PART),
        (Result(_TOLD, Prediction(None, "inference_failed")), None),
        (Result(replace(_TOLD, is_echo=True, withheld="echo"), None, _PART), Speech(0.9, 0, 0)),
        (Result(replace(_TOLD, withheld="background"), None, _PART, is_background=True), Speech(0.9, 0, 0)),
        (Result(replace(_TOLD, withheld="not_speech"), None, Speech(0.1, 0, 0)), Speech(0.1, 0, 0)),
    ],
)
def test_a_record_gives_back_the_result_that_it_was_made_of(result, speech):
    """All but the audio, its capture and its place on Kafka; of what is no speech, only the probability."""
    record = UtteranceRecord.model_validate(utterance_record(result, 3, _STAMPS, Times(0, 0, 0))).model_dump_json()
    left_out = {"capture_end_ms": 0, "encoding": Encoding.S16LE, "rate_hz": 8_000, "audio": b"", "traceparent": None}
    utterance = replace(result.utterance, **left_out, first=Position("", 0, 0), last=Position("", 0, 0))
    assert result_of(json.loads(record)) == replace(result, utterance=utterance, speech=speech)
