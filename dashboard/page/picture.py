"""The part of the floor that one viewer is allowed to see. Pure."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from callmood.dashboard.page.access import Viewer
from callmood.dashboard.page.floor import Snapshot

SHOWN: Final = 60
"""Most calls that a wall lists; the others are counts per queue."""
_ENDED: Final = 20
_ALERT: Final = (
    "alert_id", "call_id", "rule", "severity", "message", "raised_at_ms", "raised_ms", "state", "over_ms", "claim",
)  # fmt: skip

Row = Mapping[str, Any]


class Seen:
    """What a viewer may see of a snapshot: counted once, however many choose from it.

    Args:
        snapshot: the floor.
        viewer: whose queues count.
    """

    def __init__(self, snapshot: Snapshot, viewer: Viewer) -> None:
        self._rows = [row for row in snapshot.rows if viewer.may_see(row["queue"])]
        self._ended = [row for row in snapshot.ended if viewer.may_see(row["queue"])]
        models = sorted({row["model"] for row in (*self._rows, *self._ended)} - {""})
        self._fields = {**pulse(snapshot), **_counts(self._rows), "models": models, "alerts": alerts(snapshot, viewer)}

    def chosen(self, chosen: Mapping[str, str]) -> dict[str, Any]:
        """See `picture`. Live calls come in the order of the snapshot: those that need a person first."""
        shown, ended = (
            list(islice((row for row in rows if _matches(row, chosen)), most))
            for rows, most in ((self._rows, SHOWN), (self._ended, _ENDED))
        )
        return {**self._fields, "ended": ended, "shown": shown}


def picture(snapshot: Snapshot, chosen: Mapping[str, str], viewer: Viewer = Viewer()) -> dict[str, Any]:  # noqa: B008 - immutable
    """What a viewer sees who has chosen a queue, a team or a text to search for.

    `shown` are the first calls that match, in the order of the snapshot; `queues` counts all that the viewer may see.
    """
    return Seen(snapshot, viewer).chosen(chosen)


def pulse(snapshot: Snapshot) -> dict[str, Any]:
    """Whether what is seen is fresh, and whether workers write."""
    return {
        "at_ms": round(snapshot.at_s * 1000),
        "problem": snapshot.problem,
        "newest_audio_ms": snapshot.newest_audio_ms,
        "undelivered": snapshot.undelivered,
        "waiting": {"partition": snapshot.waiting_for, "ms": snapshot.waiting_ms},
    }


def alerts(snapshot: Snapshot, viewer: Viewer) -> list[dict[str, Any]]:
    """The newest alerts that the viewer may see, the newest first."""
    return [
        {name: alert.get(name) for name in _ALERT}
        for alert in snapshot.alerts
        if viewer.may_see(alert.get("attributes", {}).get("queue"))
    ]


def _counts(rows: Iterable[Row]) -> dict[str, Any]:
    heard = uncertain = 0
    queues: dict[str, dict[str, int]] = {}
    teams = set()
    for row in rows:
        count = queues.setdefault(row["queue"], {"live": 0, "need": 0})
        count["live"] += 1
        count["need"] += bool(row["level"])
        heard += row["heard"]
        uncertain += row["uncertain"]
        teams.add(row["team"])
    return {
        "live": sum(count["live"] for count in queues.values()),
        "need": sum(count["need"] for count in queues.values()),
        "uncertain": round(uncertain / heard, 3) if heard else None,
        "teams": sorted(teams - {""}),
        "queues": [{"name": name, **count} for name, count in sorted(queues.items())],
    }


def _matches(row: Row, chosen: Mapping[str, str]) -> bool:
    queue, team, text = (chosen.get(name, "") for name in ("queue", "team", "search"))
    return (
        queue in ("", row["queue"])
        and team in ("", row["team"])
        and (not text or any(text.lower() in row[name].lower() for name in ("id", "agent", "queue", "team")))
    )
