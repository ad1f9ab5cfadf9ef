"""The page's web application: static files, one stream of events a viewer, calls as JSON, claims, login."""

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import redis
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callmood.dashboard.page.floor import Floor, Snapshot
from callmood.dashboard.reader import Dashboard

STATIC: Final = Path(__file__).parent / "static"
SHOWN: Final = 60
"""Most calls that a wall lists; the others are counts per queue."""
_COOKIE: Final = "callmood_session"
_SESSION_S: Final = 12 * 3600
_COMMENT_S: Final = 15.0
_LONGEST: Final = 500
_BODY: Final = 10_000
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class PageOptions:
    """What an operator sets.

    Attributes:
        token: what a viewer types to log in; None: no login.
        listen: address of the phone system, with `{call}` for the id; None: no link.
        recording: address of the recorder, with `{call}` and `{ms}`; None: no link.
        audit: told of each call that is opened and of each claim: the event, and its fields.
    """

    token: str | None = None
    listen: str | None = None
    recording: str | None = None
    audit: Callable[[str, Mapping[str, str]], None] = lambda _event, _fields: None


class Viewers:
    """Wakes those who wait for news; from the loop's thread, except `notify`."""

    def __init__(self) -> None:
        self.is_over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()

    def notify(self) -> None:
        """There is news, or the end; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Whether there was news within the time."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(self._news.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


def create_app(floor: Floor, dashboard: Dashboard, viewers: Viewers, options: PageOptions) -> Starlette:
    """The application over a floor that is being read."""
    page = _Page(floor, dashboard, viewers, options)
    routes = [
        Route("/", page.html),
        Route("/calls/{call_id:path}", page.html),
        Route("/alerts", page.html),
        Route("/login", page.login, methods=["GET", "POST"]),
        Route("/events", page.events),
        Route("/api/calls/{call_id:path}", page.call),
        Route("/api/claims", page.claim, methods=["POST"]),
        Route("/healthz", page.health),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(_Headers), Middleware(_Login, token=options.token)])


class _Headers:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, answer)


class _Login:
    """Without a session only the login page, what it needs, and the health check are answered."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        is_open = self._token is None or path in ("/login", "/healthz") or path.startswith("/static/")
        if is_open or is_session(Request(scope).cookies.get(_COOKIE, ""), self._token or ""):
            await self._app(scope, receive, send)
        elif path.startswith("/api/") or path == "/events":
            await JSONResponse({"error": "log in first"}, 401)(scope, receive, send)
        else:
            await RedirectResponse("/login", 303)(scope, receive, send)


def new_session(token: str, now_s: float | None = None) -> str:
    """A cookie's value: when it ends, signed with the token."""
    ends = str(round((time.time() if now_s is None else now_s) + _SESSION_S))
    return f"{ends}.{_signature(ends, token)}"


def is_session(cookie: str, token: str) -> bool:
    """Whether a cookie was made by `new_session` and has not ended."""
    ends, _, signature = cookie.partition(".")
    return hmac.compare_digest(signature, _signature(ends, token)) and ends.isdigit() and int(ends) > time.time()


def _signature(ends: str, token: str) -> str:
    return hmac.new(token.encode(), b"callmood session " + ends.encode(), sha256).hexdigest()


