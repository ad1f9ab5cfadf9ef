"""The page's server at SIGTERM, and what its health says; tests/integration/test_page.py has the whole page."""

import asyncio
import json
import signal
import socket
import time
from threading import Thread
from types import SimpleNamespace

import pytest
from starlette.routing import Route

from callmood.dashboard.page.access import COOKIE, SESSION_S, Viewer, new_session
from callmood.dashboard.page.app import PageOptions, Viewers, create_app
from callmood.dashboard.page.floor import Floor, Snapshot
from callmood.dashboard.page.server import Server
from callmood.redis_address import Address

_MORE_THAN_SOCKETS_HOLD = 64 << 20


def eventually(is_true):
    """Whether a condition becomes true."""
    deadline_s = time.monotonic() + 60
    while not (value := is_true()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return value


async def served(server):
    """Serve; then drop what no client has read, as the end of a process does."""
    await server.serve()
    for connection in list(server.server_state.connections):
        connection.transport.abort()


def test_a_viewer_that_never_reads_does_not_hold_the_server():
    """SIGTERM ends it, although an answer to that viewer waits in the socket."""
    problem = "x" * _MORE_THAN_SOCKETS_HOLD
    floor, viewers = SimpleNamespace(snapshot=Snapshot(1, problem=problem)), Viewers()
    server = Server(create_app(floor, None, viewers, PageOptions()), viewers, host="127.0.0.1", port=0)
    serving = Thread(target=asyncio.run, args=(served(server),), daemon=True)
    serving.start()
    assert eventually(lambda: server.started)
    (address,) = (one.getsockname() for one in server.servers[0].sockets)
    with socket.create_connection(address) as viewer:
        viewer.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connections = server.server_state.connections
        assert eventually(lambda: any(one.transport.get_write_buffer_size() for one in list(connections)))
        server.handle_exit(signal.SIGTERM, None)
        serving.join(60)
        assert not serving.is_alive()


def test_a_stream_has_the_time_and_ends_with_the_session():
    """Also without news; the browser then opens another one, and is refused."""
    floor, viewers, viewer = SimpleNamespace(snapshot=Snapshot(1)), Viewers(), Viewer(token="a token of some length")
    app = create_app(floor, None, viewers, PageOptions((viewer,)))
    server = Server(app, viewers, host="127.0.0.1", port=0)
    serving = Thread(target=asyncio.run, args=(served(server),), daemon=True)
    serving.start()
    assert eventually(lambda: server.started)
    (address,) = (one.getsockname() for one in server.servers[0].sockets)
    cookie = new_session(viewer.token, time.time() - SESSION_S + 2)
    with socket.create_connection(address) as browser:
        browser.sendall(
            f"GET /events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {COOKIE}={cookie}\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: browser.recv(65536), b""))
    server.handle_exit(signal.SIGTERM, None)
    serving.join(60)
    news, beat = (json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith("data: "))
    assert (news["live"], beat["rows"]) == (0, [])
    assert 0 <= beat["now_ms"] - news["now_ms"] < 30_000


@pytest.fixture
def floor():
    """A floor whose Redis does not exist."""
    made = Floor(Address("redis://127.0.0.1:1"), "test")
    yield made
    made.stop()


def health(floor):
    """The status and the problem that /healthz answers."""
    app = create_app(floor, None, Viewers(), PageOptions())
    (route,) = (one for one in app.routes if isinstance(one, Route) and one.path == "/healthz")
    answer = asyncio.run(route.endpoint(None))
    return answer.status_code, json.loads(answer.body)["problem"]


def test_a_floor_that_nobody_reads_is_not_healthy(floor):
    """Although its newest snapshot was fresh."""
    floor.snapshot = Snapshot(1, problem="")
    assert health(floor) == (503, "the thread that reads Redis has ended")


def test_an_exception_does_not_end_the_floor(floor):
    """It is the problem until a look succeeds again."""
    answers = [RuntimeError("a bug"), None]

    def look(**_):
        if (error := answers[0]) is not None:
            raise error
        floor._publish()

    floor.look = look
    floor.start()
    assert eventually(lambda: health(floor) == (503, "Redis has what cannot be read: RuntimeError"))
    del answers[0]
    assert eventually(lambda: health(floor) == (200, ""))


def test_viewers_are_told_once_that_redis_is_away():
    """Each further try finds the same, and makes no snapshot."""
    told, looks = [], []
    floor = Floor(Address("redis://127.0.0.1:1"), "test", lambda: told.append(floor.snapshot.problem))
    read, floor.look = floor.look, lambda **wait: (looks.append(1), read(**wait))
    floor.start()
    assert eventually(lambda: len(looks) >= 4)
    floor.stop()
    assert told == ["Redis does not answer: ConnectionError"]
    assert floor.snapshot.number == 1
