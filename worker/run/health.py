"""/livez, /readyz and /metrics. They answer from the processes' reports, not from this thread's own health."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Answer(NamedTuple):
    """Whether the probe passes, and one line with the reason."""

    is_ok: bool
    text: str


class Probes(NamedTuple):
    """What the endpoints ask."""

    is_alive: Callable[[], Answer]
    is_ready: Callable[[], Answer]


def use_shared_metrics() -> str:
    """Let this process and its children write metrics that add up.

    Call it before `worker.metrics` is imported anywhere. Returns the directory, which the caller removes.
    """
    directory = tempfile.mkdtemp(prefix="callmood-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
    return directory


def forget_process(pid: int | None) -> None:
    """A process has ended: drop its gauges."""
    from prometheus_client import multiprocess  # noqa: PLC0415 - see use_shared_metrics

    if pid is not None:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


@contextmanager
def serving(probes: Probes, host: str, port: int) -> Iterator[ThreadingHTTPServer]:
    """Answer in a thread of its own until the end of the context; `server_port` is the port in use.

    Raises:
        OSError: the address is taken or not this machine's.
    """
    with _bound(probes, host, port) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def _bound(probes: Probes, host: str, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path:
                case "/livez":
                    self._answer(probes.is_alive())
                case "/readyz":
                    self._answer(probes.is_ready())
                case "/metrics":
                    self._send(HTTPStatus.OK, _metrics(), "text/plain; version=0.0.4; charset=utf-8")
                case _:
                    self._send(HTTPStatus.NOT_FOUND, b"/livez, /readyz or /metrics\n")

        def _answer(self, answer: Answer) -> None:
            status = HTTPStatus.OK if answer.is_ok else HTTPStatus.SERVICE_UNAVAILABLE
            self._send(status, f"{answer.text}\n".encode())

        def _send(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes are not worth a log line."""

    return ThreadingHTTPServer((host, port), Handler)


def _metrics() -> bytes:
    from prometheus_client import CollectorRegistry, generate_latest, multiprocess  # noqa: PLC0415 - see use_shared_metrics

    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
