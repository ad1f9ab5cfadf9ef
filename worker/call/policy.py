"""Whose emotion may be inferred: customers, unless the operator says otherwise in writing. Pure.

Inferring the emotions of people at work is prohibited (EU AI Act, Art. 5(1)(f)); inferring those of their customers is
not. Everything that is not an emotion (talk time, silence, interruptions, loudness) is measured for every role.
"""

from typing import Any

from callmood.schemas.common import Notice, Role, WithheldReason
from callmood.worker.settings import PolicySettings


def withheld(role: Role, notice: Notice | None, settings: PolicySettings) -> WithheldReason | None:
    """Why the model may not hear an utterance of this role, or None where it may.

    The role is judged first, so a role that is never heard has the same reason with and without notice.
    """
    if role not in settings.emotion_roles:
        return WithheldReason(f"policy:role_{role.value}")
    if settings.require_notice and notice is not Notice.GIVEN:
        return WithheldReason.NO_NOTICE
    return None


def stamp(settings: PolicySettings) -> dict[str, Any]:
    """The `policy` field of every record: under which rules it was made."""
    return {
        "emotion_roles": [role.value for role in settings.emotion_roles],
        "require_notice": settings.require_notice,
        "legal_basis": settings.legal_basis,
    }
