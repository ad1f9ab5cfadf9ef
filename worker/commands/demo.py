"""`callmood demo`: a worker, several calls at the same time, the live view, and the page for supervisors."""

import argparse
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from callmood.dashboard.reader import Dashboard
from callmood.dashboard.terminal import watch
from callmood.worker import settings
from callmood.worker.adapters.redis_client import redis_address, redis_errors
from callmood.worker.commands.recordings import Shape, load
from callmood.worker.commands.replay import Call, send
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import Settings

_EXAMPLES = Path(__file__).parents[3] / "examples" / "calls"
_READY_S = 180
_STOP_S = 40
_GRACE_S = 60
_LOG_LINES = 10
_PAGE_PORT = 8090


class DemoFailed(ConfigurationError):  # noqa: N818 - says what happened
    """The demo cannot continue; the message says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "files", metavar="FILE", type=Path, nargs="*", help="recorded call; default: all of examples/calls"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help="time for which the page runs after the calls, s; default: until Ctrl-C on a terminal, else 0",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until all calls have ended, Ctrl-C or SIGTERM; then stop page and worker when nobody needs them any more."""
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: page and worker end too
    try:
        configured = settings.load()
        calls = _calls(arguments.files)
        with redis_errors(), _page() as page, _worker(console) as log:
            console.print(f"page for supervisors: {page}" if page else "no page: pip install 'callmood[page]'")
            is_complete = _show(calls, configured, console)
            console.print(f"worker log: {log}" if is_complete else f"stopped; worker log: {log}")
            if page and is_complete:
                _stay(page, arguments.seconds, console)
    except KeyboardInterrupt:
        return 130
    return 0 if is_complete else 1


def _calls(files: list[Path]) -> list[Call]:
    files = files or sorted(path for path in _EXAMPLES.glob("*.*") if path.suffix in {".flac", ".ogg", ".wav"})
    if not files:
        raise DemoFailed("this installation has no example calls: give recorded calls as arguments")
    run_id = uuid.uuid4().hex[:4]
    return [Call(f"{path.stem}-{run_id}", load(path, Shape(attributes={"queue": path.stem}))) for path in files]


def _show(calls: list[Call], configured: Settings, console: Console) -> bool:
    is_over = threading.Event()
    sender = threading.Thread(
        target=send,
        args=(calls, configured.kafka),
        kwargs={"speed": 1.0, "progress": Progress(disable=True), "should_stop": is_over.is_set},
    )
    longest_s = max(call.recording.duration_ms for call in calls) / 1000
    sender.start()
    try:
        with Dashboard(redis_address(configured.redis), configured.redis.prefix) as dashboard:
            ids = [call.call_id for call in calls]
            return watch(dashboard, until=ids, timeout_s=longest_s + _GRACE_S, console=console)
    finally:
        is_over.set()
        sender.join()


def _stay(page: str, seconds: float | None, console: Console) -> None:
    """Leave the page there, until Ctrl-C or for so long."""
    if seconds is None and console.is_terminal:
        console.print(f"The calls have ended. {page} still shows them; Ctrl-C ends the demo.")
    stays_s = (None if console.is_terminal else 0.0) if seconds is None else seconds
    with suppress(KeyboardInterrupt):
        threading.Event().wait(stays_s)


@contextmanager
def _page() -> Iterator[str | None]:
    """Serve the page; yields its address, or None where its extra is not installed."""
    if importlib.util.find_spec("starlette") is None or importlib.util.find_spec("uvicorn") is None:
        yield None
        return
    port = _free_port(_PAGE_PORT)
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "callmood", "dashboard", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the demo, which then ends the page
    )
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(_STOP_S)


def _free_port(wanted: int = 0) -> int:
    """This port, or another one if it is taken."""
    with socket.socket() as free:
        try:
            free.bind(("127.0.0.1", wanted))
        except OSError:
            free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _worker(console: Console) -> Iterator[Path]:
    """Start a worker; yields the path of its log once it is ready."""
    port = _free_port()
    environment = os.environ | {
        "CALLMOOD_WORKER__HEALTH_HOST": "127.0.0.1",
        "CALLMOOD_WORKER__HEALTH_PORT": str(port),
        "CALLMOOD_LOG__FORMAT": "json",
    }
    log = Path(tempfile.mkdtemp(prefix="callmood-demo-")) / "worker.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "callmood", "worker"], env=environment, stdout=output, stderr=output
        )
    try:
        with console.status("worker: loading the model, joining the group"):
            _wait_until_ready(process, port, log)
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_S)


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline_s = time.monotonic() + _READY_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            tail = "\n".join(log.read_text().splitlines()[-_LOG_LINES:])
            raise DemoFailed(f"the worker ended with code {process.returncode}:\n{tail}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise DemoFailed(f"the worker was not ready within {_READY_S} s: see {log}")
