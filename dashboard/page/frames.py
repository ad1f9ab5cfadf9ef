"""The messages of the stream of events: each is made once for all viewers that are sent the same. Pure."""

import json
from collections.abc import Mapping
from typing import Any, Final

from callmood.dashboard.page.access import Viewer
from callmood.dashboard.page.floor import Snapshot
from callmood.dashboard.page.picture import Seen

_KEPT: Final = 50
"""Snapshots for which a choice that nobody looks at any more is remembered."""


class Frames:
    """What viewers are sent of the newest snapshot, by their choice and by the queues they may see.

    Args:
        links: templates of addresses by name, which are sent as they are.
    """

    def __init__(self, links: Mapping[str, str] | None = None) -> None:
        self._links = dict(links or {})
        self._frames: dict[tuple[Any, ...], _Frame] = {}
        self._seen: dict[frozenset[str] | None, tuple[int, Seen]] = {}
        """By the queues that may be seen: of which snapshot, and what is seen."""

    def message(self, snapshot: Snapshot, chosen: Mapping[str, str], viewer: Viewer, known: int) -> bytes:
        """The picture of a snapshot as JSON.

        Args:
            snapshot: what is seen.
            chosen: as in `picture`.
            viewer: as in `picture`.
            known: number of the snapshot that the viewer was sent last.

        Returns:
            What differs from that one, if it is the one before: the fields that have changed, and the rows that are new
            to the viewer. Otherwise everything.
        """
        key = (viewer.queues, *sorted(chosen.items()))
        frame = self._frames.get(key)
        if frame is None:
            self._frames = {name: old for name, old in self._frames.items() if old.number > snapshot.number - _KEPT}
        if frame is None or frame.number != snapshot.number:
            picture = self._seen_of(snapshot, viewer).chosen(chosen)
            frame = self._frames[key] = _Frame(snapshot.number, picture | {"links": self._links}, frame)
        return frame.after(known)

    def _seen_of(self, snapshot: Snapshot, viewer: Viewer) -> Seen:
        number, seen = self._seen.get(viewer.queues, (-1, None))
        if seen is None or number != snapshot.number:
            seen = Seen(snapshot, viewer)
            self._seen = {name: old for name, old in self._seen.items() if old[0] > snapshot.number - _KEPT}
            self._seen[viewer.queues] = snapshot.number, seen
        return seen


class _Frame:
    """One picture, and what differs from the one before."""

    def __init__(self, number: int, seen: dict[str, Any], before: "_Frame | None") -> None:
        self.number = number
        self.rows = {row["id"]: row for row in seen.pop("shown")}
        self.fields = seen | {"order": list(self.rows)}
        self._before = before.number if before else None
        self._news = self._since(before) if before else b""
        self._whole = b""

    def after(self, known: int) -> bytes:
        """See `Frames.message`."""
        if known == self._before:
            return self._news
        self._whole = self._whole or _packed(self.fields | {"rows": list(self.rows.values())})
        return self._whole

    def _since(self, before: "_Frame") -> bytes:
        changed = {name: value for name, value in self.fields.items() if value != before.fields[name]}
        fresh = [row for name, row in self.rows.items() if before.rows.get(name) is not row]
        return _packed(changed | {"rows": fresh})


def _packed(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
