"""dead_letter/1: a record that broke the contract, on the dead-letter topic, ready to be sent again.

Key and value are the original record's, byte for byte, and so are its headers; what is said here travels as further
headers, all UTF-8 text. Sending the record back needs nothing but dropping the headers that start with `dead_letter.`.
A value that is too big for the topic is left out (null); it is still at its source position.

The value may be call audio, even of a pause that should not have been sent: the topic needs the audio topic's access
rules and a retention no longer than the audio topic's.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from callmood.schemas.common import DeadLetterReason

DEAD_LETTER_SCHEMA: Final = "callmood.dead_letter/1"
PREFIX: Final = "dead_letter."

Decimal = Annotated[str, Field(pattern=r"^[0-9]{1,19}$")]


class DeadLetterHeaders(BaseModel):
    """The headers that the worker adds. The original headers stand beside them and are not described here."""

    model_config = ConfigDict(
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )

    schema_: Literal["callmood.dead_letter/1"] = Field(DEAD_LETTER_SCHEMA, alias="dead_letter.schema")
    """Name and version of this schema."""
    reason: DeadLetterReason = Field(alias="dead_letter.reason")
    """Why the record was refused, for example `truncated` (see README.md)."""
    detail: Annotated[str, Field(max_length=512)] = Field(alias="dead_letter.detail")
    """For people: names and lengths, never audio, numbers of callers or payload."""
    topic: Annotated[str, Field(min_length=1, max_length=249)] = Field(alias="dead_letter.topic")
    """Topic of the original record."""
    partition: Decimal = Field(alias="dead_letter.partition")
    """Its partition."""
    offset: Decimal = Field(alias="dead_letter.offset")
    """Its offset."""
    timestamp_ms: Annotated[str, Field(pattern=r"^-?[0-9]{1,19}$")] = Field(alias="dead_letter.timestamp_ms")
    """Timestamp of the original record; -1 where it had none."""
    worker: Annotated[str, Field(min_length=1, max_length=64)] = Field(alias="dead_letter.worker")
    """Version of the worker that refused it."""

    def to_kafka(self) -> list[tuple[str, bytes]]:
        """The headers to append to the original ones."""
        return [(name, value.encode()) for name, value in self.model_dump().items()]
