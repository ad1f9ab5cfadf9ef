"""The metric label of an utterance: its label, or the reason for having none."""

import pytest

from callmood.schemas.utterance import label_or_reason


@pytest.mark.parametrize(
    ("emotion", "expected"),
    [
        ({"label": "anger", "abstained": False, "reason": None}, "anger"),
        ({"label": "anger", "abstained": True, "reason": "low_confidence"}, "abstained"),
        ({"label": None, "abstained": True, "reason": "out_of_memory"}, "out_of_memory"),
        ({"label": None, "abstained": True, "reason": "too_short"}, "too_short"),
        (None, "policy:role_agent"),
    ],
)
def test_a_failure_of_the_model_is_not_counted_as_doubt(emotion, expected):
    """The alert on inference errors reads these values; a model that is not sure has not failed."""
    assert label_or_reason({"emotion": emotion, "withheld": "policy:role_agent"}) == expected


def test_what_is_not_speech_is_counted_as_that():
    """Whatever the role: nobody speaks, so the policy's reason says less."""
    assert label_or_reason({"kind": "not_speech", "emotion": None, "withheld": "policy:role_agent"}) == "not_speech"
