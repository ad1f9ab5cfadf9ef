"""The live aggregate of a call: utterances and life-cycle facts in, call/1 out. Pure.

`fold` takes the results of a call in the order of their decision. That order is the same for any chunking of the audio,
so everything here is. A state has about 1 kB plus the producer's attributes, however long the call. What each figure
means is in docs/aggregates.md; the names are those of `callmood.schemas.call`.
"""

from collections.abc import Mapping
from itertools import islice
from math import log10
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from callmood.schemas.audio import MAX_ATTRIBUTES
from callmood.schemas.call import CALL_SCHEMA, Direction, EndReason, Status
from callmood.schemas.common import Notice, Role
from callmood.worker.call import scores, timeline
from callmood.worker.call.scores import Scores
from callmood.worker.call.timeline import Interruptions, Timeline
from callmood.worker.records import ModelInfo, Result

RISK_WEIGHTS: Final = {"score": 0.6, "streak": 0.4, "trend": 0.2, "silence": 0.1, "interruptions": 0.1}
_RISK_STREAK = 5
_RISK_SILENCE_MS = 60_000
_RISK_INTERRUPTIONS = 10


class RoleFigures(msgspec.Struct, frozen=True, array_like=True):
    """One role of a call so far."""

    utterances: int = 0
    talk_ms: int = 0
    energy_ms: float = 0.0
    """Mean power of each utterance times its duration, summed; full scale is 1."""
    max_dbfs: float | None = None
    """Level of the loudest utterance; None before the first."""
    scores: Scores | None = None
    """None until the model has heard the role."""
    other_sounds: int = 0
    """Utterances in which nobody speaks; they are not among `utterances`."""
    other_sound_ms: int = 0


class Aggregate(msgspec.Struct, frozen=True, array_like=True):
    """A call so far."""

    call_id: str
    version: int = 0
    """Grows with every change."""
    started_at_ms: int = 0
    """The producer's wall clock at 0 of the call's time line."""
    end_reason: EndReason | None = None
    attributes: Mapping[str, str] = {}
    notice: Notice | None = None
    concealed_ms: int = 0
    """Lost audio that was concealed inside utterances."""
    roles: Mapping[Role, RoleFigures] = {}
    timeline: Timeline = Timeline()


def start(state: Aggregate, *, started_at_ms: int) -> Aggregate:
    """Set the producer's wall clock at 0 of the call's time line."""
    return _changed(state, started_at_ms=started_at_ms)


def describe(state: Aggregate, *, attributes: Mapping[str, str], notice: Notice | None) -> Aggregate:
    """Add what a record says of the call; a record without news returns the same object.

    Args:
        state: the call.
        attributes: `attr.*` of the record; once `MAX_ATTRIBUTES` names are known, new ones are dropped.
        notice: whether the caller was told; None says nothing new.
    """
    known = dict(islice({**state.attributes, **attributes}.items(), MAX_ATTRIBUTES))
    told = state.notice if notice is None else notice
    if (known, told) == (state.attributes, state.notice):
        return state
    return _changed(state, attributes=known, notice=told)


def fold(state: Aggregate, result: Result) -> Aggregate:
    """Add an utterance of any role. What is not speech adds to `other_sound_ms` and to the call's length only."""
    utterance = result.utterance
    role, speaker = utterance.role, f"{utterance.stream}/{utterance.channel}"
    line = state.timeline
    if result.is_speech:
        line = timeline.add_speech(line, role, speaker, *result.voice_ms)
    return _changed(
        state,
        concealed_ms=state.concealed_ms + utterance.missing_ms,
        roles={**state.roles, role: _fold_role(state.roles.get(role, RoleFigures()), result)},
        timeline=timeline.extend(line, utterance.voice_ms[1]),
    )


def fold_pause(state: Aggregate, *, start_ms: int, end_ms: int) -> Aggregate:
    """Add a stretch that the producer paused; it is not silence."""
    return _changed(state, timeline=timeline.add_pause(state.timeline, start_ms, end_ms))


def fold_hold(state: Aggregate, *, start_ms: int, end_ms: int) -> Aggregate:
    """Add a stretch for which the producer had put the call on hold; it is not silence."""
    return _changed(state, timeline=timeline.add_hold(state.timeline, start_ms, end_ms))


def fold_gap(state: Aggregate, *, start_ms: int, end_ms: int) -> Aggregate:
    """Add a stretch whose audio was lost, or was over before the worker joined; it is not silence.

    A short gap that was concealed inside an utterance comes with that utterance, not here.
    """
    return _changed(state, timeline=timeline.add_gap(state.timeline, start_ms, end_ms))