class _Page:
    def __init__(self, floor: Floor, dashboard: Dashboard, viewers: Viewers, options: PageOptions) -> None:
        self._floor = floor
        self._dashboard = dashboard
        self._viewers = viewers
        self._options = options

    async def html(self, _request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def health(self, _request: Request) -> Response:
        problem = self._floor.snapshot.problem
        return JSONResponse({"problem": problem}, 503 if problem else 200)

    async def login(self, request: Request) -> Response:
        if request.method == "GET":
            return FileResponse(STATIC / "login.html")
        given = parse_qs((await _body(request)).decode(errors="replace")).get("token", [""])[0]
        token = self._options.token or ""
        if not hmac.compare_digest(given.encode(), token.encode()):
            await asyncio.sleep(1.0)
            return RedirectResponse("/login?wrong", 303)
        response = RedirectResponse("/", 303)
        is_secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        response.set_cookie(
            _COOKIE, new_session(token), max_age=_SESSION_S, httponly=True, samesite="strict", secure=is_secure
        )
        return response

    async def call(self, request: Request) -> Response:
        call_id, after = request.path_params["call_id"], request.query_params.get("after", "0")
        if not after.isdigit():
            return JSONResponse({"error": "after is a number"}, 400)
        if after == "0":
            self._audit(request, "call opened", call_id)
        try:
            answer = await run_in_threadpool(self._read, call_id, int(after))
        except redis.RedisError as error:
            return JSONResponse({"error": f"Redis does not answer: {type(error).__name__}"}, 503)
        return JSONResponse(answer or {"error": "no such call"}, 200 if answer else 404)

    def _read(self, call_id: str, after: int) -> dict[str, Any] | None:
        views = self._dashboard.calls([call_id])
        if not views:
            return None
        said = self._dashboard.utterances(call_id, after=after)
        return {
            "call": views[0].call.model_dump(mode="json", by_alias=True),
            "risk": views[0].risk,
            "utterances": [utterance.model_dump(mode="json", by_alias=True) for utterance in said],
            "links": {name: link for name in ("listen", "recording") if (link := getattr(self._options, name))},
        }

    async def claim(self, request: Request) -> Response:
        origin, host = request.headers.get("origin"), request.headers.get("host")
        if origin is not None and origin.partition("://")[2] != host:
            return JSONResponse({"error": "from another site"}, 403)
        try:
            asked = json.loads(await _body(request))
            alert_id, by, note = (str(asked[name])[:_LONGEST] for name in ("alert_id", "by", "note"))
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "a claim has alert_id, by and note"}, 400)
        if not by.strip() or all(alert["alert_id"] != alert_id for alert in self._floor.snapshot.alerts):
            return JSONResponse({"error": "no name, or no such alert"}, 400)
        try:
            is_first = await run_in_threadpool(self._floor.claim, alert_id, by.strip(), note)
        except redis.RedisError as error:
            return JSONResponse({"error": f"Redis refuses the claim: {error}"}, 503)
        self._audit(request, "alert claimed", alert_id.rpartition(":")[0].rpartition(":")[0])
        return JSONResponse({"first": is_first}, 200 if is_first else 409)

    def _audit(self, request: Request, event: str, call_id: str) -> None:
        user = request.headers.get("x-forwarded-user") or (request.client.host if request.client else "")
        self._options.audit(event, {"call": call_id, "user": user})

    async def events(self, request: Request) -> Response:
        chosen = {name: request.query_params.get(name, "") for name in ("queue", "team", "search")}
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(chosen), media_type="text/event-stream", headers=headers)

    async def _stream(self, chosen: Mapping[str, str]) -> AsyncIterator[str]:
        """First all of it, then what has changed; a comment every 15 s; ends with the server."""
        yield "retry: 2000\n\n"
        sent: dict[str, Mapping[str, Any]] = {}
        number = -1
        while not self._viewers.is_over:
            snapshot = self._floor.snapshot
            if snapshot.number != number:
                number = snapshot.number
                message = picture(snapshot, chosen)
                fresh = {row["id"]: row for row in message.pop("shown")}
                message["rows"] = [row for name, row in fresh.items() if sent.get(name) is not row]
                message["order"] = list(fresh)
                sent = fresh
                yield f"data: {json.dumps(message, separators=(',', ':'))}\n\n"
            elif not await self._viewers.wait(_COMMENT_S):
                yield ": still here\n\n"


def picture(snapshot: Snapshot, chosen: Mapping[str, str]) -> dict[str, Any]:
    """What a viewer sees who has chosen a queue, a team or a text to search for.

    `shown` are the calls of the list: those that need a person, or whatever the search finds; `queues` counts all.
    """
    queues: dict[str, dict[str, int]] = {}
    for row in snapshot.rows:
        count = queues.setdefault(row["queue"], {"live": 0, "need": 0})
        count["live"] += 1
        count["need"] += bool(row["level"])
    matching = [row for row in snapshot.rows if _matches(row, chosen)]
    is_search = bool(chosen.get("search"))
    shown = [row for row in matching if row["level"] or is_search]
    quiet = [row for row in matching if not row["level"]] if not is_search else []
    heard, uncertain = (sum(row[name] for row in snapshot.rows) for name in ("heard", "uncertain"))
    return {
        "at_ms": round(snapshot.at_s * 1000),
        "problem": snapshot.problem,
        "newest_audio_ms": snapshot.newest_audio_ms,
        "live": len(snapshot.rows),
        "need": sum(bool(row["level"]) for row in snapshot.rows),
        "uncertain": round(uncertain / heard, 3) if heard else None,
        "models": sorted({row["model"] for row in snapshot.rows if row["model"]}),
        "teams": sorted({row["team"] for row in snapshot.rows if row["team"]}),
        "queues": [{"name": name, **count} for name, count in sorted(queues.items())],
        "alerts": _alerts(snapshot),
        "shown": [*shown, *quiet][:SHOWN],
    }


def _alerts(snapshot: Snapshot) -> list[Mapping[str, Any]]:
    """The newest alerts; `live` says whether the call goes on."""
    live = {row["id"] for row in snapshot.rows}
    names = ("alert_id", "call_id", "rule", "severity", "message", "raised_at_ms", "raised_ms", "claim")
    return [
        {**{name: alert.get(name) for name in names}, "live": alert["call_id"] in live} for alert in snapshot.alerts
    ]


def _matches(row: Mapping[str, Any], chosen: Mapping[str, str]) -> bool:
    text = chosen.get("search", "").lower()
    return (
        chosen.get("queue", "") in ("", row["queue"])
        and chosen.get("team", "") in ("", row["team"])
        and (not text or any(text in row[name].lower() for name in ("id", "agent", "queue")))
    )


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY:
            raise HTTPException(413, "the request is too long")
    return body
