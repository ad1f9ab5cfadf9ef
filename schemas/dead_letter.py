"""dead_letter/1: a record that broke the contract, on the dead-letter topic, ready to be sent again.

Key, value and headers are those of the original record, byte for byte. The worker adds headers of its own, all UTF-8
text, whose names start with `dead_letter.`; an original header of such a name is stored as `original.dead_letter.…`.
To send the record again, drop the worker's headers and restore those names: `original_headers` does both.

A value, key or headers that are too large for the topic are left out, and `dead_letter.incomplete` names them. The
whole record is still at its source position. A null header value is stored as an empty one.

The value may be call audio, even of a pause that should not have been sent: the topic needs the audio topic's access
rules and a retention no longer than the audio topic's.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from callmood.schemas.common import DeadLetterReason

DEAD_LETTER_SCHEMA: Final = "callmood.dead_letter/1"
PREFIX: Final = "dead_letter."
DETAIL_CHARACTERS: Final = 512

_MOVED: Final = "original."
_RESERVED: Final = re.compile(r"(original\.)*dead_letter\.")

Decimal = Annotated[str, Field(pattern=r"^[0-9]{1,19}$")]
Headers = Iterable[tuple[str, bytes | None]]


def _absent_not_null(schema: dict[str, Any]) -> None:
    """A header that has nothing to say is absent."""
    for name, described in schema["properties"].items():
        if "anyOf" in described:
            schema["required"].remove(name)
            described.update(next(option for option in described.pop("anyOf") if option != {"type": "null"}))
            del described["default"]


class DeadLetterHeaders(BaseModel):
    """The headers that the worker adds. The original headers come before them and are not described here."""

    model_config = ConfigDict(
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
        json_schema_extra=_absent_not_null,
    )

    schema_: Literal["callmood.dead_letter/1"] = Field(DEAD_LETTER_SCHEMA, alias="dead_letter.schema")
    """Name and version of this schema."""
    reason: DeadLetterReason = Field(alias="dead_letter.reason")
    """Why the record was rejected, for example `truncated` (see README.md)."""
    detail: Annotated[str, Field(max_length=DETAIL_CHARACTERS)] = Field(alias="dead_letter.detail")
    """Explanation for a person: names and lengths, never audio, phone numbers or payload."""
    topic: Annotated[str, Field(min_length=1, max_length=249)] = Field(alias="dead_letter.topic")
    """Topic of the original record."""
    partition: Decimal = Field(alias="dead_letter.partition")
    """Partition of the original record."""
    offset: Decimal = Field(alias="dead_letter.offset")
    """Offset of the original record."""
    timestamp_ms: Annotated[str, Field(pattern=r"^-?[0-9]{1,19}$")] = Field(alias="dead_letter.timestamp_ms")
    """Timestamp of the original record; -1 if it had none."""
    worker: Annotated[str, Field(min_length=1, max_length=64)] = Field(alias="dead_letter.worker")
    """Version of the worker that rejected the record."""
    incomplete: Annotated[str, Field(pattern=r"^(value|key|headers)(,(value|key|headers))*$")] | None = Field(
        None, alias="dead_letter.incomplete"
    )
    """Parts that are not whole: the `value` is left out, the `key` is cut, some `headers` are left out."""
    value_bytes: Decimal | None = Field(None, alias="dead_letter.value_bytes")
    """Size of the original value, where it is left out; absent where the original had none."""
    key_bytes: Decimal | None = Field(None, alias="dead_letter.key_bytes")
    """Size of the original key, where it is cut."""
    headers_bytes: Decimal | None = Field(None, alias="dead_letter.headers_bytes")
    """Size of the names and values of the original headers, where some are left out."""

    @classmethod
    def from_kafka(cls, headers: Headers) -> Self | None:
        """The worker's headers of a record on the dead-letter topic; None if the record is not a worker's."""
        found = {name: (value or b"").decode(errors="replace") for name, value in headers if name.startswith(PREFIX)}
        try:
            return cls.model_validate(found)
        except ValidationError:
            return None

    @property
    def is_whole(self) -> bool:
        """Whether the original record can be sent again."""
        return self.incomplete is None


def stored_headers(headers: Headers) -> list[tuple[str, bytes]]:
    """Original headers as a dead-letter record has them: none looks like the worker's, none is null."""
    return [(_MOVED + name if _RESERVED.match(name) else name, value or b"") for name, value in headers]


def original_headers(headers: Headers) -> list[tuple[str, bytes]]:
    """The original headers of a dead-letter record, without the worker's."""
    return [
        (name.removeprefix(_MOVED) if _RESERVED.match(name) else name, value or b"")
        for name, value in headers
        if not name.startswith(PREFIX)
    ]
