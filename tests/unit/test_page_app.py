"""The data that a viewer is sent, and the session's cookie."""

import asyncio
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from starlette.exceptions import HTTPException
from starlette.routing import Match

from callmood import schemas
from callmood.dashboard.page import app
from callmood.dashboard.page.access import Viewer, is_session, logged_in, new_session, parse_viewers, session_of
from callmood.dashboard.page.app import PageOptions, create_app
from callmood.dashboard.page.floor import Snapshot
from callmood.dashboard.page.picture import SHOWN, picture
from callmood.dashboard.reader import CallView
from callmood.schemas.call import Call, Sign, SignName
from callmood.schemas.common import Role


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


def test_the_model_of_calls_that_have_ended_is_named():
    """So the notice of a demo model stays while their labels can be read."""
    snapshot = Snapshot(1, 10.0, (a_row(1),), ended=(a_row(2, model="demo-tiny"), a_row(3, model="")))
    assert picture(snapshot, {})["models"] == ["demo-tiny", "m"]


def test_a_viewer_chooses_a_queue_a_team_or_a_text():
    """The counts stay those of the whole floor."""
    calls = (a_row(3, "some", queue="billing", team="b"), a_row(1, queue="billing", team="a"), a_row(2, agent="Kim"))
    snapshot = Snapshot(1, 10.0, calls)

    def found(**chosen):
        return [row["id"] for row in picture(snapshot, chosen)["shown"]]

    assert found(queue="billing") == ["call-3", "call-1"]
    assert found(queue="billing", team="b") == ["call-3"]
    assert found(search="KIM") == ["call-2"]
    assert found(search="call-") == ["call-3", "call-1", "call-2"]
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


KIM = """
[kim]
token = "the token of Kim, long"
queues = ["billing"]

[ada]
token = "the token of Ada, long"
"""


def test_a_viewer_sees_own_queues_only():
    """Rows, counts, ended calls and alerts of other queues, and of none, are left out."""
    calls = (a_row(1, queue="billing"), a_row(2, "high"), a_row(3, queue=""))
    told = tuple({"alert_id": f"{q}:1", "call_id": q, "attributes": {"queue": q} if q else {}} for q in ("billing", ""))
    snapshot = Snapshot(1, 10.0, calls, told, ended=(a_row(4), a_row(5, queue="billing")))
    kim, ada = parse_viewers(KIM)
    seen = picture(snapshot, {}, kim)
    assert ([row["id"] for row in seen["shown"]], seen["live"], seen["need"]) == (["call-1"], 1, 0)
    assert seen["queues"] == [{"name": "billing", "live": 1, "need": 0}]
    assert ([row["id"] for row in seen["ended"]], [one["alert_id"] for one in seen["alerts"]]) == (
        ["call-5"],
        ["billing:1"],
    )
    assert (picture(snapshot, {}, ada)["live"], len(picture(snapshot, {}, ada)["alerts"])) == (3, 2)


def test_each_viewer_has_an_own_session():
    """A token opens its owner's session only."""
    kim, ada = viewers = parse_viewers(KIM)
    assert (logged_in(kim.token, viewers), logged_in("another token", viewers)) == (kim, None)
    assert session_of({"callmood_session": new_session(ada.token)}, viewers) == ada
    assert session_of({}, viewers) is None
    assert session_of({"callmood_session": "\N{SNOWMAN}.\N{SNOWMAN}"}, viewers) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no viewer"),
        ("token = 'long enough, but of whom?'", r"\[token\]: use a table"),
        ("[kim]\ntoken = 'short'", r"\[kim\]: a token has at least 16"),
        ("[kim]\ntoken = 'long enough a token'\nqueues = 'billing'", "queues must be a list"),
        ("[kim]\ntoken = 'long enough a token'\nqueue = ['billing']", "`token` and `queues` only"),
        ("[kim]\ntoken = 'long enough a token'\n[ada]\ntoken = 'long enough a token'", "token of another"),
        ("[kim]\ntoken = ?", "line 2"),
    ],
)
def test_a_wrong_access_file_is_refused(text, message):
    """The message names the viewer or the line, and no token."""
    with pytest.raises(ValueError, match=message) as error:
        parse_viewers(text)
    assert "long enough" not in str(error.value)


