"""Trends: figures of calls that have ended, by time and queue. Pure, except `history`, which reads exported files."""

import csv
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from callmood.dashboard.page.rows import ROLES

HOUR_MS: Final = 3_600_000
_HOURS: Final = 48
_DAYS: Final = 60
_PATTERN: Final = "calls-*.csv"
_LONGEST_FIELD: Final = 1 << 22
"""Characters; 64 attributes of emoji have 400,000 as JSON, and Python's csv stops at 131,072."""
_SUMS: Final = ("duration_ms", "non_talk_ms", "hold_ms")
_OF_EMOTION: Final = ("utterances", "abstained", "counts.anger", "counts.sadness")
FIELDS: Final = (
    "status", "attr.queue", "need", *_SUMS,
    *(f"roles.{role}.emotion.{name}" for role in ROLES for name in _OF_EMOTION),
)  # fmt: skip
"""The fields of a call's hash that trends are made of."""

Figures = dict[str, int]


def of_call(fields: Mapping[str, Any]) -> Figures:
    """What one call adds; `fields` are those in `FIELDS`, None where absent. The emotion is never an agent's."""
    role = next((role for role in ROLES if fields.get(f"roles.{role}.emotion.utterances")), ROLES[0])
    heard, uncertain, anger, sadness = (int(fields.get(f"roles.{role}.emotion.{name}") or 0) for name in _OF_EMOTION)
    sums = {name: int(fields.get(name) or 0) for name in _SUMS}
    needed = (fields.get("need") or "none") != "none"
    return {"calls": 1, "need": int(needed), **sums, "labelled": heard - uncertain, "negative": anger + sadness}


class Trends:
    """Sums by time and queue; only the newest times are kept.

    Args:
        kept: how many times.
    """

    def __init__(self, kept: int = _HOURS) -> None:
        self._kept = kept
        self._sums: dict[int, dict[str, Figures]] = {}

    def add(self, at_ms: int, queue: str, figures: Figures) -> None:
        """The figures of a call."""
        sums = self._sums.setdefault(at_ms, {}).setdefault(queue, dict.fromkeys(figures, 0))
        for name, value in figures.items():
            sums[name] += value
        if len(self._sums) > self._kept:
            del self._sums[min(self._sums)]

    def rows(self) -> tuple[dict[str, Any], ...]:
        """A row for each time and queue, in the order of time."""
        return tuple(
            {"at_ms": at_ms, "queue": queue, **figures}
            for at_ms, queues in sorted(self._sums.items())
            for queue, figures in sorted(queues.items())
        )


class History:
    """Trends by day from the files of `callmood export --format csv` in a folder; each file is read once.

    Args:
        folder: where the files are; None: there are none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[float, tuple[dict[str, Any], ...]]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """As `Trends.rows`, of the newest files. A file that is no export has no rows."""
        paths = sorted(self._folder.glob(_PATTERN))[-_DAYS:] if self._folder else []
        self._known = {path: self._read(path) for path in paths}
        return [row for _, rows in self._known.values() for row in rows]

    def _read(self, path: Path) -> tuple[float, tuple[dict[str, Any], ...]]:
        try:
            changed_s = path.stat().st_mtime
            if path in self._known and self._known[path][0] == changed_s:
                return self._known[path]
            return changed_s, day_of(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):  # not ours, or gone
            return 0.0, ()


def day_of(path: Path) -> tuple[dict[str, Any], ...]:
    """The rows of one exported file `calls-YYYY-MM-DD.csv`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, csv.Error: it is none.
        OSError: it cannot be read.
    """
    day = date.fromisoformat(path.stem.removeprefix("calls-"))
    at_ms = round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    trends = Trends(1)
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8", newline="") as file:
        for call in csv.DictReader(file):
            fields = {"need": call["need"], **{name: call[name] for name in _SUMS}, **dict(_emotions(call["roles"]))}
            trends.add(at_ms, json.loads(call["attributes"]).get("queue", ""), of_call(fields))
    return trends.rows()


def _emotions(roles: str) -> Iterator[tuple[str, int]]:
    for role, figures in json.loads(roles).items():
        if emotion := figures.get("emotion"):
            yield f"roles.{role}.emotion.utterances", emotion["utterances"]
            yield f"roles.{role}.emotion.abstained", emotion["abstained"]
            for label in ("anger", "sadness"):
                yield f"roles.{role}.emotion.counts.{label}", emotion["counts"][label]
