"""erasure/1: a call that everybody who copied its results must forget."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from callmood.schemas.parts import CallId, Contract, EpochMs

ERASURE_SCHEMA: Final = "callmood.erasure/1"


class Erasure(Contract):
    """Delete this call, and drop what arrives of it later. A second erasure of a call has the same id."""

    schema_: Literal["callmood.erasure/1"] = Field(ERASURE_SCHEMA, alias="schema")
    """Name and version of this schema."""
    erasure_id: Annotated[str, Field(min_length=1, max_length=512)]
    """`<call>:erasure`; the same on every erasure of the call."""
    call_id: CallId
    """Id of the call: the Kafka key of its audio."""
    erased_at_ms: EpochMs
    """When `callmood erase` ran, ms since 1970-01-01 UTC."""

    @model_validator(mode="after")
    def _has_the_id_of_its_call(self) -> Self:
        if self.erasure_id != erasure_id(self.call_id):
            raise ValueError("erasure_id is not that of the call")
        return self


def erasure_id(call_id: str) -> str:
    """The id of every erasure of this call."""
    return f"{call_id}:erasure"
