"""Rules over a call: when an alert is raised, and when it is not."""

from pathlib import Path

import msgspec
import pytest

from callmood.schemas.alert import Alert
from callmood.schemas.common import EMOTIONS, Emotion, Encoding, Role
from callmood.worker.call import aggregate, alert
from callmood.worker.call import rule as rules
from callmood.worker.call.rule import DEFAULT_RULES, Measure, Rule, parse_rules
from callmood.worker.errors import ConfigurationError
from callmood.worker.records import Acoustics, Cut, Position, Prediction, Result, Utterance

_A, _N, _H = Emotion.ANGER, Emotion.NEUTRAL, Emotion.HAPPINESS
_NEGATIVE = Rule(name="negative", measure=Measure.NEGATIVITY, role=Role.CUSTOMER, raise_at=3, clear_at=1)
_RUN = Rule(name="run", measure=Measure.NEGATIVE_RUN, role=Role.CUSTOMER, raise_at=3, clear_at=0)
_SILENCE = Rule(name="silence", measure=Measure.SILENCE, raise_at=20, clear_at=0, cooldown_s=60)
_INTERRUPTIONS = Rule(name="rude", measure=Measure.INTERRUPTIONS, raise_at=2, clear_at=0, window_s=30)


def _result(role, start_ms, end_ms, label=None, reason=None):
    prediction = label and Prediction(tuple(1.0 if e is label else 0.0 for e in EMOTIONS), reason)
    position = Position("audio", 0, 0)
    return Result(
        Utterance(
            id=f"c:0:0:{start_ms}", call_id="c", stream="0", channel=list(Role).index(role), role=role,
            start_ms=start_ms, end_ms=end_ms, capture_end_ms=0, encoding=Encoding.PCMU, rate_hz=8_000, audio=b"",
            cut=Cut.SILENCE, missing_ms=0, overlap_ms=0, acoustics=Acoustics(-20.0, 20.0, 0.0, 3_400), first=position,
            last=position, withheld=None,
        ),
        prediction,
    )  # fmt: skip


def _customer(*labels, step_ms=10_000, length_ms=4_000, from_ms=0):
    return [
        _result(Role.CUSTOMER, from_ms + n * step_ms, from_ms + n * step_ms + length_ms, label)
        for n, label in enumerate(labels)
    ]


def _judge(rules, results, *, end_ms=None, store=lambda state: state):
    """All alerts of a call; `store` is what happens to the states between two utterances."""
    call, state, alerts = aggregate.start(aggregate.Aggregate("c"), started_at_ms=1_000_000), alert.Memory(), []
    for result in results:
        call, state = store(aggregate.fold(call, result)), store(state)
        state, raised = alert.evaluate(rules, state, call, result)
        alerts.extend(raised)
    if end_ms is not None:
        call = aggregate.finish(call, reason="end", end_ms=end_ms)
        alerts.extend(alert.evaluate(rules, state, call)[1])
    return [Alert.model_validate(raised) for raised in alerts]


def _stored(state):
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=type(state))


def test_a_negative_minute_raises_one_alert():
    """Anger that goes on is one episode, however long, and says since when."""
    (raised,) = _judge([_NEGATIVE], _customer(_N, _A, _A, _A, _A, _A, _A, _A, _A))
    assert (raised.alert_id, raised.since_ms, raised.raised_ms) == ("c:negative:1", 10_000, 24_000)
    assert (raised.value, raised.threshold, raised.raised_at_ms) == (3.333, 3.0, 1_024_000)
    assert raised.utterance_id == "c:0:0:20000"
    assert raised.message == "customer negative: 3.3 of 5 over the last 60 s"


def test_two_labels_are_too_few():
    """A rule with min_labels says nothing before it has them."""
    assert _judge([_NEGATIVE], _customer(_A, _A)) == []


def test_old_anger_does_not_count():
    """Labels that left the window are forgotten."""
    assert _judge([_NEGATIVE], _customer(_A, _A, step_ms=5_000) + _customer(_A, from_ms=80_000)) == []


