"""Rules over a call: its aggregate and newest utterance in, alerts out. Pure.

A rule reads one measure of the call. It raises one alert when the measure reaches `raise_at`, stays quiet until the
measure has fallen to `clear_at`, and never raises two alerts within `cooldown_s`. All times are media time, so the
alerts of a call are the same live, replayed, and evaluated again from its stored utterances (`refold`). Only utterances
that a busy model skips make a difference, if that is allowed.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from callmood.schemas.alert import ALERT_SCHEMA, Severity
from callmood.schemas.call import MAX_ALERTS, AlertState
from callmood.schemas.common import Role
from callmood.worker.call import scores, timeline
from callmood.worker.call.aggregate import Aggregate
from callmood.worker.call.rule import MAX_REMEMBERED, Measure, Rule
from callmood.worker.call.timeline import Timeline
from callmood.worker.records import Result, reserved


class _Reading(NamedTuple):
    """A measure: its value, since when in ms, and when in ms the value was reached."""

    value: float
    since_ms: int
    at_ms: int


class Episode(msgspec.Struct, frozen=True, array_like=True):
    """State of one rule in one call."""

    number: int = 0
    """How often it was raised."""
    is_running: bool = False
    not_before_ms: int = 0
    """When it may be raised again."""
    since_ms: int = -1
    """When the newest episode began."""


_NO_EPISODE: Final = Episode()


class Label(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A labelled utterance."""

    start_ms: int
    end_ms: int
    valence: int


class Interrupted(msgspec.Struct, frozen=True, array_like=True):
    """Interruptions that became known together."""

    at_ms: int
    """End of the time line when they became known."""
    role: str
    """The interrupter's."""
    count: int


class Raised(msgspec.Struct, frozen=True, array_like=True):
    """An alert that was raised."""

    rule: str
    severity: Severity
    episode: int
    since_ms: int
    raised_ms: int
    over_ms: int | None = None
    """When it was cleared; None if it was not."""


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """What the rules need of a call's past; its size is bounded."""

    labels: Mapping[Role, tuple[Label, ...]] = {}
    interruptions: tuple[Interrupted, ...] = ()
    counted: Mapping[str, int] = {}
    """All interruptions of each role so far."""
    episodes: Mapping[str, Episode] = {}
    """By the rule's name."""
    raised: tuple[Raised, ...] = ()
    """The newest `MAX_ALERTS`, oldest first."""


def evaluate(
    rules: Sequence[Rule], memory: Memory, call: Aggregate, result: Result | None = None
) -> tuple[Memory, list[dict[str, Any]]]:
    """Evaluate the rules after each fold.

    Args:
        rules: what to look for.
        memory: `Memory()`, or what the last evaluation returned.
        call: the call, `result` included.
        result: what was just folded; None after a pause, a gap or the end, which only silences depend on.

    Returns:
        The new memory, and the alerts (alert/1) that this raised.
    """
    if result is not None:
        memory = _remember(memory, call.timeline, result)
    attributes = result.utterance.attributes if result else reserved(call.attributes)
    alerts = []
    for rule in rules:
        if result is None and rule.measure is not Measure.SILENCE:
            continue
        for reading in _READ[rule.measure](rule, memory, call.timeline):
            before = memory.episodes.get(rule.name, _NO_EPISODE)
            episode = _next_episode(rule, before, reading, attributes, call.started_at_ms)
            if episode is before:  # as nearly always
                continue
            raised = _noted(memory.raised, rule, reading, before, episode)
            memory = replace(memory, episodes={**memory.episodes, rule.name: episode}, raised=raised)
            if episode.number > before.number:
                alerts.append(_alert(rule, reading, episode.number, call, result))
    return memory, alerts


def states(memory: Memory, call_id: str, *, ended_ms: int | None) -> list[dict[str, Any]]:
    """`alerts` of call/1; `ended_ms`: the call's length, if it has ended."""
    found = []
    for alert in memory.raised:
        state = AlertState.RAISED if ended_ms is None else AlertState.ENDED
        found.append(
            {
                "alert_id": _id(call_id, alert.rule, alert.episode),
                "rule": alert.rule,
                "severity": alert.severity.value,
                "state": (state if alert.over_ms is None else AlertState.CLEARED).value,
                "since_ms": alert.since_ms,
                "raised_ms": alert.raised_ms,
                "over_ms": ended_ms if alert.over_ms is None else alert.over_ms,
            }
        )
    return found


def _noted(
    known: tuple[Raised, ...], rule: Rule, reading: _Reading, before: Episode, after: Episode
) -> tuple[Raised, ...]:
    """The alerts after a reading that led from one episode to the other."""
    if after.number > before.number:
        is_past = rule.measure is Measure.SILENCE
        over_ms = reading.since_ms + round(reading.value * 1000) if is_past else None
        new = Raised(rule.name, rule.severity, after.number, reading.since_ms, reading.at_ms, over_ms)
        return (*known, new)[-MAX_ALERTS:]
    if before.is_running and not after.is_running:
        ended = (rule.name, after.number)
        return tuple(replace(one, over_ms=reading.at_ms) if (one.rule, one.episode) == ended else one for one in known)
    return known


def _id(call_id: str, rule: str, episode: int) -> str:
    return f"{call_id}:{rule}:{episode}"


