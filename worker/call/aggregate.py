"""The live aggregate of a call: utterances and life-cycle facts in, call/1 out. Pure.

`fold` takes the results of a call in one order, that of their decision, which is the same for any chunking of the
audio; so is everything here. A state is a plain dict that msgpack can carry, of about 1 kB plus the producer's
attributes, however long the call. Functions return a new state and leave their argument as it was. What each figure
means is in docs/aggregates.md; the names are those of `callmood.schemas.call`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from math import log10
from typing import Any, Final

from callmood.schemas.call import CALL_SCHEMA
from callmood.schemas.common import Notice
from callmood.worker.call import scores, timeline
from callmood.worker.records import ModelInfo, Result

_FAILED = "no_audio"
_MAX_ATTRIBUTES = 64

RISK_WEIGHTS: Final = {"score": 0.6, "streak": 0.4, "trend": 0.2, "silence": 0.1, "interruptions": 0.1}
_RISK_STREAK = 5
_RISK_SILENCE_MS = 60_000
_RISK_INTERRUPTIONS = 10


def empty(call_id: str, *, horizon_ms: int = timeline.HORIZON_MS) -> dict[str, Any]:
    """A call of which nothing is known. `horizon_ms`: see `timeline.empty`."""
    return {
        "call_id": call_id,
        "version": 0,
        "started_at_ms": 0,
        "end_reason": None,
        "attributes": {},
        "notice": None,
        "concealed_ms": 0,
        "roles": {},
        "timeline": timeline.empty(horizon_ms),
    }


def start(state: dict[str, Any], *, started_at_ms: int) -> dict[str, Any]:
    """Set the producer's wall clock at 0 of the call's time line."""
    return {**_changed(state), "started_at_ms": started_at_ms}


def describe(state: dict[str, Any], *, attributes: Mapping[str, str], notice: Notice | None) -> dict[str, Any]:
    """Add what a record says of the call; a state that already says so is returned as it was.

    Args:
        state: the call.
        attributes: `attr.*` of the record; once 64 names are known, new ones are dropped.
        notice: whether the caller was told; None says nothing new.
    """
    known = dict(list({**state["attributes"], **attributes}.items())[:_MAX_ATTRIBUTES])
    told = state["notice"] if notice is None else notice.value
    if (known, told) == (state["attributes"], state["notice"]):
        return state
    return {**_changed(state), "attributes": known, "notice": told}


def fold(state: dict[str, Any], result: Result) -> dict[str, Any]:
    """Add an utterance of any role."""
    utterance = result.utterance
    role, speaker = utterance.role, f"{utterance.stream}/{utterance.channel}"
    known = state["roles"].get(role.value) or _empty_role()
    return {
        **_changed(state),
        "concealed_ms": state["concealed_ms"] + utterance.missing_ms,
        "roles": {**state["roles"], role.value: _fold_role(known, result)},
        "timeline": timeline.add_speech(state["timeline"], role, speaker, utterance.start_ms, utterance.end_ms),
    }


def fold_pause(state: dict[str, Any], *, start_ms: int, end_ms: int) -> dict[str, Any]:
    """Add a stretch that the producer kept from us; it is not silence."""
    return {**_changed(state), "timeline": timeline.add_pause(state["timeline"], start_ms, end_ms)}


def fold_gap(state: dict[str, Any], *, start_ms: int, end_ms: int) -> dict[str, Any]:
    """Add a stretch whose audio was lost, or was over before the worker joined; it is not silence.

    A short gap that was heard as silence inside an utterance comes with that utterance, not here.
    """
    return {**_changed(state), "timeline": timeline.add_gap(state["timeline"], start_ms, end_ms)}


def finish(state: dict[str, Any], *, reason: str, end_ms: int) -> dict[str, Any]:
    """The call is over: `reason` is an `EndReason`, `end_ms` the end of its audio on the call's time line."""
    ended = timeline.finish(state["timeline"], end_ms)
    return {**_changed(state), "end_reason": reason, "timeline": ended}


