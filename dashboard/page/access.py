"""Access to the page: viewers with their tokens and queues, the login, and the session's cookie."""

import hmac
import re
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE: Final = "callmood_session"
SESSION_S: Final = 12 * 3600
SHORTEST_TOKEN: Final = 16
ALL_QUEUES: Final = "*"


@dataclass(frozen=True)
class Viewer:
    """Somebody who looks at the page.

    Attributes:
        name: for the audit lines; empty if the token is shared.
        token: what the viewer logs in with; empty without a login.
        queues: the queues whose calls are shown; None: all, and calls without a queue.
    """

    name: str = ""
    token: str = ""
    queues: frozenset[str] | None = None

    def may_see(self, queue: str | None) -> bool:
        """Whether calls of this queue are shown."""
        return self.queues is None or (queue or "") in self.queues


def parse_viewers(text: str) -> tuple[Viewer, ...]:
    """Viewers from TOML: a `[name]` table each, with `token` and, unless all are shown, `queues`.

    Raises:
        ValueError: it is no such file; the message names the viewer, never a token.
    """
    viewers: list[Viewer] = []
    for name, table in tomllib.loads(text).items():
        if not isinstance(table, dict) or not table.keys() <= {"token", "queues"}:
            raise ValueError(f"[{name}]: use a table with `token` and `queues` only")
        token, queues = table.get("token"), table.get("queues")
        if not isinstance(token, str) or len(token) < SHORTEST_TOKEN:
            raise ValueError(f"[{name}]: a token has at least {SHORTEST_TOKEN} characters")
        if queues is not None and not (isinstance(queues, list) and all(isinstance(queue, str) for queue in queues)):
            raise ValueError(f"[{name}]: queues must be a list of texts")
        if any(token == other.token for other in viewers):
            raise ValueError(f"[{name}] has the token of another viewer")
        viewers.append(Viewer(name, token, None if queues is None else frozenset(queues)))
    if not viewers:
        raise ValueError("the file names no viewer")
    return tuple(viewers)


class Login:
    """Finds out who asks. Without a session only the login page, what it needs, and the health check are answered.

    Args:
        app: what is behind it; it finds the viewer with `viewer_of`.
        viewers: everybody who may log in; empty: anybody sees everything.
        queue_header: header in which a proxy says which queues may be seen, with commas, or `*`; None: none does.
    """

    def __init__(self, app: ASGIApp, viewers: Sequence[Viewer], queue_header: str | None) -> None:
        self._app = app
        self._viewers = viewers
        self._queue_header = queue_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        path, request = scope["path"], Request(scope)
        is_open = path in ("/login", "/healthz") or path.startswith("/static/")
        viewer = Viewer() if is_open or not self._viewers else session_of(request.cookies, self._viewers)
        is_api = path.startswith("/api/") or path == "/events"
        if viewer is not None and not is_open:
            viewer = self._within_header(viewer, request)
            if viewer is None:
                problem = f"the proxy must set the header {self._queue_header} once: the queues that you may see"
                await JSONResponse({"error": problem}, 403)(scope, receive, send)
                return
        if viewer is not None:
            scope.setdefault("state", {})["viewer"] = viewer
            await self._app(scope, receive, send)
        elif is_api:
            await JSONResponse({"error": "log in first"}, 401)(scope, receive, send)
        else:
            await RedirectResponse(_login_for(request), 303)(scope, receive, send)

    def _within_header(self, viewer: Viewer, request: Request) -> Viewer | None:
        """The viewer with the queues that the proxy leaves; None if it says nothing, or a client says it too."""
        if self._queue_header is None:
            return viewer
        values = request.headers.getlist(self._queue_header)
        if len(values) != 1:
            return None
        told = _utf8(values[0])
        if told.strip() == ALL_QUEUES:
            return viewer
        queues = frozenset(queue.strip() for queue in told.split(",") if queue.strip())
        return Viewer(viewer.name, viewer.token, queues if viewer.queues is None else queues & viewer.queues)


def _login_for(request: Request) -> str:
    """The address of the login that leads back to what was asked for."""
    path = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    wanted = path.decode("latin-1") + (f"?{request.url.query}" if request.url.query else "")
    return "/login" if wanted == "/" else f"/login?{urlencode({'next': wanted})}"


def page_after_login(request: Request) -> str:
    """What the viewer asked for before the login, if it is one of our pages; otherwise the wall."""
    wanted = request.query_params.get("next", "")
    return wanted if re.fullmatch(r"/(\?.*|alerts|trends|calls/.*)", wanted) else "/"


def is_foreign(request: Request, *, is_form: bool = False) -> bool:
    """Whether another site has made the browser send this request.

    Browsers say so over TLS, also where a proxy has changed `Host`. Otherwise the origin is compared, which a form of
    ours does not have: it is hidden by `Referrer-Policy`.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    if origin is None or (is_form and origin == "null"):
        return False
    return origin.partition("://")[2] != request.headers.get("host")


def viewer_of(request: Request) -> Viewer:
    """Who asks."""
    viewer: Viewer = request.state.viewer
    return viewer


def session_of(cookies: Mapping[str, str], viewers: Sequence[Viewer]) -> Viewer | None:
    """Whose session this is."""
    return next((viewer for viewer in viewers if is_session(cookies.get(COOKIE, ""), viewer.token)), None)


def logged_in(token: str, viewers: Sequence[Viewer]) -> Viewer | None:
    """Whose token this is; compares with all of them, in constant time."""
    found = [viewer for viewer in viewers if hmac.compare_digest(token.encode(), viewer.token.encode())]
    return found[0] if found else None


def new_session(token: str, now_s: float | None = None) -> str:
    """A cookie's value: when it ends, signed with the token."""
    ends = str(round((time.time() if now_s is None else now_s) + SESSION_S))
    return f"{ends}.{_signature(ends, token)}"


def is_session(cookie: str, token: str) -> bool:
    """Whether a cookie was made by `new_session` and has not ended."""
    ends, _, signature = cookie.partition(".")
    is_signed = hmac.compare_digest(signature.encode(), _signature(ends, token).encode())
    return is_signed and ends.isdecimal() and int(ends) > time.time()


def session_ends_s(cookies: Mapping[str, str]) -> float:
    """When a session ends, s since 1970; of cookies that `session_of` accepts."""
    return float(cookies[COOKIE].partition(".")[0])


def _signature(ends: str, token: str) -> str:
    return hmac.new(token.encode(), b"callmood session " + ends.encode(), sha256).hexdigest()


def read_viewers(path: Path) -> tuple[Viewer, ...]:
    """The viewers of a file; see `parse_viewers`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file.
    """
    return parse_viewers(path.read_text(encoding="utf-8"))


def user_of(request: Request, viewer: Viewer) -> str:
    """Who it is, for audit lines: the viewer's name, or what the proxy says, or the address."""
    told = _utf8(request.headers.get("x-forwarded-user", ""))
    return viewer.name or told or (request.client.host if request.client else "")


def _utf8(value: str) -> str:
    """The value of a header as its sender wrote it: Starlette reads every header as Latin-1."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value
