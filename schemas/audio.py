"""audio/1: one record of call audio on Kafka. This model describes its headers.

The key is the call id, the value is raw, interleaved samples, and the timestamp is the capture time of the first
sample. Send 20 ms to 1 s of audio per record (100 to 200 ms is best), and both legs of a call with one key. The worker
reads records with `worker.intake.decode`, which is written for speed; a test compares it with this model.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from callmood.schemas.common import Encoding, Event, Notice, Scope

AUDIO_SCHEMA: Final = "callmood.audio/1"
ATTRIBUTE_PREFIX: Final = "attr."
MAX_ATTRIBUTES: Final = 64
MAX_ATTRIBUTE_CHARS: Final = 256
MAX_CHANNELS: Final = 8
MAX_CALL_ID_CHARS: Final = 256

ROLES_PATTERN: Final = r"(customer|agent|ivr|mixed|unknown)"
STREAM_PATTERN: Final = r"^[A-Za-z0-9._~/+=-]{1,64}$"
SEQ_PATTERN: Final = r"^[0-9]{1,15}$"
DECIMAL_MS_PATTERN: Final = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
NO_CONTROLS_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f]*$"

MAY_DISCARD: Final = frozenset((Event.GAP, Event.RESUME, Event.SILENCE))
"""Events that may have `discarded_ms`."""

DecimalMs = Annotated[str, Field(pattern=DECIMAL_MS_PATTERN)]


class AudioHeaders(BaseModel):
    """Headers of an audio record, as text. Headers that are not named here are ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
        json_schema_extra={
            "patternProperties": {
                r"^attr\.": {
                    "type": "string",
                    "maxLength": MAX_ATTRIBUTE_CHARS,
                    "pattern": NO_CONTROLS_PATTERN,
                    "description": "Copied to the call's aggregate; at most 64 on a record, names up to 256 characters",
                }
            }
        },
    )

    schema_: Literal["callmood.audio/1"] = Field(alias="schema")
    """Name and version of this schema."""
    event: Event = Event.MEDIA
    """`media` carries audio; all other events have an empty value."""
    stream: Annotated[str, Field(pattern=STREAM_PATTERN)] = "0"
    """Id of the media session in the call; a reconnect is a new stream. 1 to 64 characters of `A-Za-z0-9._~/+=-`."""
    seq: Annotated[str, Field(pattern=SEQ_PATTERN)]
    """0, 1, 2, …: number of the record in its stream, events included."""
    media_ms: DecimalMs | None = None
    """Media time of the first sample, ms from the stream's start; absent: computed from the timestamp."""
    encoding: Encoding | None = None
    """Encoding of the samples. Required on `media`."""
    rate: Literal["8000", "16000", "48000"] | None = None
    """Samples per second of one channel. Required on `media`."""
    layout: Annotated[str, Field(pattern=rf"^{ROLES_PATTERN}(,{ROLES_PATTERN}){{0,{MAX_CHANNELS - 1}}}$")] | None = None
    """Role of each interleaved channel, comma-separated. Required on `media`."""
    discarded_ms: DecimalMs | None = None
    """Length of audio that is not sent, ms: above 0 on `gap`, optional on `resume` and `silence`, else 0 or absent."""
    scope: Scope | None = None
    """What `end` ends: `stream` or `call`; absent: the stream, and with the last open stream the call."""
    notice: Notice | None = None
    """Whether the caller was told that emotion is inferred."""
    traceparent: str | None = None
    """W3C trace context; ignored if malformed."""

    @model_validator(mode="after")
    def _media_says_its_format(self) -> Self:
        if self.event is Event.MEDIA and None in (self.encoding, self.rate, self.layout):
            raise ValueError("media needs encoding, rate and layout")
        return self

    @model_validator(mode="after")
    def _discarded_has_its_place(self) -> Self:
        discarded_ms = float(self.discarded_ms or 0)
        if self.event is Event.GAP and discarded_ms == 0:
            raise ValueError("gap needs discarded_ms")
        if discarded_ms > 0 and self.event not in MAY_DISCARD:
            raise ValueError(f"discarded_ms has no meaning on {self.event}")
        return self

    @model_validator(mode="after")
    def _attributes_are_bounded(self) -> Self:
        attributes = self.attributes
        if len(attributes) > MAX_ATTRIBUTES:
            raise ValueError(f"more than {MAX_ATTRIBUTES} attributes")
        for name, value in attributes.items():
            if not isinstance(value, str) or not is_attribute(name, value):
                raise ValueError("an attribute is too long, unnamed or has control characters")
        return self

    @property
    def attributes(self) -> dict[str, Any]:
        """The `attr.*` headers without their prefix."""
        extra = self.model_extra or {}
        return {
            name.removeprefix(ATTRIBUTE_PREFIX): value
            for name, value in extra.items()
            if name.startswith(ATTRIBUTE_PREFIX)
        }

    def to_kafka(self) -> list[tuple[str, bytes]]:
        """The headers as a Kafka client takes them; absent ones are left out."""
        return [(name, str(value).encode()) for name, value in self.model_dump(exclude_none=True).items()]


def is_text(value: str) -> bool:
    """Whether a text has no control characters and can be encoded as UTF-8."""
    return (value.isascii() and value.isprintable()) or not any(_is_control(character) for character in value)


def is_attribute(name: str, value: str) -> bool:
    """Whether an attribute keeps to its bounds; `name` is without the prefix."""
    return (
        0 < len(name) <= MAX_ATTRIBUTE_CHARS and len(value) <= MAX_ATTRIBUTE_CHARS and is_text(name) and is_text(value)
    )


def _is_control(character: str) -> bool:
    return character < " " or "\x7f" <= character <= "\x9f" or "\ud800" <= character <= "\udfff"
