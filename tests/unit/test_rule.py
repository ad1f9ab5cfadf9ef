"""Alert rules that apply to some calls only, and not at every hour."""

from datetime import UTC, datetime

import pytest

from callmood.schemas.common import EMOTIONS, Emotion, Encoding, Role
from callmood.worker.call import aggregate, alert
from callmood.worker.call.rule import Measure, Rule, parse_rules
from callmood.worker.errors import ConfigurationError
from callmood.worker.records import Acoustics, Cut, Position, Prediction, Result, Utterance

RULE = """[quiet_line]
measure = "silence"
raise_at = 20
clear_at = 0
"""


@pytest.fixture
def angry_call():
    """Utterances of an angry customer, one every so often."""

    def results(count, step_ms):
        position, angry = Position("audio", 0, 0), Prediction(tuple(float(e is Emotion.ANGER) for e in EMOTIONS))
        return [
            Result(
                Utterance(
                    id=f"c:0:0:{start_ms}", call_id="c", stream="0", channel=0, role=Role.CUSTOMER, start_ms=start_ms,
                    end_ms=start_ms + 4_000, capture_end_ms=0, encoding=Encoding.PCMU, rate_hz=8_000, audio=b"",
                    cut=Cut.SILENCE, missing_ms=0, overlap_ms=0, acoustics=Acoustics(-20.0, 20.0, 0.0, 3_400),
                    first=position, last=position, withheld=None,
                ),
                angry,
            )
            for start_ms in range(0, count * step_ms, step_ms)
        ]  # fmt: skip

    return results


def ms(text):
    """A time in UTC, ms since 1970."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_rule_applies_to_the_calls_that_it_names():
    """Each attribute must have one of its values; without `where` every call is watched."""
    (rule,) = parse_rules(RULE + "where = {queue = ['billing', 'sales'], language = ['de']}\n")
    assert rule.may_raise({"queue": "sales", "language": "de", "agent": "Kim"}, 0)
    assert not rule.may_raise({"queue": "support", "language": "de"}, 0)
    assert not rule.may_raise({"queue": "sales"}, 0)
    (everywhere,) = parse_rules(RULE)
    assert everywhere.may_raise({}, 0)


def test_quiet_hours_are_those_of_the_time_zone():
    """They may pass midnight, their end is not quiet any more, and summer time counts."""
    (rule,) = parse_rules(RULE + 'quiet = ["22:00-06:30", "12:00-13:00"]\ntime_zone = "Europe/Berlin"\n')
    quiet = ["2026-01-15T21:00", "2026-01-15T23:30", "2026-01-16T05:29", "2026-01-15T11:00", "2026-07-15T20:00"]
    loud = ["2026-01-15T20:59", "2026-01-16T05:30", "2026-01-15T12:00", "2026-07-15T19:59"]
    assert [rule.may_raise({}, ms(at)) for at in quiet] == [False] * len(quiet)
    assert [rule.may_raise({}, ms(at)) for at in loud] == [True] * len(loud)


@pytest.mark.parametrize("at_ms", [-(10**18), -1, 10**15, 10**18])
def test_a_gateways_odd_clock_stops_no_rule(at_ms):
    """A time that no calendar has is not quiet, and is no error."""
    (rule,) = parse_rules(RULE + 'quiet = ["22:00-23:00"]\n')
    assert rule.may_raise({}, at_ms)


def test_an_episode_that_begins_in_quiet_hours_is_raised_after_them(angry_call):
    """The measure counts all the time; only the alert waits, and it is cleared at any hour."""
    rule = Rule(
        name="run", measure=Measure.NEGATIVE_RUN, role=Role.CUSTOMER, raise_at=2, clear_at=0, quiet=("08:00-08:01",)
    )
    memory, alerts, raised = alert.Memory(), [], []
    state = aggregate.start(aggregate.Aggregate("c"), started_at_ms=ms("2026-01-15T08:00"))
    for result in angry_call(6, step_ms=20_000):
        state = aggregate.fold(state, result)
        memory, alerts = alert.evaluate([rule], memory, state, result)
        raised += alerts
    assert [one["raised_at_ms"] >= ms("2026-01-15T08:01") for one in raised] == [True]
    assert raised[0]["value"] == 4.0


def test_two_rules_of_one_name_are_refused():
    """An alert's id has the name of its rule: two rules would raise and clear the same alert."""
    with pytest.raises(ConfigurationError, match="'quiet_line' is the name of two rules"):
        parse_rules(RULE + RULE.replace("[quiet_line]", "[other]\nname = 'quiet_line'"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("where = {qeue = ['a']}", r"line 5: \[quiet_line\] where.qeue: Input should be 'queue'"),
        ("where.queue = []", r"line 5: \[quiet_line\] where.queue: .* at least 1"),
        ("where = {queue = 'a'}", r"line 5: \[quiet_line\] where.queue"),
        ("quiet = ['22-6']", r"line 5: \[quiet_line\] quiet.0: .*write hours as 22:00-07:00"),
        ("quiet = ['24:00-06:00']", "write hours as 22:00-07:00"),
        ("quiet = ['06:00-06:00']", "use two different times"),
        ("quiet = [6]", "write hours as 22:00-07:00"),
        ("time_zone = 'Europe/Berlim'", r"line 5: \[quiet_line\] time_zone: .*'Europe/Berlim' is not a time zone"),
        ("time_zone = '../../etc/passwd'", "is not a time zone"),
        ("time_zone = 1", "is not a time zone"),
    ],
)
def test_a_wrong_filter_is_refused_with_its_line(more, message):
    """The message names the line, the rule and the field."""
    with pytest.raises(ConfigurationError, match=message):
        parse_rules(f"{RULE}{more}\n")
