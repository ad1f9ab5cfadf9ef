"""Why a call needs a person, from its call/1."""

import copy
import json
from pathlib import Path

import pytest

from callmood import schemas
from callmood.schemas.call import Call
from callmood.worker.call import signs

_EXAMPLE = json.loads((Path(schemas.__file__).parent / "examples/call/valid/live.json").read_text(encoding="utf-8"))
_CALM = {"label": "neutral", "count": 1}


def call(*, duration_ms=60_000, quiet_ms=5_000, silence_ms=3_000, interruptions=(0, 0), agent=None, **emotion):
    """A calm call of two parties, with these differences in the customer's emotion."""
    made = copy.deepcopy(_EXAMPLE) | {"duration_ms": duration_ms, "non_talk_ms": quiet_ms}
    made["longest_silence_ms"] = silence_ms
    calm = {"overall_score": 0.0, "trend": None, "streak": _CALM, "quarter_scores": dict.fromkeys(("q1", "q2"), 0.0)}
    made["roles"]["customer"]["emotion"] |= calm | emotion
    made["roles"]["agent"]["emotion"] = agent and made["roles"]["customer"]["emotion"] | calm | agent
    counts = made["roles"]["customer"]["emotion"]["counts"]
    heard, abstained = (made["roles"]["customer"]["emotion"][name] for name in ("utterances", "abstained"))
    counts |= dict.fromkeys(counts, 0) | {"neutral": heard - abstained}
    for role, count in zip(("customer", "agent"), interruptions, strict=True):
        made["roles"][role]["interruptions"]["count"] = count
    return made


def needs(**differences):
    """Need, names and texts of a call."""
    made = call(**differences)
    found = signs.needs(made, signs.risk(made))
    Call.model_validate(made | found)
    return found["need"], [(sign["name"], sign["text"]) for sign in found["signs"]]


SIGNS = {
    "streak": ({"streak": {"label": "anger", "count": 4}}, "anger 4 times in a row"),
    "score": ({"overall_score": -2.4, "utterances": 5, "abstained": 2}, "negative, score -2.4"),
    "trend": ({"trend": {"direction": "worsening", "slope_per_min": -2.0}}, "worsening"),
    "silence": ({"silence_ms": 41_900}, "silence 41 s"),
    "interruptions": ({"interruptions": (1, 5)}, "6 interruptions (agent 5)"),
    "silent_share": ({"duration_ms": 100_000, "quiet_ms": 60_500}, "silent 60 % of the call"),
}


@pytest.mark.parametrize("name", SIGNS)
def test_each_sign_alone_is_a_reason_in_words(name):
    """A call with one sign needs a look for that reason."""
    differences, text = SIGNS[name]
    need, found = needs(**differences)
    assert (need, found) == ("some", [(name, text)])


NO_SIGNS = {
    "a happy streak": {"streak": {"label": "happiness", "count": 9}},
    "two in a row": {"streak": {"label": "anger", "count": 2}},
    "a score of two labels": {"overall_score": -5.0, "utterances": 4, "abstained": 2},
    "an improving call": {"trend": {"direction": "improving", "slope_per_min": 2.0}},
    "a short silence": {"silence_ms": 19_999},
    "four interruptions": {"interruptions": (2, 2)},
    "half of the call silent": {"duration_ms": 100_000, "quiet_ms": 50_000},
    "a short call in which nobody spoke yet": {"duration_ms": 20_000, "quiet_ms": 19_000},
}


@pytest.mark.parametrize("what", NO_SIGNS)
def test_what_is_no_sign_gives_no_reason(what):
    """Such a call is one of the others."""
    assert needs(**NO_SIGNS[what]) == ("none", [])


def test_a_raised_risk_always_has_a_reason():
    """After one or two labels, and where weak signs add up."""
    low = {"quarter_scores": {"q1": -5.0, "q2": -5.0}, "utterances": 1, "abstained": 0}
    assert needs(overall_score=-5.0, **low) == ("high", [("risk", "negative so far")])
    assert needs(overall_score=1.0, **low) == ("high", [("risk", "several weak signs")])
    assert needs(overall_score=1.0, quarter_scores={"q1": -2.4, "q2": None}) == ("none", [])
    assert needs(overall_score=1.0, quarter_scores={"q1": -2.5, "q2": None})[0] == "some"


def test_a_sign_of_emotion_says_whose_it_is():
    """So that a dashboard can leave out agents, where the policy allows their emotion at all."""
    made = call(agent={"streak": {"label": "sadness", "count": 3}})
    assert [(sign["role"], sign["value"]) for sign in signs.needs(made, 0.0)["signs"]] == [("agent", 3.0)]


def test_without_any_emotion_a_call_has_signs():
    """Silence and interruptions are enough."""
    made = call(silence_ms=30_000, interruptions=(5, 0))
    made["roles"]["customer"]["emotion"] = None
    assert [sign["name"] for sign in signs.needs(made, signs.risk(made))["signs"]] == ["silence", "interruptions"]
