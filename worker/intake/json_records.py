"""Records of producers that cannot set headers: a JSON object with the same fields and base64 `audio`. Pure.

Fields are the headers' names and values; numbers may be JSON numbers. The call id is `call_id` or the key.
"""

from typing import Any, Final

from callmood.schemas.audio import ATTRIBUTE_PREFIX, MAX_CHANNELS
from callmood.schemas.common import RATES_HZ
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.intake.fields import (
    base64_bytes,
    call_id,
    check_schema,
    chunk,
    is_known,
    key_text,
    load_object,
)
from callmood.worker.records import Chunk, Record

# Room for the fields other than audio: 64 attributes of 256 characters, escaped, and the rest.
_MAX_FIELDS_BYTES: Final = 262_144
# Of a refused record, no more than this is parsed for its call id.
_MAX_REFUSED_BYTES: Final = 1_048_576


def decode_json(record: Record, *, max_record_ms: int) -> Chunk:
    """One chunk out of a JSON record.

    Raises:
        BadRecord: the record breaks the contract.
    """
    largest_audio = max_record_ms * max(RATES_HZ) * 2 * MAX_CHANNELS // 1000
    body = load_object(record.value, max_bytes=largest_audio * 4 // 3 + _MAX_FIELDS_BYTES)
    fields = {name: _text(name, value) for name, value in body.items() if is_known(name)}
    check_schema(fields)
    return chunk(
        record, _call_id(record, body), fields, base64_bytes(body.get("audio", "")), max_record_ms=max_record_ms
    )


def named_call(record: Record) -> str | None:
    """The call id in the value, if there is one.

    Raises:
        BadRecord: the value is illegible.
    """
    body = load_object(record.value, max_bytes=_MAX_REFUSED_BYTES)
    return call_id(_text("call_id", body["call_id"])) if "call_id" in body else None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        field = "an attribute" if name.startswith(ATTRIBUTE_PREFIX) else name  # its name is the producer's
        raise BadRecord(Reason.BAD_HEADER, f"{field} is neither text nor a number")
    return value


def _call_id(record: Record, body: dict[str, Any]) -> str:
    if "call_id" not in body:
        return key_text(record.key)
    call = call_id(_text("call_id", body["call_id"]))
    if record.key and key_text(record.key) != call:
        raise BadRecord(Reason.BAD_HEADER, "call_id and the key differ")
    return call
