"""What the wall shows of a call, and why."""

import pytest

from callmood.dashboard.page import rows
from callmood.schemas.common import Emotion

NOTHING = dict.fromkeys(rows.FIELDS)
CALM = NOTHING | {"status": "live", "duration_ms": "60000", "updated_at_ms": "1750000060000", "non_talk_ms": "5000"}


def customer(**emotion):
    return {f"roles.customer.emotion.{name.replace('__', '.')}": text for name, text in emotion.items()}


REASONS = {
    "anger 4 times in a row": customer(streak__label="anger", streak__count="4"),
    "sadness 3 times in a row": customer(streak__label="sadness", streak__count="3"),
    "negative, score -2.4": customer(overall_score="-2.4", utterances="5", abstained="2"),
    "worsening": customer(trend__direction="worsening"),
    "silence 41 s": {"longest_silence_ms": "41900"},
    "6 interruptions (agent 5)": {
        "roles.customer.interruptions.count": "1",
        "roles.agent.interruptions.count": "5",
    },
    "silent 60 % of the call": {"duration_ms": "100000", "non_talk_ms": "60500"},
}


@pytest.mark.parametrize("reason", REASONS)
def test_each_sign_is_a_reason_in_words(reason):
    """A call with one sign needs a look for that reason alone."""
    shown = rows.row("call-1", CALM | REASONS[reason], 0.1, "")
    assert (shown["why"], shown["level"]) == ([reason], "some")


NO_REASONS = {
    "a happy streak": customer(streak__label="happiness", streak__count="9"),
    "two in a row": customer(streak__label="anger", streak__count="2"),
    "a score of two labels": customer(overall_score="-5.0", utterances="4", abstained="2"),
    "an improving call": customer(trend__direction="improving"),
    "a short silence": {"longest_silence_ms": "19999"},
    "a short call in which nobody spoke yet": {"duration_ms": "20000", "non_talk_ms": "19000"},
    "an agent's emotion": {
        "roles.agent.emotion.streak.label": "anger",
        "roles.agent.emotion.streak.count": "9",
        "roles.agent.emotion.overall_score": "-5.0",
    },
}


@pytest.mark.parametrize("what", NO_REASONS)
def test_what_is_no_sign_gives_no_reason(what):
    """Such a call is one of the others."""
    shown = rows.row("call-1", CALM | NO_REASONS[what], 0.1, "")
    assert (shown["why"], shown["level"]) == ([], "")


def test_no_field_of_an_agents_emotion_is_read():
    """Whatever the policy of the workers is, the page does not have it."""
    assert not [name for name in rows.FIELDS if name.startswith("roles.agent.emotion")]


def test_a_raised_risk_always_has_a_reason():
    """After one or two labels, and where weak signs add up."""
    first = CALM | customer(overall_score="-5.0", utterances="1", abstained="0")
    assert rows.row("call-1", first, 0.6, "")["why"] == ["negative so far"]
    assert rows.row("call-1", CALM, 0.3, "")["why"] == ["several weak signs"]
    assert rows.row("call-1", CALM, 0.29, "")["why"] == []


@pytest.mark.parametrize(("risk", "level"), [(0.0, ""), (0.29, ""), (0.3, "some"), (0.59, "some"), (0.6, "high")])
def test_the_level_follows_the_risk(risk, level):
    """Three levels, no decimals."""
    assert rows.level(risk, []) == level


def test_without_any_emotion_a_call_is_shown():
    """With emotion switched off, the figures of talk and silence are enough."""
    shown = rows.row("call-1", CALM | {"attr.queue": "billing", "longest_silence_ms": "30000"}, 0.05, "")
    assert (shown["queue"], shown["why"], shown["heard"], shown["said"]) == ("billing", ["silence 30 s"], 0, "")


def test_mixed_parties_have_their_emotion_shown():
    """A mono call whose policy allows it has reasons too."""
    shown = rows.row(
        "c", CALM | {"roles.mixed.emotion.streak.label": "anger", "roles.mixed.emotion.streak.count": "3"}, 0, ""
    )
    assert shown["why"] == ["anger 3 times in a row"]


def test_every_label_has_a_letter_of_its_own():
    """A label that is missing or not known is uncertain."""
    assert len({rows.letter(emotion.value) for emotion in Emotion} | {rows.letter(None)}) == len(Emotion) + 1
    assert rows.letter("bored") == rows.letter(None) == "?"
