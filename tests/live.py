"""A worker as a user starts it, calls sent to it, and what Redis then holds of them."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from rich.progress import Progress

from callmood.schemas import flat
from callmood.schemas.keys import Keys
from callmood.worker.call import aggregate
from callmood.worker.call.refold import refold
from callmood.worker.commands.recordings import Recording, Sent
from callmood.worker.commands.replay import Call, send
from callmood.worker.records import ModelInfo
from callmood.worker.server_settings import KafkaSettings
from tests.forked import start_worker

_READY_S = 120.0  # the model's libraries take seconds to import, on a busy machine a minute
_DONE_S = 90.0
_QUIET_S = 10.0
_ROUNDING = 2e-6  # of a probability: 6 digits are published, and another batch may differ in the 7th


class Script(NamedTuple):
    """Records just as they are, where a recording would make its own."""

    sent: Iterable[Sent]
    duration_ms: float = 0.0

    def records(self) -> Iterable[Sent]:
        """The records in the order of sending."""
        return iter(self.sent)


def wait_until(is_true, timeout_s=_DONE_S, poll_s=0.05):
    """Wait for a condition; returns its first true value, or its last one."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := is_true()) and time.monotonic() < deadline_s:
        time.sleep(poll_s)
    return value


class Gate:
    """Lets records through up to a point of the calls' time line, so that something can happen in the middle."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._until_ms = 0.0

    def open(self, until_ms: float = math.inf) -> None:
        """Let the records before this time through."""
        with self._moved:
            self._until_ms = until_ms
            self._moved.notify_all()

    def before(self, recording: Recording | Script) -> Script:
        """The recording, behind the gate."""
        return Script(self._held(recording), recording.duration_ms)

    def _held(self, recording: Recording | Script) -> Iterator[Sent]:
        for sent in recording.records():
            with self._moved:
                self._moved.wait_for(lambda due_ms=sent.due_ms: due_ms < self._until_ms)
            yield sent


class _Forked:
    """A forked process with the methods of `subprocess.Popen`; any thread may call them."""

    def __init__(self, process: ForkServerProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process
        self._lock = threading.Lock()  # only one thread may read the exit code

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        with self._lock:
            return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        ended = wait_until(lambda: self.poll() is not None, math.inf if timeout_s is None else timeout_s)
        if not ended:
            raise subprocess.TimeoutExpired("callmood worker", timeout_s or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        with self._lock, suppress(ProcessLookupError):  # as Popen does
            if self._process.exitcode is None:
                os.kill(self.pid, number)


class Worker:
    """One worker: a process tree, the leader of a session, and its log.

    Args:
        environment: added to this process's own.
        prepare: see `forked.start_worker`; with None, the command of the manual starts the worker.
    """

    def __init__(self, environment: Mapping[str, str], prepare: str | None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cm-"))  # pytest's own folders are too long for a socket's address
        self._log = self.folder.with_suffix(".log")
        self._lines: list[dict[str, Any]] = []
        self._offset = 0
        self._reading = threading.Lock()
        compiler = {"TORCHINDUCTOR_CACHE_DIR": tempfile.gettempdir()}  # torch makes this folder when it is imported
        environment = {**os.environ, **environment, "TMPDIR": str(self.folder), **compiler}
        self.process: subprocess.Popen[bytes] | _Forked
        if prepare is None:
            with self._log.open("w") as log:
                command = [sys.executable, "-m", "callmood", "worker"]
                self.process = subprocess.Popen(
                    command, env=environment, stdout=log, stderr=log, start_new_session=True
                )
        else:
            self._log.touch()
            self.process = _Forked(start_worker(environment, self._log, prepare))

    def wait_ready(self) -> "Worker":
        """Wait until the worker itself says that it is ready."""
        wait_until(lambda: self.process.poll() is not None or self.probe("readyz")[0] == 200, _READY_S)
        assert self.probe("readyz")[0] == 200, self.log
        return self

    def probe(self, name: str) -> tuple[int, str]:
        """Status and text of /livez, /readyz or /metrics; status 0 while nothing listens."""
        port = next((line["health_port"] for line in self.lines() if "health_port" in line), None)
        if port is None:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def log(self) -> str:
        """All that it has written."""
        return self._log.read_text()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its log, line by line, or those of one event."""
        with self._reading, self._log.open("rb") as log:  # parsed once: tests look several times a second
            log.seek(self._offset)
            whole, end, _ = log.read().rpartition(b"\n")
            self._offset += len(whole) + len(end)
            self._lines += [json.loads(line) for line in whole.splitlines() if line[:1] == b"{" and line[-1:] == b"}"]
            return [line for line in self._lines if event in (None, line["event"])]

    def pids(self) -> set[int]:
        """Every process of the session that runs, orphans included."""
        found = set()
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it ends while we look
                state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
                if int(session) == self.process.pid and state not in "ZX":
                    found.add(int(path.parent.name))
        return found

    def pid(self, name: str) -> int:
        """The newest process of this name: `inference`, `ingest-0`."""
        return [int(line["pid"]) for line in self.lines("process started") if line["name"] == name][-1]

    def exit_code(self, timeout_s: float = _READY_S) -> int:
        """Wait for the end; every process of the tree must then be gone within moments."""
        code = self.process.wait(timeout_s)
        assert wait_until(lambda: not self.pids(), _QUIET_S), f"left running: {self.pids()}\n{self.log}"
        return code

    def stop(self) -> None:
        """SIGTERM, which must end well and leave nothing behind."""
        self.process.send_signal(signal.SIGTERM)
        assert self.exit_code() == 0, self.log
        assert list(self.folder.iterdir()) == []

    def kill(self, pids: Iterable[int] | None = None) -> None:
        """SIGKILL for some of its processes, or for all at once."""
        if pids is None:
            pids = self.pids() if self.process.poll() is not None else {*self.pids(), self.process.pid}
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def discard(self) -> None:
        """Whatever the test left is ended."""
        self.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._log.unlink()


