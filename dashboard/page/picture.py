"""What one viewer sees of the floor. Pure."""

from collections.abc import Iterable, Mapping
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


def picture(snapshot: Snapshot, chosen: Mapping[str, str], viewer: Viewer = Viewer()) -> dict[str, Any]:  # noqa: B008 - immutable
    """What a viewer sees who has chosen a queue, a team or a text to search for.

    `shown` are the calls of the list: those that need a person, or whatever the search finds; `queues` counts all that
    the viewer may see.
    """
    seen = [row for row in snapshot.rows if viewer.may_see(row["queue"])]
    matching = [row for row in seen if _matches(row, chosen)]
    is_search = bool(chosen.get("search"))
    shown = [row for row in matching if row["level"] or is_search]
    quiet = [row for row in matching if not row["level"]] if not is_search else []
    heard, uncertain = (sum(row[name] for row in seen) for name in ("heard", "uncertain"))
    ended = [row for row in snapshot.ended if viewer.may_see(row["queue"]) and _matches(row, chosen)]
    return {
        **pulse(snapshot),
        "live": len(seen),
        "need": sum(bool(row["level"]) for row in seen),
        "uncertain": round(uncertain / heard, 3) if heard else None,
        "models": sorted({row["model"] for row in seen if row["model"]}),
        "teams": sorted({row["team"] for row in seen if row["team"]}),
        "queues": _queues(seen),
        "alerts": alerts(snapshot, viewer),
        "ended": ended[:_ENDED],
        "shown": [*shown, *quiet][:SHOWN],
    }


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


def _queues(rows: Iterable[Row]) -> list[dict[str, Any]]:
    queues: dict[str, dict[str, int]] = {}
    for row in rows:
        count = queues.setdefault(row["queue"], {"live": 0, "need": 0})
        count["live"] += 1
        count["need"] += bool(row["level"])
    return [{"name": name, **count} for name, count in sorted(queues.items())]


def _matches(row: Row, chosen: Mapping[str, str]) -> bool:
    text = chosen.get("search", "").lower()
    return (
        chosen.get("queue", "") in ("", row["queue"])
        and chosen.get("team", "") in ("", row["team"])
        and (not text or any(text in row[name].lower() for name in ("id", "agent", "queue", "team")))
    )