def finish(state: Aggregate, *, reason: str, end_ms: int) -> Aggregate:
    """End the call: `reason` is an `EndReason`, `end_ms` the end of its audio on the call's time line."""
    return _changed(state, end_reason=EndReason(reason), timeline=timeline.finish(state.timeline, end_ms))


def summary(state: Aggregate, *, policy: Mapping[str, Any], model: ModelInfo | None) -> dict[str, Any]:
    """The call so far as call/1.

    Args:
        state: the call.
        policy: `policy.stamp`.
        model: the model in use; left out of the record until it has heard an utterance of this call.
    """
    figures = timeline.figures(state.timeline)
    was_heard = any(role.scores for role in state.roles.values())
    return {
        "schema": CALL_SCHEMA,
        "call_id": state.call_id,
        "version": max(1, state.version),
        "status": _status(state).value,
        "end_reason": state.end_reason and state.end_reason.value,
        "started_at_ms": state.started_at_ms,
        "updated_at_ms": state.started_at_ms + figures.at_ms,
        "duration_ms": figures.at_ms,
        "utterances": sum(role.utterances for role in state.roles.values()),
        "missing_ms": figures.missing_ms + state.concealed_ms,
        "redacted_ms": figures.redacted_ms,
        "talk_ms": figures.talk_ms,
        "non_talk_ms": figures.non_talk_ms,
        "longest_silence_ms": figures.longest_silence_ms,
        "overlap_ms": figures.overlap_ms,
        "hold_ms": figures.hold_ms,
        "silences": timeline.summary(figures.silences, timeline.SILENCE_MS),
        "overlaps": timeline.summary(figures.overlaps, timeline.INTERRUPTION_MS),
        "roles": _roles(state, figures.at_ms),
        "attributes": dict(state.attributes),
        "notice": state.notice and state.notice.value,
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
        "trend": float(any(e["trend"] and e["trend"]["direction"] == Direction.WORSENING for e in emotions)),
        "silence": min(1.0, call["longest_silence_ms"] / _RISK_SILENCE_MS),
        "interruptions": min(1.0, interruptions / _RISK_INTERRUPTIONS),
    }
    calm = 1.0
    for name, weight in RISK_WEIGHTS.items():
        calm *= 1 - weight * signs[name]
    return round(1 - calm, 3)


def _changed(state: Aggregate, **changes: Any) -> Aggregate:
    return replace(state, version=state.version + 1, **changes)


def _fold_role(role: RoleFigures, result: Result) -> RoleFigures:
    utterance, prediction = result.utterance, result.prediction
    other_ms = role.other_sound_ms + utterance.duration_ms - result.duration_ms
    if not result.is_speech:
        return replace(role, other_sounds=role.other_sounds + 1, other_sound_ms=other_ms)
    level_dbfs, heard = float(utterance.acoustics.rms_dbfs), role.scores
    if prediction is not None:
        heard = scores.add(heard or Scores(), *result.voice_ms, prediction)
    return RoleFigures(
        utterances=role.utterances + 1,
        talk_ms=role.talk_ms + result.duration_ms,
        energy_ms=role.energy_ms + result.duration_ms * 10 ** (level_dbfs / 10),
        max_dbfs=level_dbfs if role.max_dbfs is None else max(role.max_dbfs, level_dbfs),
        scores=heard,
        other_sounds=role.other_sounds,
        other_sound_ms=other_ms,
    )


def _status(state: Aggregate) -> Status:
    if state.end_reason is None:
        return Status.LIVE
    return Status.FAILED if state.end_reason is EndReason.NO_AUDIO else Status.COMPLETED


def _roles(state: Aggregate, duration_ms: int) -> dict[str, dict[str, Any]]:
    interruptions = timeline.interruptions(state.timeline)
    talk_ms = sum(role.talk_ms for role in state.roles.values())
    return {
        name.value: {
            "utterances": role.utterances,
            "talk_ms": role.talk_ms,
            "talk_share": round(role.talk_ms / talk_ms, 4) if talk_ms else 0.0,
            "other_sounds": role.other_sounds,
            "other_sound_ms": role.other_sound_ms,
            "loudness": _loudness(role),
            "interruptions": msgspec.structs.asdict(interruptions.get(name.value, Interruptions())),
            "emotion": scores.summary(role.scores, duration_ms) if role.scores else None,
        }
        for name, role in state.roles.items()
    }


def _loudness(role: RoleFigures) -> dict[str, float] | None:
    """Mean power over the role's speech, and its loudest utterance."""
    if role.max_dbfs is None or not role.talk_ms or not role.energy_ms:
        return None
    mean_dbfs = 10 * log10(role.energy_ms / role.talk_ms)
    return {"mean_dbfs": round(mean_dbfs, 2), "max_dbfs": round(role.max_dbfs, 2)}


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