def _next_episode(
    rule: Rule, episode: Episode, reading: _Reading, attributes: Mapping[str, str], started_at_ms: int
) -> Episode:
    """The rule's episode after a reading; it has the next number if that raised an alert."""
    if episode.is_running and reading.value <= rule.clear_at:
        episode = replace(episode, is_running=False)
    if episode.is_running or reading.value < rule.raise_at or reading.at_ms < episode.not_before_ms:
        return episode
    if not rule.may_raise(attributes, started_at_ms + reading.at_ms):
        return episode
    return Episode(
        number=episode.number + 1,
        is_running=rule.measure is not Measure.SILENCE,  # a silence is over when it is evaluated: each is an episode
        not_before_ms=reading.at_ms + round(rule.cooldown_s * 1000),
        since_ms=reading.since_ms,
    )


def _remember(memory: Memory, line: Timeline, result: Result) -> Memory:
    """Keep what windows need: the newest labels of each role, and when the newest interruptions became known."""
    utterance, labels = result.utterance, memory.labels
    standing = scores.standing(result.prediction) if result.prediction else None
    if standing is not None:
        label = Label(*result.voice_ms, scores.VALENCE[standing.emotion])
        known = labels.get(utterance.role, ())
        labels = {**labels, utterance.role: (*known, label)[-MAX_REMEMBERED:]}
    counted = {role: found.count for role, found in timeline.interruptions(line).items()}
    newly = [
        Interrupted(line.end_ms, role, count - memory.counted.get(role, 0))
        for role, count in counted.items()
        if count > memory.counted.get(role, 0)
    ]
    interruptions = (*memory.interruptions, *newly)[-MAX_REMEMBERED:]
    return replace(memory, labels=labels, interruptions=interruptions, counted=counted)


def _negativity(rule: Rule, memory: Memory, line: Timeline) -> list[_Reading]:
    from_ms = line.end_ms - rule.window_s * 1000
    labels = [label for label in _labels(rule, memory) if label.end_ms > from_ms]
    if len(labels) < rule.min_labels:
        return []
    total_ms = sum(label.end_ms - label.start_ms for label in labels)
    balance_ms = sum((label.end_ms - label.start_ms) * label.valence for label in labels)
    value = round(-scores.SCORE_MAX * balance_ms / total_ms, 3) + 0.0
    since_ms = min((label.start_ms for label in labels if label.valence < 0), default=labels[0].start_ms)
    return [_Reading(value, since_ms, line.end_ms)]


def _negative_run(rule: Rule, memory: Memory, line: Timeline) -> list[_Reading]:
    run = list(takewhile(lambda label: label.valence < 0, reversed(_labels(rule, memory))))
    return [_Reading(float(len(run)), run[-1].start_ms if run else line.end_ms, line.end_ms)]


def _interruptions(rule: Rule, memory: Memory, line: Timeline) -> list[_Reading]:
    from_ms = line.end_ms - rule.window_s * 1000
    found = [one for one in memory.interruptions if one.at_ms >= from_ms and rule.role in (None, one.role)]
    since_ms = found[0].at_ms if found else line.end_ms
    return [_Reading(float(sum(one.count for one in found)), since_ms, line.end_ms)]


def _silence(rule: Rule, memory: Memory, line: Timeline) -> list[_Reading]:
    """A reading of each silence not raised yet, at the time it became too long or the cool-down was over."""
    episode = memory.episodes.get(rule.name, Episode())
    readings = []
    for silence in line.silences:
        at_ms = max(silence.start_ms + round(rule.raise_at * 1000), episode.not_before_ms)
        if silence.start_ms > episode.since_ms and at_ms <= silence.end_ms:
            readings.append(_Reading((silence.end_ms - silence.start_ms) / 1000, silence.start_ms, at_ms))
    return readings


def _labels(rule: Rule, memory: Memory) -> Sequence[Label]:
    if rule.role is not None:
        return memory.labels.get(rule.role, ())
    return sorted(label for labels in memory.labels.values() for label in labels)


_READ: Final[Mapping[Measure, Callable[[Rule, Memory, Timeline], list[_Reading]]]] = {
    Measure.NEGATIVITY: _negativity,
    Measure.NEGATIVE_RUN: _negative_run,
    Measure.INTERRUPTIONS: _interruptions,
    Measure.SILENCE: _silence,
}
_MESSAGES: Final = {
    Measure.NEGATIVITY: "{who} negative: {value:.1f} of 5 over the last {window_s:g} s",
    Measure.NEGATIVE_RUN: "{who} negative {value:.0f} times in a row",
    Measure.INTERRUPTIONS: "{value:.0f} interruptions by {who} in the last {window_s:g} s",
    Measure.SILENCE: "no speech for {value:.0f} s",
}


def _alert(rule: Rule, reading: _Reading, episode: int, call: Aggregate, result: Result | None) -> dict[str, Any]:
    is_silence = rule.measure is Measure.SILENCE
    who = rule.role.value if rule.role else "any role"
    return {
        "schema": ALERT_SCHEMA,
        "alert_id": _id(call.call_id, rule.name, episode),
        "call_id": call.call_id,
        "rule": rule.name,
        "severity": rule.severity.value,
        "role": rule.role.value if rule.role else None,
        "episode": episode,
        "value": reading.value,
        "threshold": float(rule.raise_at),
        "since_ms": reading.since_ms,
        "raised_ms": reading.at_ms,
        "raised_at_ms": call.started_at_ms + reading.at_ms,
        "utterance_id": None if is_silence or result is None else result.utterance.id,
        "message": _MESSAGES[rule.measure].format(who=who, value=reading.value, window_s=rule.window_s),
        "attributes": dict(result.utterance.attributes) if result else reserved(call.attributes),
    }
