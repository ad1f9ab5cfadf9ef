"""Rules over a call: its aggregate and newest utterance in, alerts out. Pure.

A rule reads one measure of the call. It raises one alert when the measure reaches `raise_at`, stays quiet until the
measure has fallen to `clear_at`, and never raises two alerts within `cooldown_s`. All times are media time, so the
alerts of a call are the same live, replayed, and judged again from its stored utterances (`refold`).

A state is a plain dict that msgpack can carry, bounded for calls without end.
"""

import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from callmood.schemas.alert import ALERT_SCHEMA
from callmood.schemas.common import Role
from callmood.worker.call import scores, timeline
from callmood.worker.errors import ConfigurationError
from callmood.worker.records import Result

_MAX_REMEMBERED = 64
_MIN_SILENCE_S = timeline.LONG_SILENCE_MS / 1000


class Measure(StrEnum):
    """What a rule reads; more is worse for each."""

    NEGATIVITY = "negativity"
    """Mean of the role's labels in the window, weighted by duration: 5 all negative, 0 balanced, -5 all positive."""
    NEGATIVE_RUN = "negative_run"
    """Negative labels of the role in a row."""
    INTERRUPTIONS = "interruptions"
    """Interruptions by the role in the window."""
    SILENCE = "silence"
    """Seconds in which nobody speaks. Judged once no utterance can fill the silence any more; each is an episode."""


class Severity(StrEnum):
    """How loud an alert is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Rule(BaseModel):
    """One rule. `role` None means any; `window_s` and `min_labels` matter to measures that have a window or labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    measure: Measure
    raise_at: float
    clear_at: float
    role: Role | None = None
    window_s: float = Field(60.0, gt=0)
    min_labels: int = Field(3, ge=1)
    cooldown_s: float = Field(120.0, gt=0)
    severity: Severity = Severity.WARNING

    @model_validator(mode="after")
    def _can_be_raised_and_cleared(self) -> Self:
        if self.clear_at >= self.raise_at:
            raise ValueError("clear_at must be below raise_at")
        if self.measure is Measure.SILENCE and self.raise_at < _MIN_SILENCE_S:
            raise ValueError(f"a silence is known from {_MIN_SILENCE_S:g} s on")
        if self.raise_at > _MAX_REMEMBERED and self.measure in (Measure.NEGATIVE_RUN, Measure.INTERRUPTIONS):
            raise ValueError(f"only {_MAX_REMEMBERED} labels and interruptions are remembered")
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


class _Episode(NamedTuple):
    """How often a rule was raised, whether it still is, since when, and when it may be raised again."""

    number: int = 0
    is_running: bool = False
    not_before_ms: int = 0
    since_ms: int = -1


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules from TOML: one `[name]` table a rule, with the fields of `Rule`.

    Raises:
        ConfigurationError: not TOML, an unknown field or value, or figures that contradict each other.
    """
    try:
        return tuple(Rule(**{"name": name, **table}) for name, table in tomllib.loads(text).items())
    except (tomllib.TOMLDecodeError, TypeError, ValidationError) as error:
        raise ConfigurationError(f"alert rules: {error}") from error


def empty() -> dict[str, Any]:
    """Nothing heard, nothing raised."""
    return {"labels": {}, "interruptions": [], "counted": {}, "episodes": {}}


def evaluate(
    rules: Sequence[Rule], state: dict[str, Any], call: Mapping[str, Any], result: Result | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Judge a call after each fold.

    Args:
        rules: what to look for.
        state: `empty()`, or what the last call returned.
        call: the state of `worker.aggregate`, `result` included.
        result: what was just folded; None after a pause, a gap or the end, which only silences matter to.

    Returns:
        The new state, and the alerts (alert/1) that this raised.
    """
    if result is not None:
        state = _remember(state, call["timeline"], result)
    alerts = []
    for rule in rules:
        if result is None and rule.measure is not Measure.SILENCE:
            continue
        for reading in _READ[rule.measure](rule, state, call["timeline"]):
            state, is_raised = _judge(rule, state, reading)
            if is_raised:
                alerts.append(_alert(rule, reading, state["episodes"][rule.name][0], call, result))
    return state, alerts


def _episode(rule: Rule, state: dict[str, Any]) -> _Episode:
    return _Episode(*state["episodes"].get(rule.name, ()))


def _judge(rule: Rule, state: dict[str, Any], reading: _Reading) -> tuple[dict[str, Any], bool]:
    """Move the rule's episode on."""
    episode = _episode(rule, state)
    if episode.is_running and reading.value <= rule.clear_at:
        episode = episode._replace(is_running=False)
    is_raised = not episode.is_running and reading.value >= rule.raise_at and reading.at_ms >= episode.not_before_ms
    if is_raised:
        # a silence is over when it is judged, so each is an episode of its own
        is_running = rule.measure is not Measure.SILENCE
        not_before_ms = reading.at_ms + round(rule.cooldown_s * 1000)
        episode = _Episode(episode.number + 1, is_running, not_before_ms, reading.since_ms)
    return {**state, "episodes": {**state["episodes"], rule.name: list(episode)}}, is_raised