def test_a_label_counts_as_long_as_it_reaches_into_the_window():
    """An utterance that began before the window and ended in it counts; one that ended where it begins does not."""
    recent = _customer(_A, _A, from_ms=52_000)
    assert len(_judge([_NEGATIVE], [_result(Role.CUSTOMER, 0, 6_001, _A), *recent])) == 1
    assert _judge([_NEGATIVE], [_result(Role.CUSTOMER, 0, 6_000, _A), *recent]) == []


def test_long_utterances_weigh_more_than_short_ones():
    """The window is weighted by duration: short yeses do not outvote a long complaint."""
    complaint = _result(Role.CUSTOMER, 0, 14_000, _A)
    assert len(_judge([_NEGATIVE], [complaint, *_customer(_H, _H, from_ms=15_000, step_ms=2_000, length_ms=500)])) == 1


def test_a_second_episode_needs_calm_and_the_cool_down():
    """Falling to clear_at ends the episode; a new one is raised only after the cool-down, with the next number."""
    calm, angry = [_N] * 7, [_A] * 7
    soon = _judge([_NEGATIVE], _customer(*angry, *calm))
    assert [raised.episode for raised in soon] == [1]
    later = _judge([_NEGATIVE], _customer(*angry, *calm, *angry))
    assert [raised.alert_id for raised in later] == ["c:negative:1", "c:negative:2"]
    assert later[1].raised_ms - later[0].raised_ms >= 120_000
    patient = _NEGATIVE.model_copy(update={"cooldown_s": 600.0})
    assert len(_judge([patient], _customer(*angry, *calm, *angry))) == 1


def test_hovering_around_the_threshold_raises_once():
    """Between clear_at and raise_at nothing happens: the alert does not flap."""
    rule = _NEGATIVE.model_copy(update={"cooldown_s": 1.0, "window_s": 29.0, "raise_at": 4.0})
    assert len(_judge([rule], _customer(*[_A, _A, _A, _N] * 6))) == 1


def test_falling_to_clear_at_ends_an_episode():
    """One neutral label ends a run of negative ones at its limit of 0: the next run is an episode of its own."""
    rule = _RUN.model_copy(update={"cooldown_s": 1.0})
    raised = _judge([rule], _customer(_A, _A, _A, _N, _A, _A, _A))
    assert [(one.episode, one.since_ms) for one in raised] == [(1, 0), (2, 40_000)]


def test_the_cool_down_ends_to_the_millisecond():
    """A run that comes back is raised at the end of the cool-down, and not a millisecond before it."""
    labels = (_A, _A, _A, _N, _A, _A, _A)  # raised at 24 s; the second run is known at 64 s
    for cooldown_s, episodes in ((40.0, 2), (40.001, 1)):
        rule = _RUN.model_copy(update={"cooldown_s": cooldown_s})
        assert len(_judge([rule], _customer(*labels))) == episodes


def test_a_run_counts_any_negative_label_and_ignores_doubt():
    """Anger and sadness make one run; an utterance the model abstained from does not break it."""
    said = _customer(_A, Emotion.SADNESS)
    said.append(_result(Role.CUSTOMER, 20_000, 22_000, _H, "low_confidence"))
    said += _customer(_A, from_ms=30_000)
    (raised,) = _judge([_RUN], said)
    assert (raised.value, raised.since_ms) == (3.0, 0)


def test_a_role_without_emotion_raises_nothing_about_it():
    """What the policy withholds cannot be alerted on."""
    assert _judge([_RUN, _NEGATIVE], [_result(Role.AGENT, n * 5_000, n * 5_000 + 4_000) for n in range(9)]) == []


def test_another_roles_labels_do_not_count():
    """A rule for customers does not hear the mixed channel."""
    said = [_result(Role.MIXED, n * 5_000, n * 5_000 + 4_000, _A) for n in range(5)]
    assert _judge([_RUN, _NEGATIVE], said) == []
    anyone = _RUN.model_copy(update={"role": None})
    assert len(_judge([anyone], said)) == 1


