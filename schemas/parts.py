"""Parts that several schemas share: strict numbers, probabilities, and the stamps of model and policy."""

from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationInfo, field_validator, model_validator

from callmood.schemas.audio import MAX_ATTRIBUTES
from callmood.schemas.common import Role

FLAT: Final = "flat"
"""Validation context of a record that comes from a Redis hash, where every value is text."""

CallId = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=256)]
Count = Annotated[int, Field(strict=True, ge=0)]
Ms = Annotated[int, Field(strict=True, ge=0)]
EpochMs = Annotated[int, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = StrictBool
Attributes = Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=MAX_ATTRIBUTES)]
Traceparent = Annotated[str, Field(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]

SUM_TOLERANCE: Final = 0.005


class Contract(BaseModel):
    """Base of every published object: immutable, no unknown fields (except for `read`), no NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        serialize_by_alias=True,
        validate_by_alias=True,
        validate_by_name=True,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )

    @classmethod
    def read(cls, text: str | bytes) -> Self:
        """The object in JSON text. Fields that this version does not know are ignored: a reader may be older.

        Raises:
            pydantic.ValidationError: a field is missing or not what the schema says.
        """
        return cls.model_validate_json(text, extra="ignore")


class Probabilities(Contract):
    """One share per emotion; they sum to 1."""

    anger: Share
    """Probability of anger."""
    happiness: Share
    """Probability of happiness."""
    neutral: Share
    """Probability of neutral speech."""
    sadness: Share
    """Probability of sadness."""

    @model_validator(mode="after")
    def _sum_is_one(self) -> Self:
        total = self.anger + self.happiness + self.neutral + self.sadness
        if abs(total - 1) > SUM_TOLERANCE:
            raise ValueError(f"probabilities sum to {total:.4f}, not 1")
        return self

    @property
    def highest(self) -> float:
        """The largest share."""
        return max(self.anger, self.happiness, self.neutral, self.sadness)


class ModelStamp(Contract):
    """The model that computed the emotion."""

    id: Text
    """Name of the model."""
    version: Text
    """Version of the model."""
    digest: Text
    """SHA-256 of the model's configuration and weights, as `sha256:<hex>`."""


class PolicyStamp(Contract):
    """The policy under which the record was made."""

    emotion_roles: tuple[Role, ...]
    """Roles whose emotion may be inferred."""
    require_notice: Flag
    """Whether emotion needs the caller's notice."""
    legal_basis: Annotated[str, Field(max_length=1024)] | None = None
    """Written reason; never null if the roles include `agent`, `mixed` or `unknown`."""

    @field_validator("emotion_roles", mode="before")
    @classmethod
    def _split_flat(cls, value: object, info: ValidationInfo) -> object:
        if info.context == FLAT and isinstance(value, str):
            return value.split(",") if value else ()
        return value

    @model_validator(mode="after")
    def _agents_need_a_basis(self) -> Self:
        if Role.AGENT in self.emotion_roles and not (self.legal_basis or "").strip():
            raise ValueError("emotion_roles has `agent`, and legal_basis is empty")
        return self
