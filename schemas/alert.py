"""alert/1: a rule's measure has reached its limit in a call. One alert per episode."""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from callmood.schemas.common import Role
from callmood.schemas.parts import Attributes, CallId, Contract, EpochMs, Ms, Number, Text

ALERT_SCHEMA: Final = "callmood.alert/1"


class Severity(StrEnum):
    """How urgent an alert is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Alert(Contract):
    """One episode of one rule. Deterministic: replaying the call gives the same alerts with the same ids.

    It is published once, when it is raised. Whether it has been cleared since is in `alerts` of call/1.
    """

    schema_: Literal["callmood.alert/1"] = Field(ALERT_SCHEMA, alias="schema")
    """Name and version of this schema."""
    alert_id: Annotated[str, Field(min_length=1, max_length=512)]
    """`<call>:<rule>:<episode>`; the same alert has the same id on every replay."""
    call_id: CallId
    """Id of the call: the Kafka key of its audio."""
    rule: Annotated[str, Field(min_length=1, max_length=64)]
    """Name of the rule."""
    severity: Severity = Severity.WARNING
    """How urgent it is."""
    role: Role | None = None
    """The role that the rule watches; null for all roles."""
    episode: Annotated[int, Field(strict=True, ge=1)]
    """1, 2, 3, …: number of the alert among those of this rule in this call."""
    value: Number
    """Measured value, in the unit of the rule's measure."""
    threshold: Number
    """Value at which the rule raises an alert (`raise_at`)."""
    since_ms: Ms
    """Media time at which the episode began."""
    raised_ms: Ms
    """Media time at which the value reached the threshold."""
    raised_at_ms: EpochMs
    """Capture time of the audio at `raised_ms`, ms since 1970-01-01 UTC."""
    utterance_id: Annotated[str, Field(max_length=512)] | None = None
    """The utterance that raised the alert; null for a silence."""
    message: Text
    """Text for a person."""
    attributes: Attributes = Field(default_factory=dict)
    """The call's attributes with reserved names (README.md)."""

    @model_validator(mode="after")
    def _begins_before_it_is_raised(self) -> Self:
        if self.since_ms > self.raised_ms:
            raise ValueError("since_ms is after raised_ms")
        return self