@dataclass
class Pipeline:
    """Topics, a consumer group and a key prefix that belong together, and the workers on them."""

    bootstrap_servers: str
    redis_url: str
    audio_topic: str
    dead_letter_topic: str
    prefix: str
    expect: Any
    workers: list[Worker] = field(default_factory=list)

    def start_worker(self, *, by_command: bool = False, **changes: str) -> Worker:
        """Start a worker; `changes` are settings, such as `redis__url`. It is not ready yet.

        A worker is forked, which is quicker, unless the command of the manual must start it.
        """
        settings = {
            "kafka__bootstrap_servers": self.bootstrap_servers,
            "kafka__audio_topic": self.audio_topic,
            "kafka__dead_letter_topic": self.dead_letter_topic,
            "kafka__group_id": self.prefix,
            "kafka__session_timeout_ms": "6000",
            "redis__url": self.redis_url,
            "redis__prefix": self.prefix,
            "model__device": "cpu",
            "model__threads": "1",
            "worker__health_host": "127.0.0.1",
            "worker__health_port": "0",
            "log__format": "json",
        } | changes
        environment = {f"CALLMOOD_{name.upper()}": value for name, value in settings.items()}
        self.workers.append(Worker(environment, prepare=None if by_command else ""))
        return self.workers[-1]

    def send(self, calls: Mapping[str, Recording | Script], *, speed: float = 0.0) -> None:
        """Put calls on the audio topic, side by side."""
        kafka = KafkaSettings(bootstrap_servers=self.bootstrap_servers, audio_topic=self.audio_topic)
        send([Call(*item) for item in calls.items()], kafka, speed=speed, progress=Progress(disable=True))

    def judged_by(self, said: Mapping[str, Any]) -> "Pipeline":
        """The same results, held against other expectations: utterances and aggregate by call id."""
        return replace(self, expect=lambda _recording, call_id: said[call_id])

    @contextmanager
    def sending(self, calls: Mapping[str, Recording | Script]) -> Iterator[Gate]:
        """Put calls on the audio topic as far as the gate is open; all of them are there on leaving."""
        gate = Gate()
        with ThreadPoolExecutor(1) as thread:
            sent = thread.submit(self.send, {call_id: gate.before(call) for call_id, call in calls.items()})
            try:
                yield gate
            finally:
                gate.open()
                sent.result()

    # -- results

    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url, decode_responses=True)

    def call(self, call_id: str) -> dict[str, Any] | None:
        """The call's aggregate, call/1."""
        with self._redis() as client:
            fields = client.hgetall(Keys(self.prefix).call(call_id))
        return flat.unflatten(fields).model_dump(mode="json") if fields else None

    def utterances(self, call_id: str) -> list[dict[str, Any]]:
        """The call's utterances, utterance/1, in order."""
        return self._stream(f"utterances:{call_id}")

    def firehose(self) -> list[dict[str, Any]]:
        """All utterances."""
        return self._stream("utterances")

    def alerts(self) -> list[dict[str, Any]]:
        """All alerts."""
        return self._stream("alerts")

    def _stream(self, name: str) -> list[dict[str, Any]]:
        with self._redis() as client:
            return [json.loads(fields["json"]) for _, fields in client.xrange(Keys(self.prefix).named(name))]

    def ingest_pids(self) -> set[int]:
        """The ingest processes that own partitions, by what they wrote into the positions."""
        with self._redis() as client:
            keys = list(client.scan_iter(Keys(self.prefix).named("position:*")))
            return {int(client.hget(key, "owner").rpartition("/")[2]) for key in keys}

    def ended(self, call_ids: Iterable[str]) -> list[str]:
        """Those of the calls that are over."""
        calls = {call_id: self.call(call_id) for call_id in call_ids}
        return [call_id for call_id, call in calls.items() if call and call["end_reason"]]

    # -- the one thing that must hold

    def assert_exact(self, calls: Mapping[str, Recording | Script], timeout_s: float = _DONE_S) -> None:
        """The calls end, and all that Redis holds of them is what `analyze` says: nothing missing, nothing twice."""
        wait_until(lambda: len(self.ended(calls)) == len(calls), timeout_s)
        logs = "\n".join(worker.log for worker in self.workers)
        assert self.ended(calls) == list(calls), logs
        firehose, alerts = self.firehose(), self.alerts()
        for call_id, recording in calls.items():
            utterances, call = self.utterances(call_id), self.call(call_id)
            expected, summary = self.expect(recording, call_id)
            assert [without_place(u) for u in utterances] == [approximately(without_place(u)) for u in expected]
            assert [u for u in firehose if u["call_id"] == call_id] == utterances
            assert from_its_start(call) == approximately(from_its_start(summary))
            if not call["redacted_ms"] and not call["missing_ms"]:  # these are no part of any utterance
                again = refold(call, utterances)
                model = ModelInfo(**call["model"]) if call["model"] else None
                refolded = aggregate.summary(again.aggregate, policy=call["policy"], model=model, alerts=again.states)
                assert {**refolded, "version": 0} == approximately({**call, "version": 0})
                assert [alert for alert in alerts if alert["call_id"] == call_id] == again.alerts


_LIVE_ONLY = {"latency_ms", "source", "traceparent", "spoken_at_ms"}


def without_place(utterance: Mapping[str, Any]) -> dict[str, Any]:
    """An utterance without what only exists live."""
    return {name: value for name, value in utterance.items() if name not in _LIVE_ONLY}


def from_its_start(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call without the time of day, and without the count of its changes, which the order of records decides."""
    start_ms = call["started_at_ms"]
    return {**call, "version": 0, "started_at_ms": 0, "updated_at_ms": call["updated_at_ms"] - start_ms}


def approximately(value: Any) -> Any:
    """The same, floats within the rounding of a probability."""
    match value:
        case dict():
            return {name: approximately(inner) for name, inner in value.items()}
        case list() | tuple():
            return [approximately(inner) for inner in value]
        case float():
            return pytest.approx(value, abs=_ROUNDING, rel=1e-9)
        case _:
            return value
