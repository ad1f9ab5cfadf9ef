"""The reasons why a call needs a person, computed from its call/1: the risk, and the signs as text. Pure.

The weights and thresholds are part of the contract: docs/aggregates.md lists them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from callmood.schemas.call import Direction, Need, SignName
from callmood.schemas.common import Role
from callmood.worker.call import scores

RISK_WEIGHTS: Final = {"score": 0.6, "streak": 0.4, "trend": 0.2, "silence": 0.1, "interruptions": 0.1}
_RISK_STREAK = 5
_RISK_SILENCE_MS = 60_000
_RISK_INTERRUPTIONS = 10

_HIGH: Final = 0.6
_SOME: Final = 0.3
_STREAK: Final = 3
_SCORE: Final = -2.0
_SILENCE_MS: Final = 20_000
_INTERRUPTIONS: Final = 5
_SILENT_SHARE: Final = 0.5
_LONG_CALL_MS: Final = 60_000


def risk(call: Mapping[str, Any]) -> float:
    """How much a call needs a person now, 0 to 1, from its call/1.

    Each sign in `RISK_WEIGHTS` is a share x of 0 to 1, and risk is 1 - product(1 - weight * x): one sign alone reaches
    its weight, more signs add up and never pass 1. Of several roles with emotion, each sign is that of the worst.
    """
    emotions = [role["emotion"] for role in call["roles"].values() if role["emotion"]]
    shares = {
        "score": max(map(_negative_score, emotions), default=0.0),
        "streak": max(map(_negative_streak, emotions), default=0.0),
        "trend": float(any(e["trend"] and e["trend"]["direction"] == Direction.WORSENING for e in emotions)),
        "silence": min(1.0, call["longest_silence_ms"] / _RISK_SILENCE_MS),
        "interruptions": min(1.0, sum(_interruptions(call).values()) / _RISK_INTERRUPTIONS),
    }
    calm = 1.0
    for name, weight in RISK_WEIGHTS.items():
        calm *= 1 - weight * shares[name]
    return round(1 - calm, 3)


def needs(call: Mapping[str, Any], danger: float) -> dict[str, Any]:
    """`need` and `signs` of call/1, from its other fields and its risk."""
    found = [sign for name, role in call["roles"].items() if role["emotion"] for sign in _felt(name, role["emotion"])]
    found += _heard(call)
    if danger >= _SOME and not found:
        found.append(_sign(SignName.RISK, danger, "negative so far" if _is_negative(call) else "several weak signs"))
    need = Need.HIGH if danger >= _HIGH else Need.SOME if found else Need.NONE
    return {"need": need.value, "signs": found}


def _felt(role: str, emotion: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Signs in the emotion of one role."""
    streak, score, trend = emotion["streak"], emotion["overall_score"], emotion["trend"]
    if streak and scores.VALENCE[streak["label"]] < 0 and streak["count"] >= _STREAK:
        yield _sign(SignName.STREAK, streak["count"], f"{streak['label']} {streak['count']} times in a row", role)
    if score is not None and score <= _SCORE and emotion["utterances"] - emotion["abstained"] >= _STREAK:
        yield _sign(SignName.SCORE, score, f"negative, score {score:+.1f}", role)
    if trend and trend["direction"] == Direction.WORSENING:
        yield _sign(SignName.TREND, trend["slope_per_min"], "worsening", role)


def _heard(call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Signs that need no emotion."""
    silence_ms, duration_ms, quiet_ms = call["longest_silence_ms"], call["duration_ms"], call["non_talk_ms"]
    counts = _interruptions(call)
    total, share = sum(counts.values()), quiet_ms / duration_ms if duration_ms else 0.0
    if silence_ms >= _SILENCE_MS:
        yield _sign(SignName.SILENCE, silence_ms, f"silence {silence_ms // 1000} s")
    if total >= _INTERRUPTIONS:
        yield _sign(SignName.INTERRUPTIONS, total, f"{total} interruptions (agent {counts.get(Role.AGENT, 0)})")
    if duration_ms >= _LONG_CALL_MS and share > _SILENT_SHARE:
        text = f"silent {100 * quiet_ms // duration_ms} % of the call"
        yield _sign(SignName.SILENT_SHARE, round(share, 4), text)


def _is_negative(call: Mapping[str, Any]) -> bool:
    emotions = [role["emotion"] for role in call["roles"].values() if role["emotion"]]
    return min((emotion["overall_score"] or 0.0 for emotion in emotions), default=0.0) < 0


def _sign(name: SignName, value: float, text: str, role: str | None = None) -> dict[str, Any]:
    return {"name": name.value, "role": role, "value": float(value), "text": text}


def _interruptions(call: Mapping[str, Any]) -> dict[str, int]:
    return {name: role["interruptions"]["count"] for name, role in call["roles"].items()}


def _negative_score(emotion: Mapping[str, Any]) -> float:
    """How far below 0 the newest quarter with a score is."""
    known: list[float] = [score for score in emotion["quarter_scores"].values() if score is not None]
    return max(0.0, -known[-1] / scores.SCORE_MAX) if known else 0.0


def _negative_streak(emotion: Mapping[str, Any]) -> float:
    """How long the newest run of one negative label is; a single label is no run."""
    streak = emotion["streak"]
    if not streak or scores.VALENCE[streak["label"]] >= 0:
        return 0.0
    repeats: int = streak["count"] - 1
    return min(1.0, repeats / (_RISK_STREAK - 1))
