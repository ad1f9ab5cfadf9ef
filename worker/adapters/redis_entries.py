"""The entries that one call has in a stream of all calls."""

from collections.abc import Iterator
from typing import Any, Final

_PAGE: Final = 1_000


def entries_of(client: Any, stream: str, call_id: str) -> Iterator[Any]:
    """Ids of a stream's entries of this call."""
    start = "-"
    while page := client.xrange(stream, start, "+", _PAGE):
        for entry_id, fields in page:
            value = fields.get(b"call_id", fields.get("call_id"))
            if value in (call_id, call_id.encode()):
                yield entry_id
        last = page[-1][0]
        start = f"({last.decode() if isinstance(last, bytes) else last}"


def delete_entries(client: Any, stream: str, call_id: str) -> int:
    """Delete them; returns how many there were."""
    entries = list(entries_of(client, stream, call_id))
    for start in range(0, len(entries), _PAGE):
        client.xdel(stream, *entries[start : start + _PAGE])
    return len(entries)
