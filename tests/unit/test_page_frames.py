"""The messages of the page's stream, made once for all viewers who are sent the same."""

import json
from dataclasses import replace

from callmood.dashboard.page.access import Viewer
from callmood.dashboard.page.floor import Snapshot
from callmood.dashboard.page.frames import Frames

ALL = Viewer()


def a_row(name, queue="billing", **more):
    row = {"id": name, "level": "high", "risk": 0.9, "queue": queue, "team": "", "agent": "", "heard": 0}
    return row | {"uncertain": 0, "model": ""} | more


def message(frames, snapshot, known, *, viewer=ALL, **chosen):
    return json.loads(frames.message(snapshot, chosen, viewer, known))


def test_a_viewer_is_sent_what_has_changed():
    """First everything; then the new rows, and the fields that differ."""
    frames, calm = Frames(), a_row("calm")
    first = Snapshot(1, 10.0, (calm, a_row("upset")))
    whole = message(frames, first, -1)
    assert ([row["id"] for row in whole["rows"]], whole["order"], whole["live"]) == (
        ["calm", "upset"],
        ["calm", "upset"],
        2,
    )
    second = replace(first, number=2, at_s=11.0, rows=(calm, a_row("upset", agent="Kim")))
    news = message(frames, second, 1)
    assert news == {"at_ms": 11_000, "rows": [a_row("upset", agent="Kim")]}
    assert whole | news | {"rows": []} == message(frames, second, -1) | {"rows": []}


def test_a_viewer_who_missed_a_snapshot_is_sent_everything():
    """What differs from the one before would not be enough."""
    frames = Frames()
    snapshots = [Snapshot(number, float(number), (a_row(f"call-{number}"),)) for number in (1, 2, 3)]
    for known, snapshot in enumerate(snapshots):
        message(frames, snapshot, known or -1)
    assert "live" in message(frames, snapshots[2], 1)
    assert message(frames, snapshots[2], 2).keys() == {"at_ms", "order", "rows"}


def test_viewers_with_other_choices_and_rights_share_nothing():
    """Each has the rows of the own choice; those who chose the same get the same bytes."""
    frames, snapshot = Frames(), Snapshot(1, 1.0, (a_row("a"), a_row("b", queue="sales")))
    of_sales = Viewer("kim", "", frozenset({"sales"}))
    assert message(frames, snapshot, -1)["order"] == ["a", "b"]
    assert message(frames, snapshot, -1, viewer=of_sales)["order"] == ["b"]
    assert message(frames, snapshot, -1, queue="billing")["order"] == ["a"]
    assert frames.message(snapshot, {}, ALL, -1) is frames.message(snapshot, {}, ALL, -1)


def test_choices_that_nobody_looks_at_are_forgotten():
    """Searches of all day do not fill the memory."""
    frames = Frames()
    for number in range(1, 1_000):
        frames.message(Snapshot(number), {"search": str(number)}, ALL, -1)
    assert len(frames._frames) < 100
