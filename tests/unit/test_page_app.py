"""What a viewer gets of the floor, and the session's cookie."""

import time

from callmood.dashboard.page.app import SHOWN, is_session, new_session, picture
from callmood.dashboard.page.floor import Snapshot


def a_row(number, level="", **more):
    row = {"id": f"call-{number}", "level": level, "risk": 0.1, "queue": "sales", "team": "", "agent": "", "heard": 4}
    return row | {"uncertain": 1, "model": "m", "updated_at_ms": number} | more


def test_the_list_holds_the_calls_that_need_a_person_first():
    """Then as many of the others as fit; all of them are counted by queue."""
    calls = [a_row(n, "high" if n < 3 else "", queue="billing" if n % 2 else "sales") for n in range(500)]
    seen = picture(Snapshot(1, 10.0, tuple(calls)), {})
    assert [row["id"] for row in seen["shown"][:4]] == ["call-0", "call-1", "call-2", "call-3"]
    assert (len(seen["shown"]), seen["live"], seen["need"], seen["uncertain"]) == (SHOWN, 500, 3, 0.25)
    assert seen["queues"] == [{"name": "billing", "live": 250, "need": 1}, {"name": "sales", "live": 250, "need": 2}]


def test_a_viewer_chooses_a_queue_a_team_or_a_text():
    """The counts stay those of the whole floor."""
    calls = (a_row(1, queue="billing", team="a"), a_row(2, agent="Kim"), a_row(3, "some", queue="billing", team="b"))
    snapshot = Snapshot(1, 10.0, calls)

    def found(**chosen):
        return [row["id"] for row in picture(snapshot, chosen)["shown"]]

    assert found(queue="billing") == ["call-3", "call-1"]
    assert found(queue="billing", team="b") == ["call-3"]
    assert found(search="KIM") == ["call-2"]
    assert found(search="call-") == ["call-1", "call-2", "call-3"]
    assert found(search="nobody") == []
    assert picture(snapshot, {"search": "nobody"})["live"] == 3


def test_a_session_is_signed_and_ends():
    """Neither a changed end, nor another token, nor yesterday's cookie is accepted."""
    cookie = new_session("a token of some length")
    ends, _, signature = cookie.partition(".")
    assert is_session(cookie, "a token of some length")
    assert not is_session(f"{int(ends) + 1}.{signature}", "a token of some length")
    assert not is_session(cookie, "another token")
    assert not is_session(new_session("a token of some length", time.time() - 100_000), "a token of some length")
    assert not is_session("", "a token of some length")
    assert not is_session("x.y", "a token of some length")
