"""The live aggregate of a call: utterances and life-cycle facts in, call/1 out. Pure.

`fold` takes the results of a call in the order of their decision. That order is the same for any chunking of the audio,
so everything here is. A state has about 1 kB plus the producer's attributes, however long the call. What each figure
means is in docs/aggregates.md; the names are those of `callmood.schemas.call`.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from math import log10
from typing import Any

import msgspec
from msgspec.structs import replace

from callmood.schemas.audio import MAX_ATTRIBUTES
from callmood.schemas.call import CALL_SCHEMA, MAX_SPANS, EndReason, SpanKind, status_of
from callmood.schemas.common import Notice, Role, WithheldReason
from callmood.worker.call import scores, timeline
from callmood.worker.call.scores import Scores
from callmood.worker.call.signs import needs, risk
from callmood.worker.call.timeline import Interruptions, Timeline
from callmood.worker.records import ModelInfo, Result


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
    skipped: int = 0
    """Utterances that the model did not analyse because it was behind."""


class Span(msgspec.Struct, frozen=True, array_like=True):
    """A stretch that is neither talk nor silence."""

    kind: SpanKind
    start_ms: int
    end_ms: int


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
    spans: tuple[Span, ...] = ()
    """The newest `MAX_SPANS`; those of one kind that touch are one."""
    doubtful_format: int = 0
    """Utterances that look as if they had another encoding."""


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
        doubtful_format=state.doubtful_format + (utterance.looks_like is not None),
        roles={**state.roles, role: _fold_role(state.roles.get(role, RoleFigures()), result)},
        timeline=timeline.extend(line, utterance.voice_ms[1]),
    )


def fold_pause(state: Aggregate, *, start_ms: int, end_ms: int) -> Aggregate:
    """Add a stretch that the producer paused; it is not silence."""
    return _changed(
        state,
        timeline=timeline.add_pause(state.timeline, start_ms, end_ms),
        spans=_with(state, SpanKind.PAUSE, start_ms, end_ms),
    )


def fold_hold(state: Aggregate, *, start_ms: int, end_ms: int) -> Aggregate:
    """Add a stretch for which the producer had put the call on hold; it is not silence."""
    return _changed(
        state,
        timeline=timeline.add_hold(state.timeline, start_ms, end_ms),
        spans=_with(state, SpanKind.HOLD, start_ms, end_ms),
    )


def fold_gap(state: Aggregate, *, start_ms: int, end_ms: int) -> Aggregate:
    """Add a stretch whose audio was lost, or was over before the worker joined; it is not silence.

    A short gap that was concealed inside an utterance comes with that utterance, not here.
    """
    return _changed(
        state,
        timeline=timeline.add_gap(state.timeline, start_ms, end_ms),
        spans=_with(state, SpanKind.GAP, start_ms, end_ms),
    )


def finish(state: Aggregate, *, reason: str, end_ms: int) -> Aggregate:
    """End the call: `reason` is an `EndReason`, `end_ms` the end of its audio on the call's time line."""
    return _changed(state, end_reason=EndReason(reason), timeline=timeline.finish(state.timeline, end_ms))


def give_up(state: Aggregate, *, after: Aggregate) -> Aggregate:
    """The worker has failed on the call: `state` is what is published of it, `after` what came of it since."""
    return replace(state, version=after.version + 1, end_reason=EndReason.GIVEN_UP)


def reopen(state: Aggregate, *, after: Aggregate) -> Aggregate:
    """The call goes on: `state` is from before its end, `after` what the end, and records after it, made of it."""
    return replace(state, version=after.version + 1, attributes=after.attributes, notice=after.notice)


def summary(
    state: Aggregate,
    *,
    policy: Mapping[str, Any],
    model: ModelInfo | None,
    alerts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The call so far as call/1.

    Args:
        state: the call.
        policy: `policy.stamp`.
        model: the model in use; left out of the record until it has heard an utterance of this call.
        alerts: `alert.states`.
    """
    figures = timeline.figures(state.timeline)
    was_heard = any(role.scores for role in state.roles.values())
    call = {
        "schema": CALL_SCHEMA,
        "call_id": state.call_id,
        "version": max(1, state.version),
        "status": status_of(state.end_reason).value,
        "end_reason": state.end_reason and state.end_reason.value,
        "started_at_ms": state.started_at_ms,
        "updated_at_ms": state.started_at_ms + figures.at_ms,
        "duration_ms": figures.at_ms,
        "utterances": sum(role.utterances for role in state.roles.values()),
        "doubtful_format": state.doubtful_format,
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
    danger = risk(call)
    spans = [{"kind": span.kind.value, "start_ms": span.start_ms, "end_ms": span.end_ms} for span in state.spans]
    return call | {"risk": danger, **needs(call, danger), "alerts": list(alerts), "spans": spans}


def _changed(state: Aggregate, **changes: Any) -> Aggregate:
    return replace(state, version=state.version + 1, **changes)


def _with(state: Aggregate, kind: SpanKind, start_ms: int, end_ms: int) -> tuple[Span, ...]:
    """The spans with one more, which may go on where the newest of its kind ended; one without length is left out."""
    if start_ms == end_ms:
        return state.spans
    spans = list(state.spans)
    newest = next((span for span in reversed(spans) if span.kind is kind), None)
    if newest is not None and newest.start_ms <= end_ms and start_ms <= newest.end_ms:
        spans[spans.index(newest)] = Span(kind, min(start_ms, newest.start_ms), max(end_ms, newest.end_ms))
        return tuple(spans)
    return (*spans, Span(kind, start_ms, end_ms))[-MAX_SPANS:]


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
        skipped=role.skipped + (utterance.withheld == WithheldReason.OVERLOADED),
    )


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
            "skipped": role.skipped,
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
