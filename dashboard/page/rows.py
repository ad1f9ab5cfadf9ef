"""A row of the wall: a call's figures, and why it needs a person. Pure: fields of a call's hash in, plain values out.

An agent's emotion is never shown, even if the policy of the workers allows it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from callmood.schemas.common import Emotion, Role

ROLES: Final = (Role.CUSTOMER, Role.MIXED, Role.UNKNOWN)
"""Roles whose emotion is shown, the first that has one."""
_OF_CALL: Final = (
    "status", "updated_at_ms", "duration_ms", "risk", "need", "signs", "alerts", "attr.queue", "attr.team",
    "attr.agent", "model.id", "roles.customer.talk_ms", "roles.agent.talk_ms",
)  # fmt: skip
_OF_EMOTION: Final = ("utterances", "abstained")
FIELDS: Final = (*_OF_CALL, *(f"roles.{role}.emotion.{name}" for role in ROLES for name in _OF_EMOTION))
"""The fields of a call's hash that a row is made of."""

_LETTERS: Final = {Emotion.ANGER: "A", Emotion.SADNESS: "S", Emotion.NEUTRAL: "N", Emotion.HAPPINESS: "H"}
UNCERTAIN: Final = "?"


def letter(label: str | None) -> str:
    """The letter of a label; `?` where the model abstains."""
    return _LETTERS[Emotion(label)] if label in set(Emotion) else UNCERTAIN


def row(call_id: str, fields: Mapping[str, str | None], said: Sequence[str]) -> dict[str, Any]:
    """A call on the wall.

    Args:
        call_id: its id.
        fields: of its hash, those in `FIELDS`; None where absent.
        said: the newest letters of `letter`, oldest first.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: no worker has written these fields.
    """
    why = signs(fields)
    role = next((r for r in ROLES if fields.get(f"roles.{r}.emotion.utterances")), None)
    heard, abstained = (_int(fields, f"roles.{role}.emotion.{name}") for name in ("utterances", "abstained"))
    return {
        "id": call_id,
        "level": (fields.get("need") or "") if why else "",
        "risk": _risk(fields),
        "why": why,
        "queue": fields.get("attr.queue") or "",
        "team": fields.get("attr.team") or "",
        "agent": fields.get("attr.agent") or "",
        "duration_ms": _int(fields, "duration_ms"),
        "updated_at_ms": _int(fields, "updated_at_ms"),
        "customer_ms": _int(fields, "roles.customer.talk_ms"),
        "agent_ms": _int(fields, "roles.agent.talk_ms"),
        "said": "".join(said),
        "heard": heard,
        "uncertain": abstained,
        "model": fields.get("model.id") or "",
    }


def signs(fields: Mapping[str, str | None]) -> list[str]:
    """Why a call needs a person, in words, the strongest first; what an agent's emotion says is left out."""
    return [sign["text"] for sign in json.loads(fields.get("signs") or "[]") if sign["role"] != Role.AGENT]


def _int(fields: Mapping[str, str | None], name: str) -> int:
    return int(fields.get(name) or 0)


def _risk(fields: Mapping[str, str | None]) -> float:
    value = float(fields.get("risk") or 0.0)
    if not math.isfinite(value):
        raise ValueError("a risk is finite; JSON has no other numbers")
    return value
