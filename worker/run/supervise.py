"""Starts the processes, watches them, answers the probes, and drains them under one deadline."""

import multiprocessing
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from callmood.worker import logs
from callmood.worker.inference.submit import InferenceClient
from callmood.worker.run import health, processes
from callmood.worker.run.health import Answer, Probes
from callmood.worker.run.processes import EXIT_AGAIN, EXIT_CONFIGURATION, EXIT_GIVE_UP, EXIT_OK, Report
from callmood.worker.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_WATCH_S = 0.2
_RESTART_S = 1.0
_MAX_DEATHS = 3
_DEATHS_WINDOW_S = 60.0
_KILL_AFTER_S = 5.0
_REPORTS_LATE_S = 10.0

log = structlog.get_logger()
_spawn = multiprocessing.get_context("spawn")


class Child:
    """A process below the supervisor."""

    def __init__(self, name: str, target: Callable[..., None], *args: Any) -> None:
        self.name = name
        self.process = _spawn.Process(name=name, target=target, args=args)
        self.process.start()
        log.info("process started", name=name, pid=self.process.pid)

    @property
    def exit_code(self) -> int | None:
        """How it ended, or None while it lives."""
        return self.process.exitcode

    def stop(self, deadline_s: float) -> None:
        """SIGTERM, and after the deadline SIGKILL."""
        if self.process.is_alive():
            self.process.terminate()
        self.process.join(max(0.0, deadline_s - time.monotonic()))
        if self.process.is_alive():
            log.error("killed after its deadline", child=self.name)
            self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.join(_KILL_AFTER_S)


class WatchedChild:
    """A process that is started again when it dies, and what it last said."""

    def __init__(self, name: str, target: Callable[..., None], *args: Any) -> None:
        self.name = name
        self._target, self._args = target, args
        self._deaths: deque[float] = deque(maxlen=_MAX_DEATHS)
        self.report = Report("starting", {})
        self._heard_s = 0.0
        self._reports: Connection | None = None
        self.child = self._start()

    def _start(self) -> Child:
        self._reports, theirs = _spawn.Pipe(duplex=False)
        child = Child(self.name, self._target, *self._args, theirs)
        theirs.close()
        self.report, self._heard_s = Report("starting", {}), time.monotonic()
        return child

    def listen(self) -> None:
        """Read what it has reported."""
        try:
            while self._reports is not None and self._reports.poll():
                self.report, self._heard_s = self._reports.recv(), time.monotonic()
        except (EOFError, OSError):  # it has died; its exit code is looked at next
            self._reports = None

    @property
    def silent_s(self) -> float:
        """Since when it has not reported."""
        return time.monotonic() - self._heard_s

    def restart(self) -> bool:
        """Start it again, unless it dies too often."""
        now_s = time.monotonic()
        self._deaths.append(now_s)
        if len(self._deaths) == _MAX_DEATHS and now_s - self._deaths[0] < _DEATHS_WINDOW_S:
            return False
        time.sleep(_RESTART_S)
        self.child = self._start()
        return True


