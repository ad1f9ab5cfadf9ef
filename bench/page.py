"""Measure the page for supervisors with many live calls and many viewers.

Calls are published to the Redis of CALLMOOD_REDIS__URL under a separate prefix, as workers do: each changes every
four seconds. One viewer is a real browser (Chromium by Playwright), the others read the same stream of events. It
measures the time from the commit to the painted row by stages, CPU time, and the server's reads from Redis: first with
all calls, then with a quarter of them, to show which figures grow with the changes. An empty page in the same browser
shows how long this machine takes to paint anything.
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
_HEAR: Final = """{
  const Plain = window.EventSource;
  window.EventSource = class extends Plain {
    set onmessage(handle) {
      super.onmessage = (event) => {
        const made = /"at_ms":(\\d+)/.exec(event.data); // without news, only the time is told
        if (made) window.news = [Number(made[1]), Date.now()];
        handle(event);
      };
    }
  };
}"""
"""Before the page's scripts: notes when the newest message was made, and when it arrived."""
_WATCH: Final = """() => {
  window.painted = {};
  new MutationObserver((changes) => {
    const rows = new Set(changes.map((change) => change.target.parentElement?.closest("tr[data-call]")));
    rows.delete(null); rows.delete(undefined);
    const times = [...window.news, Date.now()];
    requestAnimationFrame(() => setTimeout(() => {
      for (const row of rows) {
        const [minutes, seconds] = row.cells[4].textContent.split(":").map(Number);
        window.painted[`${row.dataset.call} ${60 * minutes + seconds}`] ??= [...times, Date.now()];
      }
    }));
  }).observe(document.querySelector("table.wall tbody"), { subtree: true, childList: true, characterData: true });
}"""
_CONTROL: Final = """() => {
  window.painted = [];
  setInterval(() => {
    document.body.textContent = Date.now();
    const began = Date.now();
    requestAnimationFrame(() => setTimeout(() => window.painted.push(Date.now() - began)));
  }, 250);
}"""
"""An empty page that changes one text: how long this machine takes to paint anything."""


class Figures(NamedTuple):
    """What was measured in one period."""

    calls: int
    changes_per_s: float
    stages_ms: list[list[float]]
    """How long each row took in each of `_STAGES`, sorted by time."""
    control_ms: list[float]
    """How long an empty page took to paint a text, sorted."""
    rates: dict[str, float]
    """Growth by second of what `_Counters` counts."""
    viewers: int


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
                _browser(address) as (page, empty),
            ):
                readers = [_Reader(f"{address}/events?queue={queue}") for queue in _chosen(viewers - 1)]
                counted = _Counters(floor, client, page, pid, readers)
                committed.clear()
                floor.start()
                page.wait_for_timeout(1000 * _WARM_S)
                before = counted.now()
                page.wait_for_timeout(1000 * seconds)
                after = counted.now()
                floor.stop()
                painted, control_ms = page.evaluate("window.painted"), sorted(empty.evaluate("window.painted"))
        finally:
            for key in client.scan_iter(Keys(configured.prefix).named("*"), count=1000):
                client.delete(key)
    rates = {name: (after[name] - before[name]) / (after["s"] - before["s"]) for name in before}
    times = [(committed[name], *at) for name, at in painted.items() if name in committed]
    stages = [sorted(max(0.0, one[last] - one[first]) for one in times) for first, last in _STAGES.values()]
    return Figures(calls, rates["changes"], stages, control_ms, rates, viewers)


_STAGES: Final = {
    "commit to paint": (0, 4),
    "- until the server has read it": (0, 1),
    "- until the browser has its message": (1, 2),
    "- until it is in the table": (2, 3),
    "- until it is painted": (3, 4),
}
"""Each from one time of a row to another: committed, read, arrived, written, painted."""
_NAMES: Final = (
    "changes per s",
    "rows painted, of which the times are",
    *(f"{name}, median / p95" for name in _STAGES),
    "an empty page's paint, median / p95",
    "browser's main thread busy",
    "browser's main thread, CPU",
    "all of the browser, CPU",
    "server, CPU",
    "server, CPU time of a change",
    "HMGET per s (one for each changed call)",
    "all other reads per s",
    "stream of a viewer",
)


def _cells(found: Figures) -> tuple[str, ...]:
    rates = found.rates
    others = sum(rates[name] for name in _READS if name != "hmget")
    return (
        f"{found.changes_per_s:.0f}",
        f"{len(found.stages_ms[0])}",
        *map(_spread, [*found.stages_ms, found.control_ms]),
        f"{100 * rates['busy_s']:.0f} %",
        f"{100 * rates['thread_s']:.0f} % of a core",
        f"{100 * rates['browser_s']:.0f} % of a core",
        f"{100 * rates['server_s']:.0f} % of a core",
        f"{1e6 * rates['server_s'] / found.changes_per_s:.0f} µs",
        f"{rates['hmget']:.0f}",
        f"{others:.0f}",
        f"{rates['read_kb'] / max(1, found.viewers - 1):.0f} kB/s",
    )


def _spread(times_ms: list[float]) -> str:
    return f"{statistics.median(times_ms):.0f} / {times_ms[int(0.95 * len(times_ms))]:.0f} ms" if times_ms else "none"


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
def _browser(address: str) -> Iterator[tuple[Any, Any]]:
    """The list of calls in Chromium, in which every painted row is noted, and an empty page."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError("`callmood bench page` needs: pip install 'callmood[test]'") from error
    path = shutil.which("chromium")
    if path is None:
        raise ConfigurationError("`callmood bench page` needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        empty = browser.new_page(viewport={"width": 1400, "height": 1000})
        empty.evaluate(_CONTROL)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.add_init_script(_HEAR)
        page.goto(address)
        page.wait_for_selector("table.wall tbody tr")
        page.evaluate(_WATCH)
        yield page, empty
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


class _Counters:
    """What only grows: time, changes, commands of the server to Redis, bytes, and CPU time in seconds."""

    def __init__(self, floor: LiveCalls, client: Any, page: Any, pid: int, readers: list[_Reader]) -> None:
        self._floor, self._client, self._pid, self._readers = floor, client, pid, readers
        self._browser = page.context.browser.new_browser_cdp_session()
        self._thread = page.context.new_cdp_session(page)
        self._thread.send("Performance.enable")

    def now(self) -> dict[str, float]:
        """All of it; the publisher runs none of the commands."""
        told = self._client.info("commandstats")
        metrics = {one["name"]: one["value"] for one in self._thread.send("Performance.getMetrics")["metrics"]}
        processes = self._browser.send("SystemInfo.getProcessInfo")["processInfo"]
        return {
            "s": time.monotonic(),
            "changes": self._floor.changes,
            **{name: told.get(f"cmdstat_{name}", {}).get("calls", 0) for name in _READS},
            "read_kb": sum(reader.read for reader in self._readers) / 1000,
            "busy_s": metrics["TaskDuration"],
            "thread_s": metrics["ThreadTime"],
            "browser_s": sum(process["cpuTime"] for process in processes),
            "server_s": _cpu_s(self._pid),
        }


def _cpu_s(pid: int) -> float:
    """CPU time of a process, by user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(run(add_arguments(argparse.ArgumentParser(prog="python -m callmood.bench.page")).parse_args()))
