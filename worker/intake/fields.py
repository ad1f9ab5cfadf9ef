"""The fields of a record, as text, turned into a chunk; and the tools that the input formats share. Pure.

schemas/audio.py defines what is legal. This file repeats it by hand because it runs for every record; a property test
holds the two together.
"""

import base64
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar

import numpy as np

from callmood.schemas.audio import (
    ATTRIBUTE_PREFIX,
    AUDIO_SCHEMA,
    DECIMAL_MS_PATTERN,
    MAX_ATTRIBUTES,
    MAX_CALL_ID_CHARS,
    MAX_CHANNELS,
    MAY_DISCARD,
    SEQ_PATTERN,
    STREAM_PATTERN,
    AudioHeaders,
    is_attribute,
)
from callmood.schemas.common import RATES_HZ, Encoding, Event, Notice, Role, Scope
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.records import AudioFormat, Chunk, Record
from callmood.worker.stream_time import in_ms

Fields = Mapping[str, str]

_FIELDS: Final = frozenset(field.alias or name for name, field in AudioHeaders.model_fields.items())

_Choice = TypeVar("_Choice", Event, Notice, Scope)

_ENCODINGS: Final = {encoding.value: encoding for encoding in Encoding}
_ROLES: Final = {role.value: role for role in Role}
_EVENTS: Final = {event.value: event for event in Event}
_NOTICES: Final = {notice.value: notice for notice in Notice}
_SCOPES: Final = {scope.value: scope for scope in Scope}
_RATES_HZ: Final = {str(rate_hz): rate_hz for rate_hz in RATES_HZ}
SEQ: Final = re.compile(SEQ_PATTERN)
_STREAM: Final = re.compile(STREAM_PATTERN)
_DECIMAL_MS: Final = re.compile(DECIMAL_MS_PATTERN)
# W3C trace context: version ff and ids of zeros only are invalid.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def text_of(value: bytes | None) -> str:
    """A header's value.

    Raises:
        BadRecord: there is none (Kafka allows null), or it is not UTF-8.
    """
    if value is None:
        raise BadRecord(Reason.BAD_HEADER, "a header has no value")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadRecord(Reason.BAD_HEADER, "a header is not UTF-8") from None


def header_text(record: Record, name: str) -> str | None:
    """The last header of this name, or None.

    Raises:
        BadRecord: it is not UTF-8.
    """
    return next((text_of(value) for known, value in reversed(record.headers) if known == name), None)


def is_known(name: str) -> bool:
    """Whether the worker reads a field of this name; it ignores all others."""
    return name in _FIELDS or name.startswith(ATTRIBUTE_PREFIX)


def check_schema(fields: Fields) -> None:
    """Refuse a record without the schema audio/1.

    Raises:
        BadRecord: NO_SCHEMA or WRONG_SCHEMA.
    """
    schema = fields.get("schema")
    if schema is None:
        raise BadRecord(Reason.NO_SCHEMA, "the header schema is missing")
    if schema != AUDIO_SCHEMA:
        raise BadRecord(Reason.WRONG_SCHEMA, f"schema is not {AUDIO_SCHEMA}")


@lru_cache(maxsize=16_384)
def key_text(key: bytes | None) -> str:
    """The call id in the record's key.

    Raises:
        BadRecord: NO_KEY, or BAD_HEADER when it cannot be a call id.
    """
    if not key:
        raise BadRecord(Reason.NO_KEY, "the key is empty; it must be the call id")
    try:
        return call_id(key.decode())
    except UnicodeDecodeError:
        raise BadRecord(Reason.BAD_HEADER, "the key is not UTF-8") from None


def call_id(text: str) -> str:
    """The text, if it can be a call id: 1 to 256 printable characters.

    Raises:
        BadRecord: NO_KEY or BAD_HEADER.
    """
    if not text:
        raise BadRecord(Reason.NO_KEY, "the call id is empty")
    if len(text) > MAX_CALL_ID_CHARS or not text.isprintable():
        raise BadRecord(
            Reason.BAD_HEADER, f"a call id is at most {MAX_CALL_ID_CHARS} printable characters, this has {len(text)}"
        )
    return text


