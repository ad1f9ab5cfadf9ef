"""Trends of the page: sums of ended calls, from hashes and from exported files."""

import json
from pathlib import Path

import pytest

from callmood import schemas
from callmood.dashboard.page import trends
from callmood.dashboard.page.trends import History, Trends, of_call
from callmood.schemas.flat import flatten
from callmood.schemas.history import CALLS
from callmood.worker.commands.tables import table

CALL = json.loads((Path(schemas.__file__).parent / "examples/call/valid/completed.json").read_text(encoding="utf-8"))
DAY_MS = 1_767_225_600_000


def figures(call):
    return of_call({name: flatten(call).get(name) for name in trends.FIELDS})


def test_a_call_adds_what_its_customer_was_labelled():
    """An agent's emotion counts nothing, and a call without emotion adds its times."""
    emotion = CALL["roles"]["customer"]["emotion"]
    found = figures(CALL)
    assert (found["calls"], found["duration_ms"], found["hold_ms"]) == (1, CALL["duration_ms"], CALL["hold_ms"])
    assert found["labelled"] == emotion["utterances"] - emotion["abstained"]
    assert found["negative"] == emotion["counts"]["anger"] + emotion["counts"]["sadness"]
    mixed = figures(CALL | {"roles": {"mixed": CALL["roles"]["customer"]}})
    assert (mixed["labelled"], mixed["negative"]) == (found["labelled"], found["negative"])
    agent = {"agent": CALL["roles"]["customer"]}
    assert figures(CALL | {"roles": agent})["labelled"] == figures(CALL | {"roles": {}})["labelled"] == 0


def test_sums_are_by_time_and_queue_and_only_the_newest_are_kept():
    """The oldest time goes when there are too many."""
    sums = Trends(kept=2)
    for at_ms, queue in ((1, "a"), (2, "a"), (2, "b"), (2, "a"), (3, "")):
        sums.add(at_ms, queue, {"calls": 1, "need": 0})
    found = [(row["at_ms"], row["queue"], row["calls"]) for row in sums.rows()]
    assert found == [(2, "a", 2), (2, "b", 1), (3, "", 1)]


def test_an_exported_day_gives_the_same_sums(tmp_path):
    """Files of `callmood export` are read, again when they have changed; what is no export has no rows."""
    history = History(tmp_path)
    assert history.rows() == []
    path = tmp_path / "calls-2026-01-01.csv"
    for copies in (1, 3):
        with table(path, "csv", CALLS) as made:
            for _ in range(copies):
                made.add(CALL)
        queue = CALL["attributes"].get("queue", "")
        wanted = {name: copies * value for name, value in figures(CALL).items()}
        assert history.rows() == [{"at_ms": DAY_MS, "queue": queue, **wanted}]
    assert History(None).rows() == []


def test_the_newest_days_are_shown(tmp_path, monkeypatch):
    """A folder of years is not read."""
    monkeypatch.setattr(trends, "_DAYS", 2)
    for day in (1, 2, 3):
        with table(tmp_path / f"calls-2026-01-0{day}.csv", "csv", CALLS) as made:
            made.add(CALL)
    assert [row["at_ms"] for row in History(tmp_path).rows()] == [DAY_MS + 86_400_000, DAY_MS + 2 * 86_400_000]


def test_a_call_with_the_longest_attributes_hides_no_day(tmp_path):
    """Its attributes are a field of 400,000 characters."""
    attributes = {"queue": "billing"} | {
        f"{n:02}" + "\N{GRINNING FACE}" * 254: "\N{GRINNING FACE}" * 256 for n in range(63)
    }
    with table(tmp_path / "calls-2026-01-01.csv", "csv", CALLS) as made:
        made.add(CALL | {"attributes": attributes})
    assert [row["queue"] for row in History(tmp_path).rows()] == ["billing"]


@pytest.mark.parametrize("text", ["", "call_id\nx\n", "need,roles,attributes\nhigh,[],1\n", "\0"])
def test_a_file_that_is_no_export_has_no_rows(tmp_path, text):
    """It does not hide the others."""
    (tmp_path / "calls-2026-01-01.csv").write_text(text)
    (tmp_path / "calls-tomorrow.csv").write_text("call_id\n")
    with table(tmp_path / "calls-2026-01-02.csv", "csv", CALLS) as made:
        made.add(CALL)
    assert [row["at_ms"] for row in History(tmp_path).rows()] == [DAY_MS + 86_400_000]