def test_the_pulse_tells_a_quiet_floor_from_a_broken_pipeline():
    """It has the partition that has waited longest."""
    seen = picture(Snapshot(1, 10.0, waiting_for="audio:3", waiting_ms=45_000), {})
    assert seen["waiting"] == {"partition": "audio:3", "ms": 45_000}
    assert picture(Snapshot(), {}, Viewer())["waiting"] == {"partition": None, "ms": 0}


def test_the_openapi_file_names_every_route_of_the_api():
    """And its methods, and no other."""
    app = create_app(None, None, None, PageOptions())
    served = {
        (re.sub(r":path", "", route.path), method)
        for route in app.routes
        if route.path.startswith("/api/")
        for method in route.methods - {"HEAD"}
    }
    document = yaml.safe_load((Path(schemas.__file__).parent / "openapi.yaml").read_text(encoding="utf-8"))
    named = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert named == served


def test_where_nobody_has_a_token_the_login_leads_on():
    """A proxy has logged the viewer in, and sends back to the address that the page had gone to."""
    page, answers = create_app(SimpleNamespace(problem=""), None, None, PageOptions(queue_header="x-queues")), []

    async def send(message):
        answers.append(message)

    scope = {"type": "http", "method": "GET", "path": "/login", "query_string": b"next=%2Falerts", "headers": []}
    asyncio.run(page(scope, None, send))
    assert (answers[0]["status"], dict(answers[0]["headers"])[b"location"]) == (303, b"/alerts")


@pytest.mark.parametrize(
    ("host", "options", "status"),
    [
        ("localhost:8090", {}, 200),
        ("127.0.0.1:8090", {}, 200),
        ("[::1]:8090", {}, 200),
        ("rebound.example:8090", {}, 400),
        ("localhost.rebound.example", {}, 400),
        ("wall.example", {"queue_header": "x-queues"}, 200),
        ("wall.example", {"viewers": (Viewer(token="t" * 40),)}, 200),
    ],
)
def test_without_a_login_only_names_of_this_machine_are_answered(host, options, status):
    """A site that points its own name at this machine reads nothing; behind a proxy or a login, any name is good."""
    app, answers = create_app(SimpleNamespace(problem=""), None, None, PageOptions(**options)), []

    async def send(message):
        answers.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/healthz",
        "query_string": b"",
        "headers": [(b"host", host.encode())],
    }
    asyncio.run(app(scope, None, send))
    assert answers[0]["status"] == status
    assert b"frame-ancestors 'none'" in dict(answers[0]["headers"])[b"content-security-policy"]


CALL = Call.model_validate_json((Path(schemas.__file__).parent / "examples/call/valid/completed.json").read_text())


class Asked:
    """The page over one call of the queue `billing`, and what it has told for the audit."""

    def __init__(self, trends=(), call=CALL):
        self.audited, self.claims = [], []
        views = {"call-1": CallView(call.model_copy(update={"attributes": {"queue": "billing"}}), None)}
        results = SimpleNamespace(
            calls=lambda ids: [views[one] for one in ids if one in views], utterances=lambda *_, **__: []
        )
        options = PageOptions(audit=lambda event, fields: self.audited.append((event, fields["user"])))
        alert = {"alert_id": "call-1:run:1", "call_id": "call-1", "attributes": {"queue": "billing"}}
        snapshot = Snapshot(trends=tuple(trends), alerts=(alert,))
        floor = SimpleNamespace(
            snapshot=snapshot, claim=lambda *claim: self.claims.append(claim) or self.claims == [claim]
        )
        self._app = create_app(floor, results, None, options)

    def get(self, path, viewer, **query):
        """Status and content of an answer of the API."""
        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        for route in self._app.routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                request = SimpleNamespace(query_params=query, state=SimpleNamespace(viewer=viewer), headers={}, **found)
                answer = asyncio.run(route.endpoint(request))
                return answer.status_code, json.loads(answer.body)
        raise AssertionError(path)

    def claim(self, viewer, body, **headers):
        """Status of an answer to a claim."""

        async def stream():
            yield body

        endpoint = next(route.endpoint for route in self._app.routes if route.path == "/api/claims")
        request = SimpleNamespace(state=SimpleNamespace(viewer=viewer), headers=headers, stream=stream)
        return asyncio.run(endpoint(request)).status_code


