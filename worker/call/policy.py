"""Roles whose emotion may be inferred: customers, unless the operator states a legal basis for others. Pure.

Inferring the emotions of people at work is prohibited (EU AI Act, Art. 5(1)(f)); inferring those of their customers is
not. Everything that is not an emotion (talk time, silence, interruptions, loudness) is measured for every role.
"""

from typing import Any

from callmood.schemas.common import Notice, Role, WithheldReason
from callmood.worker.settings import PolicySettings


def withheld(role: Role, notice: Notice | None, settings: PolicySettings) -> WithheldReason | None:
    """Why the policy withholds an utterance of this role from the model; None if it does not.

    The role is checked before the notice, so a role without emotion has the same reason with and without notice.
    """
    if role not in settings.emotion_roles:
        return WithheldReason(f"policy:role_{role.value}")
    if settings.require_notice and notice is not Notice.GIVEN:
        return WithheldReason.NO_NOTICE
    return None


def stamp(settings: PolicySettings) -> dict[str, Any]:
    """The `policy` field of every record: the rules that it was made under."""
    return {
        "emotion_roles": [role.value for role in settings.emotion_roles],
        "require_notice": settings.require_notice,
        "legal_basis": settings.legal_basis,
    }
