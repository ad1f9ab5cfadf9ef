"""Kafka record -> chunk: what stands on the audio topic becomes one value that every later stage understands. Pure.

Each record is read alone: a worker that joins in the middle of a call understands it from the first record on.
"""

from callmood.worker.errors import ConfigurationError
from callmood.worker.intake.fields import check_schema, chunk, is_known, key_text, text_of
from callmood.worker.intake.json_records import decode_json
from callmood.worker.intake.twilio import decode_twilio
from callmood.worker.records import Chunk, Record


def decode(record: Record, *, input_format: str, max_record_ms: int) -> Chunk | None:
    """Read one record of the audio topic.

    Args:
        record: as Kafka gave it.
        input_format: `headers`, `json` or `twilio` (`CALLMOOD_INPUT__FORMAT`).
        max_record_ms: longest audio that one record may hold.

    Returns:
        The chunk, or None for a legal record that says nothing about the call's audio (a Twilio `mark`).

    Raises:
        BadRecord: the record breaks the contract; the detail names fields and lengths, never their content.
        ConfigurationError: there is no such input format.
    """
    match input_format:
        case "headers":
            return _decode_headers(record, max_record_ms=max_record_ms)
        case "json":
            return decode_json(record, max_record_ms=max_record_ms)
        case "twilio":
            return decode_twilio(record, max_record_ms=max_record_ms)
        case _:
            raise ConfigurationError(f"input format {input_format} is not supported")


def _decode_headers(record: Record, *, max_record_ms: int) -> Chunk:
    fields: dict[str, str] = {}
    for name, value in record.headers:
        # Others belong to middleware and may be binary: they are not even looked at.
        if is_known(name):
            fields[name] = text_of(value)
    call = key_text(record.key)
    check_schema(fields)
    return chunk(record, call, fields, record.value or b"", max_record_ms=max_record_ms)