def _remember(state: dict[str, Any], line: dict[str, Any], result: Result) -> dict[str, Any]:
    """Keep what windows need: the newest labels of each role, and when the newest interruptions were counted."""
    utterance, labels = result.utterance, state["labels"]
    answer = scores.standing(result.prediction) if result.prediction else None
    if answer is not None:
        said = [
            *labels.get(utterance.role.value, []),
            [utterance.start_ms, utterance.end_ms, scores.VALENCE[answer[0]]],
        ]
        labels = {**labels, utterance.role.value: said[-_MAX_REMEMBERED:]}
    counted = {role: found.count for role, found in timeline.interruptions(line).items()}
    newly = [
        [line["end_ms"], role, count - state["counted"].get(role, 0)]
        for role, count in counted.items()
        if count > state["counted"].get(role, 0)
    ]
    return {
        **state,
        "labels": labels,
        "interruptions": [*state["interruptions"], *newly][-_MAX_REMEMBERED:],
        "counted": counted,
    }


def _negativity(rule: Rule, state: dict[str, Any], line: dict[str, Any]) -> list[_Reading]:
    from_ms = line["end_ms"] - rule.window_s * 1000
    said = [label for label in _labels(rule, state) if label[1] > from_ms]
    if len(said) < rule.min_labels:
        return []
    total_ms = sum(end_ms - start_ms for start_ms, end_ms, _ in said)
    value = -scores.SCORE_MAX * sum((end_ms - start_ms) * valence for start_ms, end_ms, valence in said) / total_ms
    since_ms = min((start_ms for start_ms, _, valence in said if valence < 0), default=said[0][0])
    return [_Reading(round(value, 3) + 0.0, since_ms, line["end_ms"])]


def _negative_run(rule: Rule, state: dict[str, Any], line: dict[str, Any]) -> list[_Reading]:
    run: list[int] = []
    for start_ms, _, valence in reversed(_labels(rule, state)):
        if valence >= 0:
            break
        run.append(start_ms)
    return [_Reading(float(len(run)), run[-1] if run else line["end_ms"], line["end_ms"])]


def _interruptions(rule: Rule, state: dict[str, Any], line: dict[str, Any]) -> list[_Reading]:
    from_ms = line["end_ms"] - rule.window_s * 1000
    found = [
        (at_ms, count)
        for at_ms, role, count in state["interruptions"]
        if at_ms >= from_ms and rule.role in (None, role)
    ]
    since_ms = found[0][0] if found else line["end_ms"]
    return [_Reading(float(sum(count for _, count in found)), since_ms, line["end_ms"])]


def _silence(rule: Rule, state: dict[str, Any], line: dict[str, Any]) -> list[_Reading]:
    """One reading a silence not raised yet, at the moment it became too long or the cool-down let it through."""
    episode = _episode(rule, state)
    readings = [
        _Reading(
            (end_ms - start_ms) / 1000, start_ms, max(start_ms + round(rule.raise_at * 1000), episode.not_before_ms)
        )
        for start_ms, end_ms in timeline.silences(line)
        if start_ms > episode.since_ms
    ]
    return [reading for reading in readings if reading.at_ms <= reading.since_ms + reading.value * 1000]


def _labels(rule: Rule, state: dict[str, Any]) -> list[list[int]]:
    said = [label for role, labels in state["labels"].items() if rule.role in (None, role) for label in labels]
    return said if rule.role else sorted(said)


_READ: Final = {
    Measure.NEGATIVITY: _negativity,
    Measure.NEGATIVE_RUN: _negative_run,
    Measure.INTERRUPTIONS: _interruptions,
    Measure.SILENCE: _silence,
}
_SAYS: Final = {
    Measure.NEGATIVITY: "{who} negative: {value:.1f} of 5 over the last {window_s:g} s",
    Measure.NEGATIVE_RUN: "{who} negative {value:.0f} times in a row",
    Measure.INTERRUPTIONS: "{value:.0f} interruptions by {who} in the last {window_s:g} s",
    Measure.SILENCE: "Nobody spoke for {value:.0f} s",
}


def _alert(
    rule: Rule, reading: _Reading, episode: int, call: Mapping[str, Any], result: Result | None
) -> dict[str, Any]:
    is_silence = rule.measure is Measure.SILENCE
    who = rule.role.value if rule.role else "any role"
    return {
        "schema": ALERT_SCHEMA,
        "alert_id": f"{call['call_id']}:{rule.name}:{episode}",
        "call_id": call["call_id"],
        "rule": rule.name,
        "severity": rule.severity.value,
        "role": rule.role.value if rule.role else None,
        "episode": episode,
        "value": reading.value,
        "threshold": float(rule.raise_at),
        "since_ms": reading.since_ms,
        "raised_ms": reading.at_ms,
        "raised_at_ms": call["started_at_ms"] + reading.at_ms,
        "utterance_id": None if is_silence or result is None else result.utterance.id,
        "message": _SAYS[rule.measure].format(who=who, value=reading.value, window_s=rule.window_s),
    }