def load_object(value: bytes | None, *, max_bytes: int) -> dict[str, Any]:
    """A JSON object; every number in it stays text, so that no digit is lost or invented.

    Raises:
        BadRecord: EMPTY, TOO_LONG (before parsing) or BAD_PAYLOAD.
    """
    if not value:
        raise BadRecord(Reason.EMPTY, "the record has no value")
    if len(value) > max_bytes:
        raise BadRecord(Reason.TOO_LONG, f"{len(value)} bytes; at most {max_bytes} are allowed")
    try:
        body = json.loads(value.decode(), parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        raise BadRecord(Reason.BAD_PAYLOAD, f"{len(value)} bytes, not JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise BadRecord(Reason.BAD_PAYLOAD, "JSON, but not an object")
    return body


def base64_bytes(text: object) -> bytes:
    """Bytes out of base64.

    Raises:
        BadRecord: BAD_PAYLOAD.
    """
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise BadRecord(Reason.BAD_PAYLOAD, "the audio is not base64 text")


def chunk(record: Record, call: str, fields: Fields, value: bytes, *, max_record_ms: int) -> Chunk:
    """One chunk out of a record's fields and its raw audio.

    Raises:
        BadRecord: a field or the audio breaks the contract.
    """
    event = _choice(fields, "event", _EVENTS) or Event.MEDIA
    if value and event not in (Event.MEDIA, Event.PAUSE):  # a pause counts even if it has a value
        raise BadRecord(Reason.BAD_PAYLOAD, f"{event} must not carry audio, this record has {len(value)} bytes")
    if record.timestamp_ms < 0:
        raise BadRecord(Reason.BAD_HEADER, "the record has no timestamp")
    seq = _matching(fields, "seq", SEQ)
    if seq is None:
        raise BadRecord(Reason.BAD_HEADER, "seq is missing")
    wire = _wire(fields.get("encoding"), fields.get("rate"), fields.get("layout"))
    audio_format, samples = _media(wire, value, max_record_ms) if event is Event.MEDIA else (None, b"")
    traceparent = fields.get("traceparent")
    return Chunk(
        call_id=call,
        stream=_matching(fields, "stream", _STREAM) or "0",
        seq=int(seq),
        event=event,
        position=record.position,
        capture_ms=in_ms(record.timestamp_ms),
        media_ms=_decimal_ms(fields, "media_ms"),
        format=audio_format,
        audio=samples,
        discarded_ms=_discarded_ms(fields, event),
        notice=_choice(fields, "notice", _NOTICES),
        scope=_choice(fields, "scope", _SCOPES),
        attributes=_attributes(fields),
        traceparent=traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None,
    )


def _media(wire: tuple[Encoding, AudioFormat] | None, value: bytes, max_record_ms: int) -> tuple[AudioFormat, bytes]:
    if wire is None:
        raise BadRecord(Reason.BAD_HEADER, "media needs encoding, rate and layout")
    encoding, audio_format = wire
    frame_bytes = audio_format.frame_bytes
    if not value:
        raise BadRecord(Reason.EMPTY, "the media record has no audio")
    if len(value) * 1000 > max_record_ms * audio_format.rate_hz * frame_bytes:
        raise BadRecord(Reason.TOO_LONG, f"{len(value)} bytes are more than {max_record_ms} ms of audio")
    if len(value) % frame_bytes:
        raise BadRecord(Reason.TRUNCATED, f"{len(value)} bytes are not a multiple of {frame_bytes}")
    if encoding is Encoding.S16BE:
        return audio_format, np.frombuffer(value, ">i2").astype("<i2").tobytes()
    return audio_format, value


# Every record carries its format, and a contact centre has few of them. A refusal is not cached.
@lru_cache(maxsize=256)
def _wire(encoding: str | None, rate: str | None, layout: str | None) -> tuple[Encoding, AudioFormat] | None:
    """The encoding on the wire and the format as the worker keeps it; None unless all three are given."""
    if encoding is not None and encoding not in _ENCODINGS:
        known = ", ".join(_ENCODINGS)
        raise BadRecord(
            Reason.UNKNOWN_ENCODING, f"encoding is not one of {known}: the gateway must decode other codecs to s16le"
        )
    if rate is not None and rate not in _RATES_HZ:
        raise BadRecord(Reason.UNSUPPORTED_RATE, f"rate is not one of {', '.join(_RATES_HZ)}")
    roles = () if layout is None else tuple(layout.split(",", MAX_CHANNELS))
    if len(roles) > MAX_CHANNELS or not all(role in _ROLES for role in roles):
        raise BadRecord(Reason.BAD_LAYOUT, f"layout is 1 to {MAX_CHANNELS} of {', '.join(_ROLES)}, comma-separated")
    if encoding is None or rate is None or layout is None:
        return None
    wire = _ENCODINGS[encoding]
    kept = Encoding.S16LE if wire is Encoding.S16BE else wire
    return wire, AudioFormat(kept, _RATES_HZ[rate], tuple(_ROLES[role] for role in roles))


def _matching(fields: Fields, name: str, pattern: re.Pattern[str]) -> str | None:
    text = fields.get(name)
    if text is not None and not pattern.fullmatch(text):
        raise BadRecord(Reason.BAD_HEADER, f"{name} is malformed")
    return text


def _choice(fields: Fields, name: str, choices: Mapping[str, _Choice]) -> _Choice | None:
    text = fields.get(name)
    if text is None:
        return None
    if text not in choices:
        raise BadRecord(Reason.BAD_HEADER, f"{name} is not one of {', '.join(choices)}")
    return choices[text]


def _decimal_ms(fields: Fields, name: str) -> float | None:
    text = _matching(fields, name, _DECIMAL_MS)
    return None if text is None else float(text)


def _discarded_ms(fields: Fields, event: Event) -> float:
    discarded_ms = _decimal_ms(fields, "discarded_ms") or 0.0
    if event is Event.GAP and not discarded_ms:
        raise BadRecord(Reason.BAD_HEADER, "gap needs discarded_ms")
    if discarded_ms and event not in MAY_DISCARD:
        raise BadRecord(Reason.BAD_HEADER, f"discarded_ms has no meaning on {event}")
    return discarded_ms


def _attributes(fields: Fields) -> dict[str, str]:
    attributes = {
        name.removeprefix(ATTRIBUTE_PREFIX): text for name, text in fields.items() if name.startswith(ATTRIBUTE_PREFIX)
    }
    if len(attributes) > MAX_ATTRIBUTES:
        raise BadRecord(Reason.BAD_HEADER, f"{len(attributes)} attributes; at most {MAX_ATTRIBUTES} are allowed")
    if not all(is_attribute(name, text) for name, text in attributes.items()):
        raise BadRecord(Reason.BAD_HEADER, "an attribute is too long, unnamed or has control characters")
    return attributes