def summary(state: dict[str, Any], *, policy: Mapping[str, Any], model: ModelInfo | None) -> dict[str, Any]:
    """The call so far as call/1.

    Args:
        state: the call.
        policy: `policy.stamp`.
        model: the model in use; left out of the record until it has heard an utterance of this call.
    """
    figures = timeline.figures(state["timeline"])
    interruptions = timeline.interruptions(state["timeline"])
    talk_ms = sum(role["talk_ms"] for role in state["roles"].values())
    roles = {
        name: {
            "utterances": role["utterances"],
            "talk_ms": role["talk_ms"],
            "talk_share": round(role["talk_ms"] / talk_ms, 4) if talk_ms else 0.0,
            "loudness": _loudness(role),
            "interruptions": asdict(interruptions.get(name, timeline.Interruptions())),
            "emotion": scores.summary(role["emotion"], figures.at_ms) if role["emotion"] else None,
        }
        for name, role in state["roles"].items()
    }
    was_heard = any(role["emotion"] for role in roles.values())
    reason = state["end_reason"]
    return {
        "schema": CALL_SCHEMA,
        "call_id": state["call_id"],
        "version": max(1, state["version"]),
        "status": "live" if reason is None else "failed" if reason == _FAILED else "completed",
        "end_reason": reason,
        "started_at_ms": state["started_at_ms"],
        "updated_at_ms": state["started_at_ms"] + figures.at_ms,
        "duration_ms": figures.at_ms,
        "utterances": sum(role["utterances"] for role in roles.values()),
        "missing_ms": figures.missing_ms + state["concealed_ms"],
        "redacted_ms": figures.redacted_ms,
        "talk_ms": figures.talk_ms,
        "non_talk_ms": figures.non_talk_ms,
        "longest_silence_ms": figures.longest_silence_ms,
        "overlap_ms": figures.overlap_ms,
        "roles": roles,
        "attributes": dict(state["attributes"]),
        "notice": state["notice"],
        "policy": dict(policy),
        "model": {"id": model.id, "version": model.version, "digest": model.digest} if model and was_heard else None,
    }


def risk(call: Mapping[str, Any]) -> float:
    """How much a call needs a person now, 0 to 1, from its call/1.

    Each sign in `RISK_WEIGHTS` is a share x of 0 to 1, and risk is 1 - product(1 - weight * x): one sign alone reaches
    its weight, more signs add up and never pass 1. Of several roles with emotion, each sign is that of the worst.
    """
    emotions = [role["emotion"] for role in call["roles"].values() if role["emotion"]]
    interruptions = sum(role["interruptions"]["count"] for role in call["roles"].values())
    signs = {
        "score": max(map(_negative_score, emotions), default=0.0),
        "streak": max(map(_negative_streak, emotions), default=0.0),
        "trend": float(any(e["trend"] and e["trend"]["direction"] == "worsening" for e in emotions)),
        "silence": min(1.0, call["longest_silence_ms"] / _RISK_SILENCE_MS),
        "interruptions": min(1.0, interruptions / _RISK_INTERRUPTIONS),
    }
    calm = 1.0
    for name, weight in RISK_WEIGHTS.items():
        calm *= 1 - weight * signs[name]
    return round(1 - calm, 3)


def _changed(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "version": state["version"] + 1}


def _empty_role() -> dict[str, Any]:
    return {"utterances": 0, "talk_ms": 0, "energy_ms": 0.0, "max_dbfs": None, "emotion": None}


def _fold_role(role: dict[str, Any], result: Result) -> dict[str, Any]:
    utterance, prediction = result.utterance, result.prediction
    level_dbfs, emotion = float(utterance.acoustics.rms_dbfs), role["emotion"]
    if prediction is not None:
        emotion = scores.add(emotion or scores.empty(), utterance.start_ms, utterance.end_ms, prediction)
    return {
        "utterances": role["utterances"] + 1,
        "talk_ms": role["talk_ms"] + utterance.duration_ms,
        "energy_ms": role["energy_ms"] + utterance.duration_ms * 10 ** (level_dbfs / 10),
        "max_dbfs": level_dbfs if role["max_dbfs"] is None else max(role["max_dbfs"], level_dbfs),
        "emotion": emotion,
    }


def _loudness(role: dict[str, Any]) -> dict[str, float] | None:
    """Mean power over the role's speech, and its loudest utterance."""
    if not role["talk_ms"] or not role["energy_ms"]:
        return None
    mean_dbfs = 10 * log10(role["energy_ms"] / role["talk_ms"])
    return {"mean_dbfs": round(mean_dbfs, 2), "max_dbfs": round(role["max_dbfs"], 2)}


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
