"""The roles whose emotion is inferred."""

import pytest

from callmood.schemas.common import Notice, Role
from callmood.schemas.parts import PolicyStamp
from callmood.worker.call import policy
from callmood.worker.settings import PolicySettings


def test_only_customers_are_heard_by_default():
    """Without any setting the model hears customers, with or without notice, and nobody else."""
    settings = PolicySettings()
    for notice in (None, Notice.GIVEN, Notice.NOT_GIVEN):
        heard = {role for role in Role if policy.withheld(role, notice, settings) is None}
        assert heard == {Role.CUSTOMER}


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.CUSTOMER])
def test_the_reason_names_the_role(role):
    """A withheld role has a stable reason."""
    assert policy.withheld(role, Notice.GIVEN, PolicySettings()) == f"policy:role_{role.value}"


def test_mixed_speech_is_heard_only_when_the_operator_says_so():
    """Roles in the setting are heard, and only those."""
    settings = PolicySettings(emotion_roles=(Role.MIXED,), legal_basis="outside the EU")
    assert policy.withheld(Role.MIXED, None, settings) is None
    assert policy.withheld(Role.CUSTOMER, None, settings) == "policy:role_customer"


@pytest.mark.parametrize("notice", [None, Notice.NOT_GIVEN])
def test_required_notice_must_have_been_given(notice):
    """With require_notice, silence about the notice is not notice."""
    settings = PolicySettings(require_notice=True)
    assert policy.withheld(Role.CUSTOMER, notice, settings) == "policy:no_notice"
    assert policy.withheld(Role.CUSTOMER, Notice.GIVEN, settings) is None


def test_notice_does_not_open_a_withheld_role():
    """An agent's emotion stays withheld for the same reason whatever the caller was told."""
    settings = PolicySettings(require_notice=True)
    reasons = {policy.withheld(Role.AGENT, notice, settings) for notice in (None, Notice.GIVEN, Notice.NOT_GIVEN)}
    assert reasons == {"policy:role_agent"}


def test_the_stamp_says_under_which_rules_a_record_was_made():
    """The stamp carries every policy setting and is what the schema wants."""
    settings = PolicySettings(
        emotion_roles=(Role.CUSTOMER, Role.AGENT), legal_basis="training, not shared", require_notice=True
    )
    stamp = policy.stamp(settings)
    assert stamp == {
        "emotion_roles": ["customer", "agent"],
        "require_notice": True,
        "legal_basis": "training, not shared",
    }
    assert PolicyStamp.model_validate(stamp).legal_basis == settings.legal_basis
