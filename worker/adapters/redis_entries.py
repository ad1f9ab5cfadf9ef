"""The entries that some calls have in a stream of all calls."""

from collections.abc import Collection, Iterator
from typing import Any, Final

_PAGE: Final = 1_000


def entries_of(client: Any, stream: str, call_ids: Collection[str]) -> Iterator[Any]:
    """Ids of a stream's entries of these calls, in one pass over the stream."""
    wanted = {*call_ids, *(call_id.encode() for call_id in call_ids)}
    start = "-"
    while page := client.xrange(stream, start, "+", _PAGE):
        for entry_id, fields in page:
            if fields.get(b"call_id", fields.get("call_id")) in wanted:
                yield entry_id
        last = page[-1][0]
        start = f"({last.decode() if isinstance(last, bytes) else last}"


def delete_entries(client: Any, stream: str, call_ids: Collection[str]) -> int:
    """Delete them; returns how many there were."""
    entries = list(entries_of(client, stream, call_ids))
    for start in range(0, len(entries), _PAGE):
        client.xdel(stream, *entries[start : start + _PAGE])
    return len(entries)