def test_a_rule_for_any_role_judges_labels_in_the_order_of_time():
    """A happy answer of one role ends the negative run of another, although roles are remembered apart."""
    said = [
        _result(role, n * 10_000, n * 10_000 + 4_000, label)
        for n, (role, label) in enumerate(
            ((Role.CUSTOMER, _A), (Role.MIXED, _A), (Role.CUSTOMER, _H), (Role.MIXED, _A), (Role.MIXED, _A))
        )
    ]
    assert _judge([_RUN.model_copy(update={"role": None})], said) == []


def test_each_long_silence_is_an_episode():
    """A silence alert begins with the silence, is raised at its limit, and comes once for each."""
    said = [_result(Role.AGENT, start_ms, start_ms + 1_000) for start_ms in (0, 25_000, 150_000, 160_000, 200_000)]
    raised = _judge([_SILENCE.model_copy(update={"cooldown_s": 1.0})], said, end_ms=201_000)
    assert [(one.episode, one.since_ms, one.raised_ms, one.value) for one in raised] == [
        (1, 1_000, 21_000, 24.0),
        (2, 26_000, 46_000, 124.0),
        (3, 161_000, 181_000, 39.0),
    ]


def test_a_silence_is_too_long_once_it_reaches_the_limit():
    """A silence of exactly `raise_at` raises its alert, one of a millisecond less does not."""
    said = [_result(Role.AGENT, 0, 1_000)]
    assert [one.value for one in _judge([_SILENCE], said, end_ms=21_000)] == [20.0]
    assert _judge([_SILENCE], said, end_ms=20_999) == []


def test_the_cool_down_delays_the_alert_of_a_silence_that_outlasts_it():
    """Of two silences close to each other, the second is raised once the cool-down is over, if it still lasts."""
    said = [_result(Role.AGENT, start_ms, start_ms + 1_000) for start_ms in (0, 25_000, 150_000)]
    assert [one.raised_ms for one in _judge([_SILENCE], said, end_ms=151_000)] == [21_000, 81_000]
    said = [_result(Role.AGENT, start_ms, start_ms + 1_000) for start_ms in (0, 25_000, 80_000)]
    assert [one.raised_ms for one in _judge([_SILENCE], said, end_ms=81_000)] == [21_000]


def test_the_last_silence_is_judged_at_the_end():
    """A call that ends in silence raises the alert when it ends."""
    said = [_result(Role.AGENT, 0, 1_000)]
    assert _judge([_SILENCE], said) == []
    (raised,) = _judge([_SILENCE], said, end_ms=40_000)
    assert (raised.value, raised.utterance_id) == (39.0, None)


def test_a_silence_that_a_long_answer_filled_raises_nothing():
    """The short "yes" inside a long answer is decided first, and must not make a silence of the answer."""
    said = [
        _result(Role.AGENT, 0, 1_000),
        _result(Role.CUSTOMER, 28_000, 28_500),
        _result(Role.AGENT, 15_000, 29_500),
        _result(Role.AGENT, 65_000, 66_000),
    ]
    (raised,) = _judge([_SILENCE], said, end_ms=70_000)
    assert raised.since_ms == 29_500


def test_interruptions_are_counted_in_their_window():
    """Two interruptions within the window raise; the same two far apart do not."""
    near = [_result(Role.AGENT, 0, 5_000), _result(Role.CUSTOMER, 3_000, 8_000), _result(Role.AGENT, 6_000, 9_000)]
    (raised,) = _judge([_INTERRUPTIONS], near)
    assert (raised.value, raised.message) == (2.0, "2 interruptions by any role in the last 30 s")
    far = [*near[:2], _result(Role.CUSTOMER, 60_000, 64_000), _result(Role.AGENT, 62_000, 66_000)]
    assert _judge([_INTERRUPTIONS], far) == []
    agents = _INTERRUPTIONS.model_copy(update={"role": Role.AGENT})
    assert _judge([agents], near) == []


