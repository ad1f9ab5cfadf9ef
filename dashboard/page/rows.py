"""What the wall shows of a call, and why it needs a person. Pure: fields of a call's hash in, plain values out.

An agent's emotion is never shown, whatever the policy of the workers is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from callmood.schemas.common import Emotion, Role

ROLES: Final = (Role.CUSTOMER, Role.MIXED, Role.UNKNOWN)
"""Roles whose emotion is shown, the first that has one."""
_OF_EMOTION: Final = (
    "utterances", "abstained", "overall_score", "trend.direction", "streak.label", "streak.count", "last.label",
)  # fmt: skip
_OF_CALL: Final = (
    "status", "started_at_ms", "updated_at_ms", "duration_ms", "utterances", "longest_silence_ms", "overlap_ms",
    "missing_ms", "talk_ms", "non_talk_ms", "attr.queue", "attr.team", "attr.agent", "attr.listen", "model.id",
    "roles.customer.talk_ms", "roles.agent.talk_ms", "roles.customer.interruptions.count",
    "roles.agent.interruptions.count",
)  # fmt: skip
FIELDS: Final = (*_OF_CALL, *(f"roles.{role}.emotion.{name}" for role in ROLES for name in _OF_EMOTION))
"""The fields of a call's hash that a row is made of."""

HIGH: Final = 0.6
SOME: Final = 0.3
_STREAK: Final = 3
_SCORE: Final = -2.0
_SILENCE_MS: Final = 20_000
_INTERRUPTIONS: Final = 5
_SILENT_SHARE: Final = 0.5
_LONG_MS: Final = 60_000
_NEGATIVE: Final = {Emotion.ANGER, Emotion.SADNESS}
_LETTERS: Final = {Emotion.ANGER: "A", Emotion.SADNESS: "S", Emotion.NEUTRAL: "N", Emotion.HAPPINESS: "H"}
UNCERTAIN: Final = "?"


def letter(label: str | None) -> str:
    """The letter of a label; `?` where the model abstains."""
    return _LETTERS[Emotion(label)] if label in set(Emotion) else UNCERTAIN


def row(call_id: str, fields: Mapping[str, str | None], risk: float, said: Sequence[str]) -> dict[str, Any]:
    """A call on the wall.

    Args:
        call_id: its id.
        fields: of its hash, those in `FIELDS`; None where absent.
        risk: 0 to 1.
        said: the newest letters of `letter`, oldest first.
    """
    signs = reasons(fields) or ([_weak(fields)] if risk >= SOME else [])
    role = next((r for r in ROLES if fields.get(f"roles.{r}.emotion.utterances")), None)
    heard, abstained = (_int(fields, f"roles.{role}.emotion.{name}") for name in ("utterances", "abstained"))
    return {
        "id": call_id,
        "level": level(risk, signs),
        "risk": risk,
        "why": signs,
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


def level(risk: float, signs: Sequence[str]) -> str:
    """How much a call needs a person: `high`, `some`, or nothing."""
    if risk >= HIGH:
        return "high"
    return "some" if risk >= SOME or signs else ""


def reasons(fields: Mapping[str, str | None]) -> list[str]:
    """Why a call needs a person, in words, the strongest first."""
    found = [reason for role in ROLES for reason in _of_emotion(fields, role)]
    silence_ms = _int(fields, "longest_silence_ms")
    if silence_ms >= _SILENCE_MS:
        found.append(f"silence {silence_ms // 1000} s")
    counts = {role: _int(fields, f"roles.{role}.interruptions.count") for role in (Role.CUSTOMER, Role.AGENT)}
    if sum(counts.values()) >= _INTERRUPTIONS:
        found.append(f"{sum(counts.values())} interruptions (agent {counts[Role.AGENT]})")
    duration_ms, quiet_ms = _int(fields, "duration_ms"), _int(fields, "non_talk_ms")
    if duration_ms >= _LONG_MS and quiet_ms > _SILENT_SHARE * duration_ms:
        found.append(f"silent {100 * quiet_ms // duration_ms} % of the call")
    return found


def _of_emotion(fields: Mapping[str, str | None], role: Role) -> list[str]:
    def field(name: str) -> str | None:
        return fields.get(f"roles.{role}.emotion.{name}")

    found = []
    label, count = field("streak.label"), int(field("streak.count") or 0)
    if label in _NEGATIVE and count >= _STREAK:
        found.append(f"{label} {count} times in a row")
    labelled = int(field("utterances") or 0) - int(field("abstained") or 0)
    score = float(field("overall_score") or 0)
    if score <= _SCORE and labelled >= _STREAK:
        found.append(f"negative, score {score:+.1f}")
    if field("trend.direction") == "worsening":
        found.append("worsening")
    return found


def _weak(fields: Mapping[str, str | None]) -> str:
    """Why the risk is raised where no sign alone is a reason."""
    scores = [float(fields.get(f"roles.{role}.emotion.overall_score") or 0) for role in ROLES]
    return "negative so far" if min(scores) < 0 else "several weak signs"


def _int(fields: Mapping[str, str | None], name: str) -> int:
    return int(fields.get(name) or 0)
