"""The workers of a run: restarted as Kubernetes would, killed on purpose, with their logs."""

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from tests.chaos.confidential import PASSWORD, USER
from tests.chaos.config import KINDS, Run
from tests.live import Worker

SESSION_S = 6.0
_LOOK_S = 0.2
_RESTART_S = 1.0


class Restored(NamedTuple):
    """A worker has taken a partition over."""

    at_s: float
    slot: int
    partition: int
    watermark: int


@dataclass
class Slot:
    """A place for one worker; `should_run` says whether it is started again when it ends."""

    number: int
    worker: Worker | None = None
    should_run: bool = True
    ended_s: float = 0.0


class Fleet:
    """Workers in slots, watched by a thread of its own."""

    def __init__(self, run: Run, options: dict[str, str], *, bug: str | None = None) -> None:
        self.points = run.file("points")
        self.points.mkdir()
        self.ends: list[tuple[float, int, int | None]] = []
        """When which slot's worker ended, and its exit code."""
        self._run = run
        self._options = options
        self._bug = {"CHAOS_BUG": bug} if bug else {}
        self._lives: list[tuple[int, Worker]] = []
        self._slots: dict[int, Slot] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fleet", daemon=True)
        self._thread.start()

    @property
    def has_static_members(self) -> bool:
        """Whether a worker keeps its place in the group while it starts again."""
        return self._options.get("kafka__membership") == "static"

    # -- life

    def start(self, number: int) -> None:
        """Begin to keep a worker in this slot."""
        with self._lock:
            self._slots[number] = Slot(number, self._start(number))

    def _start(self, number: int) -> Worker:
        run = self._run
        settings = {
            "kafka__bootstrap_servers": run.bootstrap_servers,
            "kafka__group_id": run.group,
            "kafka__session_timeout_ms": str(int(SESSION_S * 1000)),
            **{f"kafka__{kind}_topic": run.topic(kind) for kind in KINDS},
            "redis__url": f"redis://{USER}:{PASSWORD}@named-by-the-sentinels",
            "redis__sentinels": ",".join(run.sentinels),
            "redis__sentinel_master": run.master,
            "redis__prefix": run.prefix,
            "redis__timeout_s": "1.0",
            "call__idle_s": str(run.idle_s),
            "model__device": "cpu",
            "model__threads": "1",
            "worker__name": f"worker-{number}",
            "worker__output": run.mode,
            "worker__ingest_processes": "2",
            "worker__health_host": "127.0.0.1",
            "worker__health_port": "0",
            "log__format": "json",
        } | self._options
        environment = {f"CALLMOOD_{name.upper()}": value for name, value in settings.items()}
        environment |= {"CHAOS_POINTS": str(self.points)} | self._bug
        worker = Worker(environment, prepare="tests.chaos.armed:arm")
        self._lives.append((number, worker))
        return worker

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            with self._lock:
                for slot in self._slots.values():
                    self._look_after(slot)

    def _look_after(self, slot: Slot) -> None:
        if slot.worker is not None and slot.worker.process.poll() is not None:
            self.ends.append((time.time(), slot.number, slot.worker.process.returncode))
            slot.ended_s = time.time()
            slot.worker.kill()  # a container's end is the end of all in it
            slot.worker = None
        if slot.worker is None and slot.should_run and time.time() - slot.ended_s > _RESTART_S:
            slot.worker = self._start(slot.number)

    def worker(self, number: int) -> Worker | None:
        """Who lives in this slot."""
        with self._lock:
            slot = self._slots.get(number)
            return slot.worker if slot else None

    @property
    def numbers(self) -> list[int]:
        """The slots in use."""
        return [number for number, slot in self._slots.items() if slot.should_run]

    def is_ready(self, number: int) -> bool:
        """Whether the worker itself says so."""
        return self._says_yes(number, "readyz")

    def is_alive(self, number: int) -> bool:
        """Whether the worker itself says so."""
        return self._says_yes(number, "livez")

    def _says_yes(self, number: int, probe: str) -> bool:
        worker = self.worker(number)
        return worker is not None and worker.probe(probe)[0] == 200

    # -- death

    def kill(self, number: int, name: str = "") -> bool:
        """SIGKILL for a process of this name, or for the whole worker at once; whether there was one."""
        worker = self.worker(number)
        if worker is None:
            return False
        pids = worker.pids() if not name else {worker.process.pid} if name == "supervisor" else _newest(worker, name)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def freeze(self, number: int, seconds: float) -> bool:
        """SIGSTOP for all of a worker, and SIGCONT after a while."""
        worker = self.worker(number)
        pids = worker.pids() if worker else set()
        for name, pause_s in ((signal.SIGSTOP, seconds), (signal.SIGCONT, 0.0)):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, name)
            time.sleep(pause_s)
        return bool(pids)

    def terminate(self, number: int, *, for_good: bool = False, grace_s: float = 60.0) -> float:
        """SIGTERM, and the wait for the end; returns how long it took, in s. Longer than `grace_s` is an error."""
        with self._lock:
            slot = self._slots[number]
            worker, slot.should_run = slot.worker, slot.should_run and not for_good
        began_s = time.time()
        if worker is not None:
            with suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
            worker.process.wait(grace_s)
        return time.time() - began_s

    def close(self) -> None:
        """End all of it."""
        for number in self.numbers:
            self.terminate(number, for_good=True)
        self._stopping.set()
        self._thread.join()
        for _, worker in self._lives:
            worker.kill()

    def discard(self) -> None:
        """Nothing of them is left, whatever happened."""
        self._stopping.set()
        for _, worker in self._lives:
            worker.discard()

    # -- what the logs tell

    def lines(self, event: str) -> list[tuple[float, int, dict[str, Any]]]:
        """Log lines of an event over all lives: when, in which slot, and the line."""
        found = [(_seconds(line), number, line) for number, worker in self._lives for line in worker.lines(event)]
        return sorted(found, key=lambda item: item[:2])

    def restored(self) -> list[Restored]:
        """Every takeover of a partition of the audio topic, in order."""
        return [
            Restored(at_s, number, line["partition"], line["watermark"])
            for at_s, number, line in self.lines("partition restored")
        ]

    def owners(self) -> dict[int, int]:
        """Which slot has last taken each partition over."""
        return {restored.partition: restored.slot for restored in self.restored()}

    def metrics(self) -> list[str]:
        """What the workers that live now say in Prometheus' format."""
        workers = [self.worker(number) for number in self.numbers]
        return [worker.probe("metrics")[1] for worker in workers if worker]

    def logs(self) -> str:
        """Everything, for who looks into a run that failed."""
        return "\n".join(f"== slot {number}\n{worker.log}" for number, worker in self._lives)


def _newest(worker: Worker, name: str) -> set[int]:
    pids = [int(line["pid"]) for line in worker.lines("process started") if line["name"] == name]
    return set(pids[-1:]) & worker.pids()


def _seconds(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()
