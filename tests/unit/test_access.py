"""Who may see what of the page: sessions, open addresses, and the header of a proxy."""

import asyncio
import time
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from callmood.dashboard.page.access import (
    COOKIE,
    Login,
    Viewer,
    is_foreign,
    is_session,
    new_session,
    page_after_login,
    parse_viewers,
    session_ends_s,
    user_of,
)

KIM, ADA = Viewer("kim", "the token of Kim, long", frozenset({"billing"})), Viewer("ada", "the token of Ada, long")


def answer(path, *, viewers=(KIM, ADA), queue_header=None, session_of=None, **headers):
    """The status, and the viewer that the page was told of; 200 is that of the page."""
    told, statuses = [], []

    async def page(scope, _receive, _send):
        told.append(scope["state"]["viewer"])

    async def send(message):
        statuses.append(message.get("status"))

    if session_of is not None:
        headers["cookie"] = f"{COOKIE}={new_session(session_of.token)}"
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": raw, "query_string": b""}
    asyncio.run(Login(page, viewers, queue_header)(scope, None, send))
    return (200, told[0]) if told else (statuses[0], None)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 303), ("/calls/1", 303), ("/trends", 303), ("/static", 303),
        ("/api/calls", 401), ("/api/calls/1", 401), ("/events", 401),
    ],
)  # fmt: skip
def test_without_a_session_nothing_is_shown(path, status):
    """A person is sent to the login, a program is told so."""
    assert answer(path) == (status, None)
    assert answer(path, session_of=Viewer(token="a token of nobody")) == (status, None)
    assert answer(path, session_of=ADA) == (200, ADA)


@pytest.mark.parametrize("path", ["/login", "/healthz", "/static/page.css"])
def test_what_a_login_needs_is_open(path):
    """Also where a proxy says nothing of queues."""
    assert answer(path, queue_header="x-queues")[0] == 200


@pytest.mark.parametrize(
    ("header", "of_kim", "of_ada"),
    [
        ("*", {"billing"}, None),
        ("billing, sales", {"billing"}, {"billing", "sales"}),
        ("sales,", set(), {"sales"}),
        ("", set(), set()),
    ],
)
def test_a_proxy_leaves_queues_and_adds_none(header, of_kim, of_ada):
    """A viewer sees the queues that both the file and the proxy allow."""
    for viewer, queues in ((KIM, of_kim), (ADA, of_ada)):
        status, told = answer("/api/calls", queue_header="x-queues", session_of=viewer, x_queues=header)
        assert (status, told.name, told.queues) == (200, viewer.name, queues if queues is None else frozenset(queues))


@pytest.mark.parametrize("path", ["/", "/api/calls", "/events"])
def test_a_proxy_that_says_nothing_is_refused(path):
    """Its header is set, so an answer without it is a mistake, with a login and without one."""
    assert answer(path, queue_header="x-queues", session_of=ADA) == (403, None)
    assert answer(path, queue_header="x-queues", viewers=()) == (403, None)
    assert answer(path, viewers=()) == (200, Viewer())


@pytest.mark.parametrize("length", [15, 16])
def test_a_token_has_at_least_16_characters(length):
    """The shortest one is allowed."""
    text = f"[kim]\ntoken = '{'x' * length}'"
    if length < 16:
        with pytest.raises(ValueError, match="at least 16"):
            parse_viewers(text)
    else:
        assert parse_viewers(text) == (Viewer("kim", "x" * length),)


def test_calls_without_a_queue_are_of_viewers_of_all():
    """Or of those whose queues have the empty name."""
    assert [viewer.may_see(None) for viewer in (ADA, KIM, Viewer(queues=frozenset({""})))] == [True, False, True]
    assert [viewer.may_see("billing") for viewer in (ADA, KIM)] == [True, True]
    assert not KIM.may_see("sales")


def test_a_session_ends_after_half_a_day():
    """However long the browser keeps the cookie."""
    now_s = time.time()
    made = {age_s: new_session(KIM.token, now_s - age_s) for age_s in (0, 12 * 3600 - 60, 12 * 3600 + 1)}
    assert [round(session_ends_s({COOKIE: one}) - now_s) for one in made.values()] == [12 * 3600, 60, -1]
    assert [is_session(cookie, KIM.token) for cookie in made.values()] == [True, True, False]


def test_an_audit_line_names_the_viewer_or_the_proxys_user():
    """Or, without either, the address."""
    client = SimpleNamespace(host="192.0.2.1")
    asked, plain = (SimpleNamespace(headers=headers, client=client) for headers in ({"x-forwarded-user": "Kim"}, {}))
    assert [user_of(asked, viewer) for viewer in (ADA, Viewer())] == ["ada", "Kim"]
    assert user_of(plain, Viewer()) == "192.0.2.1"


def asked(query="", **headers):
    """A request with these headers, as a server has read it."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "path": "/login", "query_string": query.encode(), "headers": raw})


def test_a_header_of_a_proxy_is_utf_8():
    """Names of queues and users are those that the proxy wrote."""
    status, told = answer(
        "/api/calls", queue_header="x-queues", viewers=(), x_queues="Störung, דחוף, \N{BLACK TELEPHONE}"
    )
    assert (status, told.queues) == (200, frozenset({"Störung", "דחוף", "\N{BLACK TELEPHONE}"}))
    assert user_of(asked(x_forwarded_user="Zoë"), Viewer()) == "Zoë"


def test_a_proxy_that_adds_its_header_to_that_of_the_client_is_refused():
    """One of the two is what the client would like to see."""
    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    headers = [(b"x-queues", b"*"), (b"x-queues", b"billing")]
    scope = {"type": "http", "method": "GET", "path": "/api/calls", "headers": headers, "query_string": b""}
    asyncio.run(Login(None, (), "X-Queues")(scope, None, send))
    assert statuses[0] == 403


@pytest.mark.parametrize(
    ("wanted", "page"),
    [
        ("/calls/a%2Fb", "/calls/a%2Fb"), ("/calls/?id=..", "/calls/?id=.."), ("/alerts", "/alerts"),
        ("/trends", "/trends"), ("/?queue=billing", "/?queue=billing"), ("", "/"),
        ("//evil.example.com", "/"), ("https://evil.example.com", "/"),
        ("/\\evil.example.com", "/"), ("/api/calls", "/"), ("/login", "/"), ("/alerts\r\nX: y", "/"), ("evil", "/"),
    ],
)  # fmt: skip
def test_the_login_leads_to_own_pages_only(wanted, page):
    """To the one that the viewer asked for, whatever the address says."""
    assert page_after_login(asked(urlencode({"next": wanted}))) == page


@pytest.mark.parametrize(
    ("headers", "of_a_claim", "of_a_form"),
    [
        ({}, False, False),
        ({"origin": "https://page.example.com"}, False, False),
        ({"origin": "https://elsewhere.example.com"}, True, True),
        ({"origin": "null"}, True, False),
        ({"origin": "https://elsewhere.example.com", "sec_fetch_site": "same-origin"}, False, False),
        ({"origin": "https://page.example.com", "sec_fetch_site": "cross-site"}, True, True),
        ({"origin": "null", "sec_fetch_site": "same-site"}, True, True),
    ],
)
def test_what_another_site_sends_is_known(headers, of_a_claim, of_a_form):
    """By what the browser says of it; otherwise by the origin, which our form does not have."""
    request = asked(host="page.example.com", **headers)
    assert (is_foreign(request), is_foreign(request, is_form=True)) == (of_a_claim, of_a_form)