def test_a_claim_is_of_an_alert_that_its_viewer_sees():
    """It has a name, is made by the page itself and is short; the first one counts, and each is told for the audit."""
    kim, _ = parse_viewers(KIM)
    page, lea = Asked(), Viewer("lea", "", frozenset({"sales"}))

    def body(**changes):
        return json.dumps({"alert_id": "call-1:run:1", "by": " Kim ", "note": ""} | changes).encode()

    same = {"origin": "https://wall.invalid", "host": "wall.invalid"}
    assert page.claim(kim, body(), **same | {"origin": "https://other.invalid"}) == 403
    assert [page.claim(kim, body(**changes)) for changes in ({"by": " "}, {"alert_id": "call-1:run:2"})] == [400, 400]
    assert page.claim(lea, body()) == 400
    assert [page.claim(kim, text) for text in (b"", b"[]", b"{}", b'{"by": "Kim"}')] == [400] * 4
    with pytest.raises(HTTPException) as refused:
        page.claim(kim, body(note="x" * 10_000))
    assert (refused.value.status_code, page.claims, page.audited) == (413, [], [])
    assert [page.claim(kim, body(), **same), page.claim(kim, body(note="I, too"))] == [200, 409]
    assert page.claims == [("call-1:run:1", "Kim", ""), ("call-1:run:1", "Kim", "I, too")]
    assert page.audited == [("alert claimed", "kim")] * 2


def test_who_has_opened_which_calls_is_remembered_for_a_while(monkeypatch):
    """The pair that was seen longest ago goes first, so reading on is told only after a long absence."""
    monkeypatch.setattr(app, "_REMEMBERED", 2)
    kim, ada = parse_viewers(KIM)
    page, lea = Asked(), Viewer("lea")
    for viewer in (kim, ada, kim, lea, kim, ada):
        page.get("/api/calls/call-1", viewer, after="3")
    assert page.audited == [("call opened", name) for name in ("kim", "ada", "lea", "ada")]


def test_a_call_is_shown_to_viewers_of_its_queue_only():
    """Each time that somebody opens one, and each refusal, is told for the audit; reading on is not."""
    kim, ada = parse_viewers(KIM)
    page, lea = Asked(), Viewer("lea", "", frozenset({"sales"}))
    assert page.get("/api/calls/call-1", kim)[0] == page.get("/api/calls/call-1", ada)[0] == 200
    status, told = page.get("/api/calls/call-1", lea)
    assert (status, told) == (403, {"error": "the call belongs to a queue that you may not see"})
    assert page.get("/api/calls/call-1", kim, after="3")[0] == 200
    assert page.get("/api/calls/call-1", kim, after="0")[0] == 200
    assert page.get("/api/calls/call-1", kim)[1]["call"]["call_id"] == CALL.call_id
    opened = [("call opened", "kim"), ("call opened", "ada"), ("call refused", "lea"), ("call opened", "kim")]
    assert page.audited == opened
    assert page.get("/api/calls/other", ada)[0] == 404
    assert page.get("/api/calls/call-1", ada, after="x")[0] == 400


def test_the_record_of_a_call_has_no_emotion_of_an_agent():
    """Even if the policy of the workers allows it; all else is as it was written."""
    emotion = CALL.roles[Role.CUSTOMER].emotion
    agent = CALL.roles[Role.AGENT].model_copy(update={"emotion": emotion})
    roles = (Role.AGENT, None)
    signs = tuple(Sign(name=SignName.STREAK, role=role, value=3.0, text=f"a sign of {role}") for role in roles)
    call = CALL.model_copy(update={"roles": {**CALL.roles, Role.AGENT: agent}, "signs": signs})
    (ada,) = parse_viewers("[ada]\ntoken = 'a long random text'\n")
    told = Asked(call=call).get("/api/calls/call-1", ada)[1]["call"]
    assert [sign["text"] for sign in told["signs"]] == ["a sign of None"]
    assert told["roles"]["agent"] == agent.model_dump(mode="json") | {"emotion": None}
    assert told["roles"]["customer"]["emotion"] == emotion.model_dump(mode="json")


def test_trends_are_those_of_the_queues_that_a_viewer_may_see():
    """By the hour as by the day."""
    kim, ada = parse_viewers(KIM)
    page = Asked([{"at_ms": 1, "queue": queue} for queue in ("", "billing", "sales")])
    assert [row["queue"] for row in page.get("/api/trends", kim)[1]["hours"]] == ["billing"]
    assert len(page.get("/api/trends", ada)[1]["hours"]) == 3
