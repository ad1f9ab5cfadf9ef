"""Alert rules: their measures, the calls and hours to which they apply, and their form in TOML. Pure."""

import math
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from callmood.schemas.alert import Severity
from callmood.schemas.common import Reserved, Role
from callmood.worker.call import scores, timeline
from callmood.worker.errors import ConfigurationError
from callmood.worker.time_of_day import minute_of_day

MAX_REMEMBERED: Final = 64
"""Labels and interruptions that a call remembers for its rules."""
_MIN_SILENCE_S: Final = timeline.LONG_SILENCE_MS / 1000
_MOST_S: Final = 1e6
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


def _hours(value: Any) -> tuple[int, int]:
    """`22:00-07:00` as minutes of the day."""
    match = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write hours as 22:00-07:00")
    first, last = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if first == last:
        raise ValueError(f"{value} is empty: use two different times")
    return first, last


def _zone(value: Any) -> ZoneInfo:
    try:
        return ZoneInfo(value)
    except (OSError, TypeError, ValueError, KeyError) as error:  # KeyError: not in this machine's database
        raise ValueError(f"{value!r} is not a time zone on this machine: use a name such as Europe/Berlin") from error


def _name(value: str) -> str:
    if ":" in value:
        raise ValueError("the name of a rule has no colon, because the id of an alert is <call>:<rule>:<episode>")
    return value


Name = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_name)]
Hours = Annotated[tuple[int, int], BeforeValidator(_hours)]
Zone = Annotated[ZoneInfo, BeforeValidator(_zone)]
Values = Annotated[frozenset[str], Field(min_length=1)]


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
    Measure.NEGATIVE_RUN: (0, MAX_REMEMBERED),
    Measure.INTERRUPTIONS: (0, math.inf),
    Measure.SILENCE: (0, math.inf),
}
"""Least and greatest value of each measure."""


class Rule(BaseModel):
    """One rule. `role` None is any role; `window_s` and `min_labels` apply to measures that have a window or labels."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Name
    measure: Measure
    raise_at: float = Field(ge=-_MOST_S, le=_MOST_S)
    clear_at: float = Field(ge=-_MOST_S, le=_MOST_S)
    role: Role | None = None
    window_s: float = Field(60.0, gt=0, le=_MOST_S)
    min_labels: int = Field(3, ge=1, le=MAX_REMEMBERED)
    cooldown_s: float = Field(120.0, gt=0, le=_MOST_S)
    severity: Severity = Severity.WARNING
    where: Mapping[Reserved, Values] = Field(default_factory=dict)
    """Only of calls with one of these values of each attribute."""
    quiet: tuple[Hours, ...] = ()
    """When it raises nothing."""
    time_zone: Zone = ZoneInfo("UTC")

    def may_raise(self, attributes: Mapping[str, str], at_ms: int) -> bool:
        """Whether it applies to a call with these attributes at this time, ms since 1970."""
        if any(attributes.get(name) not in values for name, values in self.where.items()):
            return False
        minute = minute_of_day(at_ms, self.time_zone) if self.quiet else None
        if minute is None:  # a gateway's clock may say anything
            return True
        return not any(
            from_ <= minute < to if from_ < to else minute >= from_ or minute < to for from_, to in self.quiet
        )

    @model_validator(mode="after")
    def _can_be_raised_and_cleared(self) -> Self:
        if self.clear_at >= self.raise_at:
            raise ValueError("clear_at must be below raise_at")
        if self.measure is Measure.SILENCE and self.raise_at < _MIN_SILENCE_S:
            raise ValueError(f"raise_at of a silence must be at least {_MIN_SILENCE_S:g} s")
        if self.raise_at > MAX_REMEMBERED and self.measure in (Measure.NEGATIVE_RUN, Measure.INTERRUPTIONS):
            raise ValueError(f"raise_at of {self.measure.value} must be at most {MAX_REMEMBERED}")
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


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules from TOML: one `[name]` table a rule, with the fields of `Rule`.

    Raises:
        ConfigurationError: not TOML, an unknown field or value, or figures that contradict each other; names the line.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"alert rules: {error}") from error
    rules = tuple(_rule(text, name, table) for name, table in tables.items())
    names = [rule.name for rule in rules]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigurationError(f"alert rules: {repeated!r} is the name of two rules; their alerts would share ids")
    return rules


def _rule(text: str, name: str, table: object) -> Rule:
    if not isinstance(table, dict):
        raise ConfigurationError(f"alert rules, line {_line_of(text, name)}: put {name} into the table of a rule")
    try:
        return Rule(**{"name": name, **table})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"] if part != "[key]")
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
        key = lines[number].partition("=")[0].strip()
        if key and f"{field}.".startswith(f"{key}."):
            return number + 1
    return heads[0] + 1


def _head_of(line: str) -> str:
    line = line.partition("#")[0].strip()
    return line[1:-1].strip().strip("\"'") if line.startswith("[") and line.endswith("]") else ""
