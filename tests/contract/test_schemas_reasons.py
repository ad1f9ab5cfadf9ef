"""The reasons that results and dead-letter records give."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from callmood.schemas.common import AbstainReason, DeadLetterReason, Notice, Role, WithheldReason
from callmood.schemas.utterance import EmotionResult
from callmood.worker.call import policy
from callmood.worker.settings import PolicySettings

README = (Path(__file__).parents[2] / "schemas" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("reason", [*AbstainReason, *WithheldReason, *DeadLetterReason], ids=str)
def test_every_reason_has_a_sentence_in_the_contract(reason):
    """A reason without a meaning, or one that schemas/README.md does not list, is of no use to a reader."""
    assert reason.meaning[0] in "`ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert reason.meaning.endswith(".")
    assert f"| `{reason}` | {reason.meaning} |\n" in README


def test_the_policy_gives_every_reason_of_its_list_and_no_other():
    """Each role that is not heard has its own reason, and so has a missing notice."""
    nobody = PolicySettings(emotion_roles=())
    customers = PolicySettings(emotion_roles=(Role.CUSTOMER,), require_notice=True)
    given = {policy.withheld(role, None, nobody) for role in Role} | {policy.withheld(Role.CUSTOMER, None, customers)}
    of_the_sound = {WithheldReason.NOT_SPEECH, WithheldReason.ECHO, WithheldReason.BACKGROUND}
    assert given == set(WithheldReason) - of_the_sound - {WithheldReason.OVERLOADED}
    assert policy.withheld(Role.CUSTOMER, Notice.GIVEN, customers) is None


def test_a_reason_that_the_contract_does_not_list_is_refused():
    """A new reason goes into the contract first."""
    emotion = {"label": None, "probabilities": None, "confidence": None, "abstained": True}
    assert EmotionResult(**emotion, reason="too_short").reason is AbstainReason.TOO_SHORT
    with pytest.raises(ValidationError, match="reason"):
        EmotionResult(**emotion, reason="confidence_below:0.45")
