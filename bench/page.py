"""Measure the page for supervisors with many live calls and many viewers.

Calls are published to the Redis of CALLMOOD_REDIS__URL under a separate prefix, as workers do: each changes every
four seconds. One viewer is a real browser (Chromium by Playwright), the others read the same stream of events. It
measures the time from the commit to the painted row, the browser's main thread, the CPU time of the server, and its
reads from Redis: first with all calls, then with a quarter of them, to show which figures grow with the changes.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

from callmood.bench.live_calls import QUEUES, LiveCalls
from callmood.schemas.keys import Keys
from callmood.worker import settings
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.adapters.redis_client import connect_redis
from callmood.worker.errors import ConfigurationError

_START_S: Final = 60.0
_WARM_S: Final = 3.0
_READS: Final = ("hmget", "xread", "zrange", "zrevrange", "xrevrange")
_WATCH: Final = """() => {
  window.painted = {};
  const note = (rows) => requestAnimationFrame(() => setTimeout(() => {
    for (const row of rows) {
      const [minutes, seconds] = row.cells[4].textContent.split(":").map(Number);
      window.painted[`${row.dataset.call} ${60 * minutes + seconds}`] ??= Date.now();
    }
  }));
  new MutationObserver((changes) => {
    const rows = new Set(changes.map((change) => change.target.parentElement?.closest("tr[data-call]")));
    rows.delete(null); rows.delete(undefined);
    note(rows);
  }).observe(document.querySelector("table.wall tbody"), { subtree: true, childList: true, characterData: true });
}"""


class Figures(NamedTuple):
    """What was measured in one period."""

    calls: int
    changes_per_s: float
    paint_ms: list[float]
    """From the commit to the painted row, sorted."""
    main_thread: float
    """Share of the time in which the browser's main thread was busy."""
    server_cpu: float
    """CPU time of the server by time."""
    reads_per_s: dict[str, float]
    """Commands of the server to Redis."""
    viewer_kb_per_s: float


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options of the command."""
    parser.add_argument("--calls", type=int, default=1000, help="live calls; default: 1000")
    parser.add_argument("--viewers", type=int, default=20, help="viewers, one of them a browser; default: 20")
    parser.add_argument("--seconds", type=int, default=30, help="length of each of the two periods; default: 30")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    table = Table("", *(f"{n} calls" for n in (arguments.calls, arguments.calls // 4)), title="page for supervisors")
    found = [measure(calls, arguments.viewers, arguments.seconds) for calls in (arguments.calls, arguments.calls // 4)]
    for name, cells in zip(_NAMES, zip(*map(_cells, found), strict=True), strict=True):
        table.add_row(name, *cells)
    Console().print(table)
    return 0


def measure(calls: int, viewers: int, seconds: float) -> Figures:
    """One period with so many live calls and viewers."""
    configured = settings.load().redis.model_copy(update={"prefix": f"bench-{uuid.uuid4().hex[:8]}"})
    committed: dict[str, float] = {}

    def note(call_id: str, shown_s: int) -> None:
        committed.setdefault(f"{call_id} {shown_s}", time.time() * 1000)

    with closing(connect_redis(configured)) as client:
        floor = LiveCalls(RedisStore(client, configured, "bench"), calls, note)
        try:
            floor.begin()
            with (
                _server(configured.url.get_secret_value(), configured.prefix) as (address, pid),
                _browser(address) as page,
            ):
                readers = [_Reader(f"{address}/events?queue={queue}") for queue in _chosen(viewers - 1)]
                tools = page.context.new_cdp_session(page)
                tools.send("Performance.enable")
                committed.clear()
                floor.start()
                page.wait_for_timeout(1000 * _WARM_S)
                before = (time.monotonic(), _cpu_s(pid), floor.changes, _reads(client), _busy_s(tools), _kb(readers))
                page.wait_for_timeout(1000 * seconds)
                after = (time.monotonic(), _cpu_s(pid), floor.changes, _reads(client), _busy_s(tools), _kb(readers))
                floor.stop()
                painted = page.evaluate("window.painted")
        finally:
            for key in client.scan_iter(Keys(configured.prefix).named("*"), count=1000):
                client.delete(key)
    took_s = after[0] - before[0]
    return Figures(
        calls,
        (after[2] - before[2]) / took_s,
        sorted(max(0.0, at - committed[name]) for name, at in painted.items() if name in committed),
        (after[4] - before[4]) / took_s,
        (after[1] - before[1]) / took_s,
        {name: (after[3][name] - before[3][name]) / took_s for name in _READS},
        (after[5] - before[5]) / took_s / max(1, len(readers)),
    )


_NAMES: Final = (
    "changes per s",
    "rows painted, of which the times are",
    "commit to paint, median",
    "commit to paint, p95",
    "browser's main thread busy",
    "CPU of the server",
    "HMGET per s (one for each changed call)",
    "all other reads per s",
    "stream of a viewer",
)


def _cells(found: Figures) -> tuple[str, ...]:
    others = sum(count for name, count in found.reads_per_s.items() if name != "hmget")
    return (
        f"{found.changes_per_s:.0f}",
        f"{len(found.paint_ms)}",
        f"{statistics.median(found.paint_ms):.0f} ms",
        f"{found.paint_ms[int(0.95 * len(found.paint_ms))]:.0f} ms",
        f"{100 * found.main_thread:.0f} %",
        f"{100 * found.server_cpu:.0f} % of a core",
        f"{found.reads_per_s['hmget']:.0f}",
        f"{others:.0f}",
        f"{found.viewer_kb_per_s:.0f} kB/s",
    )


def _chosen(viewers: int) -> list[str]:
    """Every second viewer looks at one queue, the others at all."""
    return [QUEUES[number // 2 % len(QUEUES)] if number % 2 else "" for number in range(viewers)]


@contextmanager
def _server(url: str, prefix: str) -> Iterator[tuple[str, int]]:
    """The page as operators start it; yields its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"CALLMOOD_REDIS__URL": url, "CALLMOOD_REDIS__PREFIX": prefix}
    command = [sys.executable, "-m", "callmood", "dashboard", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            with suppress(OSError), urllib.request.urlopen(f"{address}/healthz"):
                break
            time.sleep(0.2)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _browser(address: str) -> Iterator[Any]:
    """The list of calls in Chromium, in which every painted row is noted."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError("`callmood bench page` needs: pip install 'callmood[test]'") from error
    path = shutil.which("chromium")
    if path is None:
        raise ConfigurationError("`callmood bench page` needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(address)
        page.wait_for_selector("table.wall tbody tr")
        page.evaluate(_WATCH)
        yield page
        browser.close()


class _Reader:
    """A viewer without a browser: reads its stream, and counts the bytes."""

    def __init__(self, address: str) -> None:
        self.read = 0
        self._answer = urllib.request.urlopen(address)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            while part := self._answer.read1(1 << 16):
                self.read += len(part)


def _kb(readers: list[_Reader]) -> float:
    return sum(reader.read for reader in readers) / 1000


def _busy_s(tools: Any) -> float:
    """Time in which the main thread had a task, by the browser's own tools."""
    metrics = {one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def _cpu_s(pid: int) -> float:
    """CPU time of a process, by user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _reads(client: Any) -> dict[str, int]:
    """How often each command of the server was run; the publisher uses none of them."""
    told = client.info("commandstats")
    return {name: told.get(f"cmdstat_{name}", {}).get("calls", 0) for name in _READS}


if __name__ == "__main__":
    sys.exit(run(add_arguments(argparse.ArgumentParser(prog="python -m callmood.bench.page")).parse_args()))
