"""The figures of a call on the wall."""

import json

from callmood.dashboard.page import rows
from callmood.schemas.common import Emotion

CALM = dict.fromkeys(rows.FIELDS) | {"status": "live", "duration_ms": "60000", "updated_at_ms": "1750000060000"}


def signs(*roles, need="some"):
    """The fields of a call with a sign of each of these roles."""
    found = [{"name": "streak", "role": role, "value": 3.0, "text": f"a sign of {role}"} for role in roles]
    return CALM | {"need": need, "signs": json.dumps(found)}


def test_the_reasons_are_those_of_the_contract():
    """The level is `need`, the reasons are the texts of the signs."""
    shown = rows.row("call-1", signs("customer", None, need="high"), "")
    assert (shown["why"], shown["level"]) == (["a sign of customer", "a sign of None"], "high")
    shown = rows.row("call-1", CALM | {"need": "none"}, "")
    assert (shown["why"], shown["level"]) == ([], "")


def test_an_agents_emotion_is_no_reason():
    """Whatever the policy of the workers is, the page does not show it."""
    shown = rows.row("call-1", signs("agent", need="high"), "")
    assert (shown["why"], shown["level"]) == ([], "")
    assert rows.row("call-1", signs("agent", "mixed"), "")["why"] == ["a sign of mixed"]
    assert not [name for name in rows.FIELDS if name.startswith("roles.agent.emotion")]


def test_without_any_emotion_a_call_is_shown():
    """With emotion switched off, the figures of talk and silence are enough."""
    shown = rows.row("call-1", signs(None) | {"attr.queue": "billing"}, "")
    assert (shown["queue"], shown["why"], shown["heard"], shown["said"]) == ("billing", ["a sign of None"], 0, "")


def test_a_call_of_an_earlier_version_is_shown_without_reasons():
    """Its worker did not write `need` and `signs`."""
    shown = rows.row("call-1", CALM, "")
    assert (shown["level"], shown["why"]) == ("", [])


def test_every_label_has_a_letter_of_its_own():
    """A label that is missing or not known is uncertain."""
    assert len({rows.letter(emotion.value) for emotion in Emotion} | {rows.letter(None)}) == len(Emotion) + 1
    assert rows.letter("bored") == rows.letter(None) == "?"