def test_an_interruption_counts_to_the_end_of_its_window():
    """Two interruptions count together if the second becomes known within the window after the first."""
    first = [_result(Role.AGENT, 0, 5_000), _result(Role.CUSTOMER, 3_000, 8_000)]
    for end_ms, alerts in ((38_000, 1), (38_001, 0)):
        second = [_result(Role.CUSTOMER, 34_000, 36_000), _result(Role.AGENT, 35_000, end_ms)]
        assert len(_judge([_INTERRUPTIONS], first + second)) == alerts


def test_the_newest_labels_are_remembered():
    """After more labels than are remembered, a run of negative ones still raises an alert."""
    (raised,) = _judge([_RUN], _customer(*[_N] * 70, _A, _A, _A))
    assert (raised.value, raised.since_ms) == (3.0, 700_000)


def test_the_newest_interruptions_are_remembered():
    """After more interruptions than are remembered, two close to each other still raise an alert."""
    apart = [
        result
        for at_ms in range(0, 70 * 60_000, 60_000)
        for result in (_result(Role.AGENT, at_ms, at_ms + 5_000), _result(Role.CUSTOMER, at_ms + 3_000, at_ms + 8_000))
    ]
    assert _judge([_INTERRUPTIONS], apart) == []
    (raised,) = _judge([_INTERRUPTIONS], [*apart, _result(Role.AGENT, 69 * 60_000 + 7_000, 69 * 60_000 + 9_000)])
    assert (raised.value, raised.since_ms) == (2.0, 69 * 60_000 + 8_000)


def test_alerts_survive_storage_between_any_two_utterances():
    """Packing and unpacking the states changes no alert."""
    said = _customer(*[_A] * 7, *[_N] * 7, *[_A] * 7)
    rules = [_NEGATIVE, _RUN, _SILENCE, _INTERRUPTIONS]
    stored = _judge(rules, said, store=_stored)
    assert stored == _judge(rules, said) != []


def test_the_state_of_a_call_without_end_stays_small():
    """Never more than the newest 64 labels of a role and 64 interruptions are remembered."""
    call, state = aggregate.Aggregate("c"), alert.Memory()
    for number in range(2_000):
        role = (Role.CUSTOMER, Role.AGENT)[number % 2]
        result = _result(role, number * 1_000, number * 1_000 + 1_600, _A if number % 2 == 0 else None)
        call = aggregate.fold(call, result)
        state, _ = alert.evaluate(DEFAULT_RULES, state, call, result)
    assert len(msgspec.msgpack.encode(state)) < 3_000


def test_rules_are_data():
    """Rules read from TOML are the rules written in Python."""
    text = """
    [negative]
    measure = "negativity"
    role = "customer"
    raise_at = 3
    clear_at = 1
    """
    assert parse_rules(text) == (_NEGATIVE,)


@pytest.mark.parametrize(
    "text",
    [
        "[[[",
        "a = 1",
        '[a]\nmeasure = "mood"\nraise_at = 2\nclear_at = 1',
        '[a]\nmeasure = "silence"\nraise_at = 2\nclear_at = 1',
        '[a]\nmeasure = "negativity"\nraise_at = 2\nclear_at = 2',
        '[a]\nmeasure = "negative_run"\nraise_at = 65\nclear_at = 2',
        '[a]\nmeasure = "negativity"\nraise_at = 2\nclear_at = 1\nwindow = 60',
        '[a]\nmeasure = "negativity"\nraise_at = 2\nclear_at = 1\ncooldown_s = 0',
        '[a]\nmeasure = "negativity"\nraise_at = 6\nclear_at = 1',
        '[a]\nmeasure = "negativity"\nraise_at = -4\nclear_at = -6',
        '[a]\nmeasure = "negativity"\nraise_at = nan\nclear_at = 1',
        '[a]\nmeasure = "negativity"\nraise_at = 2\nclear_at = 1\nmin_labels = 65',
        '[a]\nmeasure = "silence"\nraise_at = 30\nclear_at = 0\ncooldown_s = inf',
        '[a]\nmeasure = "silence"\nraise_at = inf\nclear_at = 0',
        '[a]\nmeasure = "silence"\nraise_at = 1e300\nclear_at = 0',
        '[a]\nmeasure = "silence"\nraise_at = 30\nclear_at = 0\nwindow_s = nan',
        '[a]\nmeasure = "negative_run"\nraise_at = 3\nclear_at = -1',
        '[a]\nmeasure = "interruptions"\nraise_at = 3\nclear_at = -1',
    ],
)
def test_a_rule_that_cannot_work_is_refused(text):
    """Wrong TOML, unknown words, and figures that contradict each other are errors of the configuration."""
    with pytest.raises(ConfigurationError):
        parse_rules(text)


