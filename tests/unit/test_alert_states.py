"""The states of an alert, and the calls and utterances that it names."""

from dataclasses import replace

import msgspec

from callmood.schemas.call import CallAlert
from callmood.schemas.common import EMOTIONS, Emotion, Encoding, Role
from callmood.worker.call import aggregate, alert
from callmood.worker.call.rule import Measure, Rule
from callmood.worker.records import Acoustics, Cut, Position, Prediction, Result, Utterance

_A, _N = Emotion.ANGER, Emotion.NEUTRAL
_RUN = Rule(name="run", measure=Measure.NEGATIVE_RUN, role=Role.CUSTOMER, raise_at=3, clear_at=0)
_SILENCE = Rule(name="silence", measure=Measure.SILENCE, raise_at=20, clear_at=0, cooldown_s=60)


def _result(role, start_ms, end_ms, label=None):
    position = Position("audio", 0, 0)
    return Result(
        Utterance(
            id=f"c:0:0:{start_ms}", call_id="c", stream="0", channel=0, role=role, start_ms=start_ms, end_ms=end_ms,
            capture_end_ms=0, encoding=Encoding.PCMU, rate_hz=8_000, audio=b"", cut=Cut.SILENCE, missing_ms=0,
            overlap_ms=0, acoustics=Acoustics(-20.0, 20.0, 0.0, 3_400), first=position, last=position, withheld=None,
        ),
        label and Prediction(tuple(1.0 if e is label else 0.0 for e in EMOTIONS)),
    )  # fmt: skip


def _customer(*labels, from_ms=0):
    """Four seconds of speech every ten."""
    starts = range(from_ms, from_ms + 10_000 * len(labels), 10_000)
    return [_result(Role.CUSTOMER, at, at + 4_000, label) for at, label in zip(starts, labels, strict=True)]


def _states(rules, results, *, ended_ms=None):
    """Rule, state and end of each alert, as call/1 has them."""
    call, memory = aggregate.start(aggregate.Aggregate("c"), started_at_ms=0), alert.Memory()
    for result in results:
        call = aggregate.fold(call, result)
        memory, _ = alert.evaluate(
            rules, msgspec.msgpack.decode(msgspec.msgpack.encode(memory), type=alert.Memory), call, result
        )
    found = [CallAlert.model_validate(one) for one in alert.states(memory, "c", ended_ms=ended_ms)]
    return [(one.alert_id, one.state, one.over_ms) for one in found]


def test_an_alert_is_raised_then_cleared_or_ended():
    """It is cleared when the measure has fallen to `clear_at`; one that still holds ends with the call."""
    angry = _customer(_A, _A, _A, _A)
    assert _states([_RUN], angry) == [("c:run:1", "raised", None)]
    assert _states([_RUN], angry, ended_ms=50_000) == [("c:run:1", "ended", 50_000)]
    calm = [*angry, *_customer(_N, from_ms=40_000)]
    assert _states([_RUN], calm) == _states([_RUN], calm, ended_ms=50_000) == [("c:run:1", "cleared", 44_000)]
    again = [*calm, *_customer(_A, _A, _A, from_ms=200_000)]
    assert _states([_RUN], again) == [("c:run:1", "cleared", 44_000), ("c:run:2", "raised", None)]


def test_an_alert_is_over_when_its_measure_has_fallen():
    """Not where the labels begin that show it."""
    bad = Rule(name="bad", measure=Measure.NEGATIVITY, role=Role.CUSTOMER, raise_at=3, clear_at=1, window_s=60)
    calm = _customer(_A, _A, _A, _N, _N, _N, _N, _N, _N)
    assert _states([bad], calm) == [("c:bad:1", "cleared", 74_000)]


def test_a_silence_is_over_when_its_alert_is_raised():
    """Its alert is cleared from the beginning, at the end of the silence."""
    results = [
        _result(Role.AGENT, 0, 1_000),
        *(_result(Role.AGENT, 31_000 + n * 20_000, 45_000 + n * 20_000) for n in range(3)),
    ]
    assert _states([_SILENCE], results) == [("c:silence:1", "cleared", 31_000)]


def test_a_call_remembers_its_newest_alerts():
    """A long call with many episodes does not grow."""
    results = [r for n in range(20) for r in _customer(_A, _A, _A, _N, from_ms=n * 200_000)]
    found = _states([_RUN], results)
    assert [name for name, *_ in found] == [f"c:run:{n}" for n in range(5, 21)]


def test_an_alert_has_the_attributes_of_its_utterance():
    """So that it can be routed; names that are not reserved stay with the call."""
    call = aggregate.describe(aggregate.Aggregate("c"), attributes={"queue": "billing", "colour": "red"}, notice=None)
    results = [replace(r, utterance=replace(r.utterance, attributes={"queue": "sales"})) for r in _customer(_A, _A, _A)]
    memory, raised = alert.Memory(), []
    for result in results:
        call = aggregate.fold(call, result)
        memory, raised = alert.evaluate([_RUN], memory, call, result)
    assert raised[0]["attributes"] == {"queue": "sales"}
    call = aggregate.finish(call, reason="end", end_ms=100_000)
    _, raised = alert.evaluate([_SILENCE], memory, call)
    assert raised[0]["attributes"] == {"queue": "billing"}
