"""The page's web application: static files, one stream of events a viewer, calls as JSON, claims, login."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import redis
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callmood.dashboard.page.access import (
    COOKIE,
    SESSION_S,
    Login,
    Viewer,
    is_foreign,
    logged_in,
    new_session,
    page_after_login,
    session_ends_s,
    user_of,
    viewer_of,
)
from callmood.dashboard.page.floor import Floor
from callmood.dashboard.page.frames import Frames
from callmood.dashboard.page.picture import alerts, picture, pulse
from callmood.dashboard.page.trends import History
from callmood.dashboard.reader import Dashboard
from callmood.schemas.common import Role

STATIC: Final = Path(__file__).parent / "static"
LOCAL: Final = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine. Without a login or a proxy's header, a request must use one of them: any site can point a name
of its own at 127.0.0.1, and its scripts in a supervisor's browser could then read the calls (DNS rebinding)."""
_BEAT_S: Final = 3.0
"""Without news, viewers get the time this often: the page says after 5 s of silence that it has no connection."""
_STREAM_S: Final = 3600.0
"""Then a stream ends and the browser opens a new one, with what the proxy allows by then."""
_LONGEST: Final = 500
_BODY: Final = 10_000
_REMEMBERED: Final = 10_000
_WRONG: Final = '<p id="wrong" class="signs">No viewer has this token.</p>'
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
        viewers: everybody who may log in; empty: anybody sees everything.
        queue_header: header in which a proxy says which queues may be seen; None: no proxy does.
        listen: address of the phone system, with `{call}` for the id; None: no link.
        recording: address of the recorder, with `{call}` and `{ms}`; None: no link.
        history: folder with the files of `callmood export --format csv`; None: there is none.
        audit: told of each call that is opened and of each claim: the event, and its fields.
    """

    viewers: tuple[Viewer, ...] = ()
    queue_header: str | None = None
    listen: str | None = None
    recording: str | None = None
    history: Path | None = None
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
        Route("/trends", page.html),
        Route("/login", page.login, methods=["GET", "POST"]),
        Route("/events", page.events),
        Route("/api/calls", page.calls),
        Route("/api/calls/{call_id:path}", page.call),
        Route("/api/alerts", page.alerts),
        Route("/api/pulse", page.pulse),
        Route("/api/trends", page.trends),
        Route("/api/claims", page.claim, methods=["POST"]),
        Route("/healthz", page.health),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    layers = [
        Middleware(_Headers),
        Middleware(Login, viewers=options.viewers, queue_header=options.queue_header),
    ]
    if not options.viewers and options.queue_header is None:
        layers.insert(1, Middleware(TrustedHostMiddleware, allowed_hosts=LOCAL, www_redirect=False))
    return Starlette(routes=routes, middleware=layers)


class _Headers:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, answer)


class _Page:
    def __init__(self, floor: Floor, dashboard: Dashboard, viewers: Viewers, options: PageOptions) -> None:
        self._floor = floor
        self._dashboard = dashboard
        self._viewers = viewers
        self._options = options
        self._history = History(options.history)
        self._links = {name: link for name in ("listen", "recording") if (link := getattr(options, name))}
        self._frames = Frames(self._links)
        self._opened: dict[tuple[str, str], None] = {}
        """Who has opened which calls, the newest last."""

    async def html(self, _request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def health(self, _request: Request) -> Response:
        problem = self._floor.problem
        return JSONResponse({"problem": problem}, 503 if problem else 200)

    async def login(self, request: Request) -> Response:
        if request.method == "GET":
            if not self._options.viewers:  # the proxy's login leads back to where the page asked for one
                return RedirectResponse(page_after_login(request), 303)
            told = _WRONG if "wrong" in request.query_params else ""
            return HTMLResponse((STATIC / "login.html").read_text(encoding="utf-8").replace("<!-- wrong -->", told))
        if is_foreign(request, is_form=True):
            return JSONResponse({"error": "from another site"}, 403)
        given = parse_qs((await _body(request)).decode(errors="replace")).get("token", [""])[0]
        viewer, wanted = logged_in(given, self._options.viewers), page_after_login(request)
        if viewer is None:
            self._options.audit("login refused", {"user": user_of(request, Viewer())})
            await asyncio.sleep(1.0)
            return RedirectResponse(f"/login?wrong&{urlencode({'next': wanted})}", 303)
        response = RedirectResponse(wanted, 303)
        scheme = request.headers.get("x-forwarded-proto", request.url.scheme).partition(",")[0].strip()
        response.set_cookie(
            COOKIE,
            new_session(viewer.token),
            max_age=SESSION_S,
            httponly=True,
            samesite="lax",  # with strict, a link to a call in a chat would lead to the login
            secure=scheme == "https",
        )
        return response

    async def call(self, request: Request) -> Response:
        call_id = request.path_params["call_id"] or request.query_params.get("id", "")
        after = request.query_params.get("after", "0")
        if not re.fullmatch("[0-9]{1,18}", after):
            return JSONResponse({"error": "after is a number"}, 400)
        try:
            answer = await run_in_threadpool(self._read, call_id, int(after))
        except redis.RedisError as error:
            return JSONResponse({"error": f"Redis does not answer: {type(error).__name__}"}, 503)
        if answer is None:
            return JSONResponse({"error": "no such call"}, 404)
        if not viewer_of(request).may_see(answer["call"]["attributes"].get("queue")):
            self._audit(request, "call refused", call_id)
            return JSONResponse({"error": "the call belongs to a queue that you may not see"}, 403)
        if self._is_opened(user_of(request, viewer_of(request)), call_id, is_first="after" not in request.query_params):
            self._audit(request, "call opened", call_id)
        return JSONResponse(answer)

    def _is_opened(self, user: str, call_id: str, *, is_first: bool) -> bool:
        """Whether somebody opens a call now, and does not only read on."""
        is_known = (user, call_id) in self._opened
        self._opened.pop((user, call_id), None)
        self._opened[user, call_id] = None
        if len(self._opened) > _REMEMBERED:
            del self._opened[next(iter(self._opened))]
        return is_first or not is_known

    async def calls(self, request: Request) -> Response:
        seen = picture(self._floor.snapshot, self._chosen(request), viewer_of(request))
        return JSONResponse(
            {name: seen[name] for name in ("at_ms", "problem", "live", "need", "queues", "ended")}
            | {"calls": seen["shown"]}
        )

    async def alerts(self, request: Request) -> Response:
        return JSONResponse({"alerts": alerts(self._floor.snapshot, viewer_of(request))})

    async def pulse(self, _request: Request) -> Response:
        return JSONResponse(pulse(self._floor.snapshot))

    async def trends(self, request: Request) -> Response:
        viewer, days = viewer_of(request), await run_in_threadpool(self._history.rows)
        told = {"hours": self._floor.snapshot.trends, "days": days}
        return JSONResponse(
            {name: [row for row in rows if viewer.may_see(row["queue"])] for name, rows in told.items()}
        )

    def _chosen(self, request: Request) -> dict[str, str]:
        return {name: request.query_params.get(name, "") for name in ("queue", "team", "search")}

    def _read(self, call_id: str, after: int) -> dict[str, Any] | None:
        views = self._dashboard.calls([call_id])
        if not views:
            return None
        said = self._dashboard.utterances(call_id, after=after)
        call = views[0].call.model_dump(mode="json", by_alias=True)
        call["signs"] = [sign for sign in call["signs"] if sign["role"] != Role.AGENT]
        if agent := call["roles"].get(Role.AGENT):
            agent["emotion"] = None  # the page shows this record as it is
        return {
            "call": call,
            "risk": views[0].risk,
            "utterances": [utterance.model_dump(mode="json", by_alias=True) for utterance in said],
            "links": self._links,
        }

    async def claim(self, request: Request) -> Response:
        if is_foreign(request):
            return JSONResponse({"error": "from another site"}, 403)
        try:
            asked = json.loads(await _body(request))
            alert_id, by, note = (_text(asked[name]) for name in ("alert_id", "by", "note"))
        except (ValueError, KeyError, TypeError, RecursionError):
            return JSONResponse({"error": "a claim has alert_id, by and note"}, 400)
        if not by.strip() or all(
            alert["alert_id"] != alert_id for alert in alerts(self._floor.snapshot, viewer_of(request))
        ):
            return JSONResponse({"error": "no name, or no such alert"}, 400)
        try:
            is_first = await run_in_threadpool(self._floor.claim, alert_id, by.strip(), note)
        except redis.RedisError as error:
            return JSONResponse({"error": f"Redis refuses the claim: {error}"}, 503)
        self._audit(request, "alert claimed", alert_id.rpartition(":")[0].rpartition(":")[0])
        return JSONResponse({"first": is_first}, 200 if is_first else 409)

    def _audit(self, request: Request, event: str, call_id: str) -> None:
        self._options.audit(event, {"call": call_id, "user": user_of(request, viewer_of(request))})

    async def events(self, request: Request) -> Response:
        ends_s = time.time() + _STREAM_S
        if self._options.viewers:
            ends_s = min(ends_s, session_ends_s(request.cookies))
        stream = self._stream(self._chosen(request), viewer_of(request), ends_s)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def _stream(self, chosen: Mapping[str, str], viewer: Viewer, ends_s: float) -> AsyncIterator[bytes]:
        """First all of it, then what has changed; each message has the time. Ends with the server."""
        yield b"retry: 2000\n\n"
        number = -1
        while not self._viewers.is_over and time.time() < ends_s:
            snapshot = self._floor.snapshot
            if snapshot.number != number:
                message = self._frames.message(snapshot, chosen, viewer, number)
                number = snapshot.number
            elif await self._viewers.wait(_BEAT_S):
                continue
            else:
                message = b'{"rows":[]}'
            yield b'data: {"now_ms":%d,' % round(time.time() * 1000) + message.removeprefix(b"{") + b"\n\n"


def _text(value: Any) -> str:
    """Of a claim, cut to a length that is shown.

    Raises:
        ValueError: it has half of a surrogate pair, which no answer can carry.
    """
    return str(value)[:_LONGEST].encode().decode()


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY:
            raise HTTPException(413, "the request is too long")
    return body