def test_every_measure_is_complete():
    """A measure has a range, a reading, a message, and a row in docs/aggregates.md."""
    text = (Path(__file__).parents[2] / "docs" / "aggregates.md").read_text(encoding="utf-8")
    for known in (rules._RANGES, alert._READ, alert._MESSAGES):
        assert set(known) == set(Measure)
    assert [measure for measure in Measure if f"| `{measure}` |" not in text] == []


def test_the_rules_of_the_documentation_work():
    """The TOML in docs/aggregates.md can be used as it stands, and its table lists the default rules."""
    text = (Path(__file__).parents[2] / "docs" / "aggregates.md").read_text(encoding="utf-8")
    (rule,) = parse_rules(text.split("```toml", 1)[1].split("```", 1)[0])
    assert (rule.name, rule.window_s) == ("angry_for_long", 120)
    for default in DEFAULT_RULES:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{default.name}` |"))
        assert f"| {default.raise_at:g}" in row
        assert f"| {default.severity} |" in row


def test_a_label_that_reaches_into_the_window_counts():
    """A long utterance that began before the window is part of the last minute."""
    rule = Rule(name="n", measure=Measure.NEGATIVITY, raise_at=3, clear_at=1, window_s=10, min_labels=2)
    said = [_result(Role.CUSTOMER, 0, 9_000, _A), _result(Role.CUSTOMER, 9_500, 12_000, _A)]
    assert len(_judge([rule], said)) == 1


def test_a_run_that_is_broken_clears_its_rule():
    """`clear_at` itself clears, or a rule whose measure cannot fall below it would alert once in a call's life."""
    rule = Rule(name="r", measure=Measure.NEGATIVE_RUN, raise_at=2, clear_at=0, cooldown_s=1)
    assert len(_judge([rule], _customer(_A, _A, _N, _A, _A))) == 2


def test_interruptions_are_known_after_many():
    """The newest 64 are remembered, not the first."""
    rule = Rule(name="i", measure=Measure.INTERRUPTIONS, raise_at=2, clear_at=0, window_s=30, cooldown_s=1)
    said = []
    for n in range(80):
        gap_ms = 40_000 if n < 70 else 8_000
        at_ms = said[-1].utterance.end_ms + gap_ms if said else 0
        said += [_result(Role.CUSTOMER, at_ms, at_ms + 4_000, _N), _result(Role.AGENT, at_ms + 2_000, at_ms + 5_000)]
    (raised,) = _judge([rule], said)
    assert raised.raised_ms > said[140].utterance.start_ms


def test_a_rule_for_any_role_judges_in_the_order_of_time():
    """Labels of two roles are one run, in the order in which they were spoken."""
    rule = Rule(name="r", measure=Measure.NEGATIVE_RUN, raise_at=3, clear_at=0)
    said = [
        _result(role, n * 10_000, n * 10_000 + 4_000, label)
        for n, (role, label) in enumerate(
            [(Role.AGENT, _A), (Role.CUSTOMER, _N), (Role.AGENT, _A), (Role.CUSTOMER, _A), (Role.AGENT, _A)]
        )
    ]
    (raised,) = _judge([rule], said)
    assert raised.since_ms == 20_000
