"""What a record that breaks the contract still says: which calls it names, and whether it asks for a pause. Pure.

Such a record may have any fault, so each of its parts is read alone; in doubt, a call is paused.
"""

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from callmood.worker.intake.fields import key_text
from callmood.worker.intake.json_records import named_call
from callmood.worker.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE: Final = re.compile(rb"[^a-z]*" + rb"[^a-z]*".join([b"p", b"a", b"u", b"s", b"e"]), re.IGNORECASE)
"""In capitals, in quotes, in UTF-16 or in another form."""
_JSON_PAUSE: Final = re.compile(rb'"event"\s*:\s*"[^a-z"]*pause', re.IGNORECASE)
_JSON_BYTES: Final = 1_048_576


def named_calls(record: Record, *, input_format: str) -> frozenset[str] | None:
    """The calls that a refused record names, by its key or in its value; None if it names none or is illegible."""
    named, is_legible = _named(record, input_format)
    return frozenset(named) if named and is_legible else None


def paused_calls(record: Record, *, input_format: str) -> frozenset[str]:
    """The calls that a refused record asks to pause, however wrong the rest of it is."""
    if input_format == "json":
        is_pause = _JSON_PAUSE.search((record.value or b"")[:_JSON_BYTES]) is not None
    else:
        events = [value for name, value in record.headers if value and name.strip().lower() == "event"]
        is_pause = input_format == "headers" and any(map(_PAUSE.match, events))
    return frozenset(_named(record, input_format)[0]) if is_pause else frozenset()


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