class Supervisor:
    """The worker as the outside sees it: one process tree, one exit code."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._run_dir = tempfile.mkdtemp(prefix="callmood-")
        address = f"ipc://{self._run_dir}/inference"
        self._inference = Child("inference", processes.inference, settings, address)
        self._beats = InferenceClient(address, stall_s=settings.worker.stall_s)
        names = [f"ingest-{number}" for number in range(settings.worker.ingest_processes)]
        self._ingests = [WatchedChild(name, processes.ingest, settings, name, address) for name in names]
        self._watched = list(self._ingests)
        if settings.worker.output == "both":
            self._watched.append(WatchedChild("projector", processes.projector, settings, "projector"))

    def run(self) -> int:
        """Watch until told to stop or until nothing can be saved; returns the exit code."""
        code: int | None = None
        try:
            while code is None and not self._stopping.wait(_WATCH_S):
                code = self._watch()
        finally:
            self._drain()
        return EXIT_OK if code is None else code

    def ask_to_stop(self, *_: object) -> None:
        """Signal handler: drain and end. A second signal ends at once."""
        if self._stopping.is_set():
            for child in (self._inference, *(watched.child for watched in self._watched)):
                child.process.kill()
        self._stopping.set()

    def _watch(self) -> int | None:
        self._beats.collect()
        if self._inference.exit_code is not None:
            log.error("the inference process has ended", exit_code=self._inference.exit_code)
            return self._inference.exit_code if self._inference.exit_code == EXIT_CONFIGURATION else EXIT_AGAIN
        if self._beats.model is not None and not self._beats.healthy(time.monotonic()):
            log.error("the model's thread hangs; ending the worker", stall_s=self._settings.worker.stall_s)
            self._inference.kill()  # whom a device has hung, nothing gentler reaches
            return EXIT_AGAIN
        codes = (self._look_after(watched) for watched in self._watched)
        return next((code for code in codes if code is not None), None)

    def _look_after(self, watched: WatchedChild) -> int | None:
        """Hear a process, and start it again if it has died; returns the exit code if that is of no use."""
        watched.listen()
        code = watched.child.exit_code
        if code is None:
            return None
        log.error("a process has ended", name=watched.name, exit_code=code)
        if code in (EXIT_CONFIGURATION, EXIT_GIVE_UP):
            return code
        health.forget_process(watched.child.process.pid)
        if watched.restart():
            return None
        log.error("a process dies too often", name=watched.name, deaths=_MAX_DEATHS, window_s=_DEATHS_WINDOW_S)
        return EXIT_AGAIN

    def _drain(self) -> None:
        """Ingest first, while the model still answers; then the rest. One budget for all."""
        answers_s = self._settings.worker.drain_timeout_s if self._inference.exit_code is None else 0.0
        deadline_s = time.monotonic() + answers_s + _KILL_AFTER_S
        self._stopping.set()
        for ingest in self._ingests:  # all at once, or one would take over what another has just given up
            ingest.child.process.terminate()
        for watched in self._watched:
            watched.child.stop(deadline_s)
        self._beats.close()
        self._inference.stop(time.monotonic() + _KILL_AFTER_S)
        shutil.rmtree(self._run_dir, ignore_errors=True)

    # -- probes

    def is_alive(self) -> Answer:
        """False when waiting longer would not help: Kubernetes should start the worker again."""
        limit_s = self._settings.worker.stall_s
        if not self._beats.healthy(time.monotonic()):
            return Answer(is_ok=False, text="the model's thread hangs")
        for watched in self._watched:
            facts = watched.report.facts
            if watched.report.state == "running" and watched.silent_s > limit_s:
                return Answer(is_ok=False, text=f"{watched.name} has not reported for {watched.silent_s:.0f} s")
            if facts.get("is_store_healthy") and facts.get("stuck_s", 0.0) > limit_s:
                return Answer(is_ok=False, text=f"{watched.name}: no progress for {facts['stuck_s']:.0f} s")
        return Answer(is_ok=True, text="alive")

    def is_ready(self) -> Answer:
        """True when the model is warm, the group joined, every partition restored and the store answering."""
        if self._stopping.is_set():
            return Answer(is_ok=False, text="draining")
        for ingest in self._ingests:
            missing = _missing(ingest)
            if missing:
                return Answer(is_ok=False, text=f"{ingest.name}: {missing}")
        partitions = sum(ingest.report.facts["partitions"] for ingest in self._ingests)
        return Answer(is_ok=True, text=f"ready, {partitions} partitions")


def _missing(ingest: WatchedChild) -> str | None:
    """What keeps an ingest process from being ready."""
    report = ingest.report
    if report.state != "running" or ingest.silent_s > _REPORTS_LATE_S:
        return f"{report.state}, heard {ingest.silent_s:.0f} s ago"
    if not report.facts["is_store_healthy"]:
        return "the store does not answer"
    if report.facts["restoring"]:
        return f"{report.facts['restoring']} partitions are being restored"
    return None


def run(settings: Settings) -> int:
    """Run a worker until SIGTERM or SIGINT; returns its exit code."""
    logs.configure(settings.log, process="supervisor")
    metrics_dir = health.use_shared_metrics()
    try:
        return _run(settings)
    finally:
        shutil.rmtree(metrics_dir, ignore_errors=True)
        log.info("worker ended")


def _run(settings: Settings) -> int:
    supervisor = Supervisor(settings)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, supervisor.ask_to_stop)
    probes = Probes(supervisor.is_alive, supervisor.is_ready)
    host, port = settings.worker.health_host, settings.worker.health_port
    try:
        server = health.serve(probes, host, port)
    except OSError as error:
        log.error("cannot run", error=f"health endpoint {host}:{port}: {error}. Set CALLMOOD_WORKER__HEALTH_PORT")  # noqa: TRY400 - the message says it all
        supervisor.ask_to_stop()
        supervisor.run()
        return EXIT_CONFIGURATION
    log.info("worker started", health_port=server.server_port, policy=settings.policy.model_dump(mode="json"))
    try:
        return supervisor.run()
    finally:
        server.shutdown()
