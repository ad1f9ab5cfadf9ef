"""Kafka record -> chunk, the one value that every later stage reads. Pure.

Each record is read alone, so a worker that joins in the middle of a call understands its first record.
"""

from typing import Final

from callmood.schemas.common import Event
from callmood.worker.errors import BadRecord, ConfigurationError, Reason
from callmood.worker.intake.fields import check_schema, chunk, is_known, key_text, text_of
from callmood.worker.intake.json_records import decode_json, named_call, named_event
from callmood.worker.intake.twilio import decode_twilio
from callmood.worker.records import Chunk, Record

_PAUSE: Final = Event.PAUSE.value


def decode(record: Record, *, input_format: str, max_record_ms: int) -> Chunk | None:
    """Read one record of the audio topic.

    Args:
        record: as Kafka gave it.
        input_format: `headers`, `json` or `twilio` (`CALLMOOD_INPUT__FORMAT`).
        max_record_ms: longest audio that one record may hold.

    Returns:
        The chunk, or None for a legal record that does not concern the call's audio (a Twilio `mark`).

    Raises:
        BadRecord: the record breaks the contract; the detail has fields and lengths, never content.
        ConfigurationError: unknown input format.
    """
    if not all(_is_utf8(name) for name, _ in record.headers):
        raise BadRecord(Reason.BAD_HEADER, "the name of a header is not UTF-8")
    match input_format:
        case "headers":
            return _decode_headers(record, max_record_ms=max_record_ms)
        case "json":
            return decode_json(record, max_record_ms=max_record_ms)
        case "twilio":
            return decode_twilio(record, max_record_ms=max_record_ms)
        case _:
            raise ConfigurationError(f"unknown input format {input_format!r}: use headers, json or twilio")


def named_calls(record: Record, *, input_format: str) -> frozenset[str] | None:
    """The calls that a refused record names, by its key or in its value; None if it names none or is illegible."""
    try:
        named = {key_text(record.key)} if record.key else set()
        in_value = named_call(record) if input_format == "json" else None
    except BadRecord:
        return None
    return frozenset(named | ({in_value} if in_value else set())) or None


def wants_pause(record: Record, *, input_format: str) -> bool:
    """Whether a refused record asks for a pause, however wrong the rest of it is."""
    if input_format == "json":
        try:
            event = named_event(record)
        except BadRecord:
            return False
    else:
        values = [value for name, value in record.headers if name == "event" and value is not None]
        event = values[-1].decode(errors="replace") if values and input_format == "headers" else ""
    return event.strip().lower() == _PAUSE


def _is_utf8(name: str) -> bool:
    """The consumer turns each byte of a name that is not UTF-8 into a lone surrogate."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def _decode_headers(record: Record, *, max_record_ms: int) -> Chunk:
    fields: dict[str, str] = {}
    for name, value in record.headers:
        # Other headers belong to middleware and may be binary.
        if is_known(name):
            fields[name] = text_of(value)
    call = key_text(record.key)
    check_schema(fields)
    return chunk(record, call, fields, record.value or b"", max_record_ms=max_record_ms)
