"""Rules over a call: its aggregate and newest utterance in, alerts out. Pure.

A rule reads one measure of the call. It raises one alert when the measure reaches `raise_at`, stays quiet until the
measure has fallen to `clear_at`, and never raises two alerts within `cooldown_s`. All times are media time, so the
alerts of a call are the same live, replayed, and evaluated again from its stored utterances (`refold`).
"""

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import takewhile
from typing import Any, Final, NamedTuple, Self

import msgspec
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from callmood.schemas.alert import ALERT_SCHEMA, Severity
from callmood.schemas.call import MAX_ALERTS, AlertState
from callmood.schemas.common import Role
from callmood.worker.call import scores, timeline
from callmood.worker.call.aggregate import Aggregate
from callmood.worker.call.timeline import Timeline
from callmood.worker.errors import ConfigurationError
from callmood.worker.records import Result, reserved

_MAX_REMEMBERED = 64
_MIN_SILENCE_S = timeline.LONG_SILENCE_MS / 1000
_MOST_S = 1e6


class Measure(StrEnum):
    """What a rule measures; for each measure, a higher value is worse."""

    NEGATIVITY = "negativity"
    """Mean of the role's labels in the window, weighted by duration: 5 all negative, 0 balanced, -5 all positive."""
    NEGATIVE_RUN = "negative_run"
    """Negative labels of the role in a row."""
    INTERRUPTIONS = "interruptions"
    """Interruptions by the role in the window."""
    SILENCE = "silence"
    """Seconds without speech. A silence is evaluated once no utterance can fill it; each is an episode."""


_RANGES: Final = {
    Measure.NEGATIVITY: (-scores.SCORE_MAX, scores.SCORE_MAX),
    Measure.NEGATIVE_RUN: (0, _MAX_REMEMBERED),
    Measure.INTERRUPTIONS: (0, math.inf),
    Measure.SILENCE: (0, math.inf),
}
"""Least and greatest value of each measure."""


class Rule(BaseModel):
    """One rule. `role` None is any role; `window_s` and `min_labels` apply to measures that have a window or labels."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=64)
    measure: Measure
    raise_at: float = Field(ge=-_MOST_S, le=_MOST_S)
    clear_at: float = Field(ge=-_MOST_S, le=_MOST_S)
    role: Role | None = None
    window_s: float = Field(60.0, gt=0, le=_MOST_S)
    min_labels: int = Field(3, ge=1, le=_MAX_REMEMBERED)
    cooldown_s: float = Field(120.0, gt=0, le=_MOST_S)
    severity: Severity = Severity.WARNING

    @model_validator(mode="after")
    def _can_be_raised_and_cleared(self) -> Self:
        if self.clear_at >= self.raise_at:
            raise ValueError("clear_at must be below raise_at")
        if self.measure is Measure.SILENCE and self.raise_at < _MIN_SILENCE_S:
            raise ValueError(f"raise_at of a silence must be at least {_MIN_SILENCE_S:g} s")
        if self.raise_at > _MAX_REMEMBERED and self.measure in (Measure.NEGATIVE_RUN, Measure.INTERRUPTIONS):
            raise ValueError(f"raise_at of {self.measure.value} must be at most {_MAX_REMEMBERED}")
        least, most = _RANGES[self.measure]
        if self.raise_at > most:
            raise ValueError(f"{self.measure} is at most {most:g}: a rule with raise_at {self.raise_at:g} never alerts")
        if self.clear_at < least:
            raise ValueError(f"{self.measure} is at least {least:g}: clear_at {self.clear_at:g} is never reached")
        return self


DEFAULT_RULES: Final = (
    Rule(
        name="sustained_negative",
        measure=Measure.NEGATIVITY,
        role=Role.CUSTOMER,
        raise_at=3,
        clear_at=1,
        severity=Severity.CRITICAL,
    ),
    Rule(name="negative_run", measure=Measure.NEGATIVE_RUN, role=Role.CUSTOMER, raise_at=4, clear_at=0),
    Rule(name="long_silence", measure=Measure.SILENCE, raise_at=30, clear_at=0, cooldown_s=60),
    Rule(
        name="interruptions",
        measure=Measure.INTERRUPTIONS,
        raise_at=5,
        clear_at=1,
        window_s=180,
        severity=Severity.INFO,
    ),
)


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


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules from TOML: one `[name]` table a rule, with the fields of `Rule`.

    Raises:
        ConfigurationError: not TOML, an unknown field or value, or figures that contradict each other; names the line.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"alert rules: {error}") from error
    return tuple(_rule(text, name, table) for name, table in tables.items())


def _rule(text: str, name: str, table: object) -> Rule:
    if not isinstance(table, dict):
        raise ConfigurationError(f"alert rules, line {_line_of(text, name)}: {name} is not in the table of a rule")
    try:
        return Rule(**{"name": name, **table})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f"alert rules, line {_line_of(text, name, field)}: [{name}]"
        raise ConfigurationError(f"{where}{f' {field}' if field else ''}: {first['msg']}") from error


def _line_of(text: str, name: str, field: str = "") -> int:
    """The line of a field of a rule, or where the rule begins; 1 if it is written in a way that is not looked for."""
    lines = text.splitlines()
    heads = [number for number, line in enumerate(lines) if _head_of(line) == name]
    if not heads:
        return next((n for n, line in enumerate(lines, 1) if line.partition("=")[0].strip() == name), 1)
    for number in range(heads[0] + 1, len(lines)):
        if lines[number].lstrip().startswith("["):
            break
        if field and lines[number].partition("=")[0].strip() == field:
            return number + 1
    return heads[0] + 1


def _head_of(line: str) -> str:
    line = line.partition("#")[0].strip()
    return line[1:-1].strip().strip("\"'") if line.startswith("[") and line.endswith("]") else ""


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
    alerts = []
    for rule in rules:
        if result is None and rule.measure is not Measure.SILENCE:
            continue
        for reading in _READ[rule.measure](rule, memory, call.timeline):
            before = memory.episodes.get(rule.name, Episode())
            episode = _next_episode(rule, before, reading)
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


def _next_episode(rule: Rule, episode: Episode, reading: _Reading) -> Episode:
    """The rule's episode after a reading; it has the next number if that raised an alert."""
    if episode.is_running and reading.value <= rule.clear_at:
        episode = replace(episode, is_running=False)
    if episode.is_running or reading.value < rule.raise_at or reading.at_ms < episode.not_before_ms:
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
        labels = {**labels, utterance.role: (*known, label)[-_MAX_REMEMBERED:]}
    counted = {role: found.count for role, found in timeline.interruptions(line).items()}
    newly = [
        Interrupted(line.end_ms, role, count - memory.counted.get(role, 0))
        for role, count in counted.items()
        if count > memory.counted.get(role, 0)
    ]
    interruptions = (*memory.interruptions, *newly)[-_MAX_REMEMBERED:]
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
