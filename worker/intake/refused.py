"""What a record that breaks the contract still says: which calls it names, and whether it asks for a pause. Pure.

Such a record may have any fault, so each of its parts is read alone; in doubt, a call is paused.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Final

from callmood.worker.errors import BadRecord, CallmoodError, Reason, place_of
from callmood.worker.intake.fields import key_text
from callmood.worker.intake.json_records import named_call
from callmood.worker.records import Chunk, Record

Decode = Callable[[Record], Chunk | None]
"""Reads a record; None if it says nothing. Raises BadRecord."""
_PAUSE: Final = re.compile(rb"[^a-z]*" + rb"[^a-z]*".join([b"p", b"a", b"u", b"s", b"e"]), re.IGNORECASE)
"""In capitals, in quotes, in UTF-16 or in another form."""
_EVENT: Final = "event"
_LIKE_JSON: Final = re.compile(rb"(?<![a-z_.])event[\"']?\s*:([^,}]*)", re.IGNORECASE)
_JSON_BYTES: Final = 1_048_576


def decoded(decode: Decode, record: Record) -> Chunk | None:
    """Decode a record; a fault of ours costs this record, and not the process.

    Raises:
        BadRecord: it breaks the contract, or the worker fails on it.
    """
    try:
        return decode(record)
    except CallmoodError:
        raise
    except Exception as error:  # reading changes no state, so the record alone is to blame
        raise BadRecord(Reason.WORKER_ERROR, place_of(error)) from error


def named_calls(record: Record, *, input_format: str) -> frozenset[str] | None:
    """The calls that a refused record names, by its key or in its value; None if it names none or is illegible."""
    named, is_legible = _named(record, input_format)
    return frozenset(named) if named and is_legible else None


def paused_calls(record: Record, *, input_format: str) -> frozenset[str]:
    """The calls that a refused record asks to pause, however wrong the rest of it is."""
    try:
        is_pause = any(map(_PAUSE.match, _events(record, input_format)))
    except Exception:  # noqa: BLE001 - a fault of ours; the record is refused already, and may not end the process
        is_pause = True
    return frozenset(_named(record, input_format)[0]) if is_pause else frozenset()


def _events(record: Record, input_format: str) -> list[bytes]:
    """All values in the place of an event; Twilio's messages have no `pause`."""
    if input_format == "headers":
        return [value for name, value in record.headers if value and name.strip().lower() == _EVENT]
    return _events_in((record.value or b"")[:_JSON_BYTES]) if input_format == "json" else []


def _events_in(body: bytes) -> list[bytes]:
    """The events of a body: if it is JSON, those of the outermost object, else what looks like one anywhere in it."""
    try:
        fields = json.loads(body, object_pairs_hook=list)
        pairs = [field for field in fields if isinstance(field, tuple)] if isinstance(fields, list) else []
        return [str(value).encode(errors="replace") for name, value in pairs if name.strip().lower() == _EVENT]
    except (ValueError, RecursionError):  # nested too deeply to be read, or to be written as text
        return _LIKE_JSON.findall(body.replace(b"\0", b""))


def _named(record: Record, input_format: str) -> tuple[set[str], bool]:
    """The calls that can be read, and whether nothing that may name one is illegible."""
    named, is_legible = set(), True
    readers: list[Callable[[], str | None]] = []
    readers += [partial(key_text, record.key)] if record.key else []
    readers += [partial(named_call, record)] if input_format == "json" else []
    for read in readers:
        try:
            call_id = read()
        except Exception:  # noqa: BLE001 - the record is refused already; whatever is wrong with it names no call
            is_legible = False
        else:
            named |= {call_id} if call_id else set()
    return named, is_legible
