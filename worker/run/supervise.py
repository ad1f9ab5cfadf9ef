"""Starts the processes, watches them, answers the probes, and drains them under one deadline."""

import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol, Self

import structlog

from callmood.worker import logs
from callmood.worker.errors import EXIT_AGAIN, EXIT_CONFIGURATION, EXIT_GIVE_UP, EXIT_OK, ConfigurationError
from callmood.worker.inference.submit import InferenceClient
from callmood.worker.records import ModelInfo
from callmood.worker.run import health, processes
from callmood.worker.run.child import Child, SpawnedChild, Task
from callmood.worker.run.compiled import is_compiled
from callmood.worker.run.health import Answer, Probes
from callmood.worker.run.pinning import own_cores
from callmood.worker.run.processes import Report
from callmood.worker.settings import Settings

_WATCH_S = 0.2
_RESTART_S = 1.0
_MAX_EXITS = 3
_EXITS_WINDOW_S = 60.0
_KILL_AFTER_S = 5.0
_REPORTS_LATE_S = 10.0

log = structlog.get_logger()


class Beats(Protocol):
    """What the supervisor needs of the client of the inference process."""

    model: ModelInfo | None

    def collect(self) -> object:
        """Read the beats that have arrived; never waits."""

    def healthy(self, now_s: float) -> bool:
        """Whether the inference process beats and its model thread moves on."""

    def close(self) -> None:
        """Close the socket."""


class WatchedChild:
    """A process that is started again when it ends, and its latest report.

    Attributes:
        child: the process; None before the first start and while a restart is pending.
        restart_at_s: when to start it.
    """

    def __init__(self, task: Task, spawn: Callable[[Task], Child], clock: Callable[[], float]) -> None:
        self.name = task.name
        self.child: Child | None = None
        self.report = Report("starting", {})
        self.restart_at_s = 0.0
        self._task = task
        self._spawn = spawn
        self._clock = clock
        self._exits_s: deque[float] = deque(maxlen=_MAX_EXITS)
        self._heard_s = clock()

    def start(self) -> None:
        """Start the process."""
        self.child = self._spawn(self._task)
        self.report = Report("starting", {})
        self._heard_s = self._clock()

    def listen(self, child: Child) -> None:
        """Keep the newest report."""
        for report in child.reports():
            self.report = report
            self._heard_s = self._clock()

    def plan_restart(self) -> bool:
        """Set the time of the restart of a process that exited; False if it exited too often within the window."""
        now_s = self._clock()
        self.child = None
        self.report = Report("restarting", {})
        self.restart_at_s = now_s + _RESTART_S
        self._exits_s.append(now_s)
        return len(self._exits_s) < _MAX_EXITS or now_s - self._exits_s[0] >= _EXITS_WINDOW_S

    @property
    def silent_s(self) -> float:
        """Time since the latest report or start."""
        return self._clock() - self._heard_s


class Supervisor:
    """The whole worker: one process tree, one exit code.

    Building it starts nothing; entering it starts all processes; leaving it drains them, also when a start has failed.

    Args:
        settings: of the worker.
        spawn: starts a process.
        connect: opens the client of the inference process at an address.
        clock: monotonic, in s.
        sleep: waits between two looks at the processes.
    """

    def __init__(
        self,
        settings: Settings,
        spawn: Callable[[Task], Child] = SpawnedChild,
        connect: Callable[[str, float], Beats] = lambda address, stall_s: InferenceClient(address, stall_s=stall_s),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._spawn = spawn
        self._connect = connect
        self._clock = clock
        self._sleep = sleep
        self._stop_requests = 0  # a plain number: a signal handler that takes a lock can wait for itself
        self._is_started = False
        self._is_draining = False
        self._resources = ExitStack()
        self._beats: Beats | None = None
        self._inference: Child | None = None
        self._ingests: list[WatchedChild] = []
        self._projectors: list[WatchedChild] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:  # clean up, then raise it again
            self._drain()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._drain()

    def run(self) -> int:
        """Watch until a signal asks the worker to stop or it cannot continue; returns the exit code."""
        while not self._stop_requests:
            code = self.turn()
            if code is not None:
                return code
            self._sleep(_WATCH_S)
        return EXIT_OK

    def ask_to_stop(self, *_: object) -> None:
        """Signal handler: the first signal drains, the second kills all processes."""
        self._stop_requests += 1
        if self._stop_requests > 1:
            for child in self._children():
                child.kill()

    def turn(self) -> int | None:
        """Look at every process once; returns the exit code if the worker must end."""
        assert self._beats is not None
        assert self._inference is not None
        self._beats.collect()
        code = self._inference.exit_code
        if code is not None:
            log.error("inference process exited", exit_code=code)
            return code if code == EXIT_CONFIGURATION else EXIT_AGAIN
        if self._beats.model is not None and not self._beats.healthy(self._clock()):
            log.error("model thread hangs; stopping the worker", stall_s=self._settings.worker.stall_s)
            self._inference.kill()  # SIGTERM does not interrupt a hung driver call
            self._inference.wait(_KILL_AFTER_S)
            return EXIT_AGAIN
        for watched in self._watched:
            code = self._look_after(watched)
            if code is not None:
                return code
        return None

    # -- processes

    @property
    def _watched(self) -> list[WatchedChild]:
        return self._ingests + self._projectors

    def _children(self) -> Iterator[Child]:
        if self._inference is not None:
            yield self._inference
        for watched in self._watched:
            if watched.child is not None:
                yield watched.child

    def _start(self) -> None:
        settings = self._settings
        directory = tempfile.mkdtemp(prefix="callmood-")
        self._resources.callback(shutil.rmtree, directory, ignore_errors=True)
        address = f"ipc://{directory}/inference"
        names = [f"ingest-{number}" for number in range(settings.worker.ingest_processes)]
        ingests = [Task(name, processes.ingest, (settings, name, address)) for name in names]
        projectors = [Task("projector", processes.projector, (settings, "projector"))]
        self._ingests = [WatchedChild(task, self._spawn, self._clock) for task in ingests]
        if settings.worker.output == "both":
            self._projectors = [WatchedChild(task, self._spawn, self._clock) for task in projectors]
        self._beats = self._connect(address, settings.worker.stall_s)
        self._resources.callback(self._beats.close)
        if not self._stop_requests:
            task = Task("inference", processes.inference, (settings, address), has_reports=False)
            self._inference = self._spawn(task)
        for watched in self._watched:
            if not self._stop_requests:
                watched.start()
        self._is_started = True

    def _look_after(self, watched: WatchedChild) -> int | None:
        """Read a process's reports and restart it if it has ended; returns the exit code if a restart cannot help."""
        child = watched.child
        if child is None:
            if not self._stop_requests and self._clock() >= watched.restart_at_s:
                watched.start()
            return None
        watched.listen(child)
        code = child.exit_code
        if code is None:
            return None
        log.error("process exited", name=watched.name, exit_code=code)
        health.forget_process(child.pid)
        if code in (EXIT_CONFIGURATION, EXIT_GIVE_UP):
            return code
        if watched.plan_restart():
            return None
        log.error(
            "process exited too often; stopping the worker",
            name=watched.name,
            exits=_MAX_EXITS,
            window_s=_EXITS_WINDOW_S,
        )
        return EXIT_AGAIN

    def _drain(self) -> None:
        """Stop the ingest processes first, while the model still answers; then the rest. All share one deadline."""
        self._is_draining = True
        has_model = self._inference is not None and self._inference.exit_code is None
        answers_s = self._settings.worker.drain_timeout_s if has_model else 0.0
        deadline_s = self._clock() + answers_s + _KILL_AFTER_S
        for ingest in self._ingests:  # all at once, or one would take over what another has just given up
            if ingest.child is not None:
                ingest.child.terminate()
        for watched in self._watched:
            if watched.child is not None:
                self._end(watched.name, watched.child, deadline_s)
        if self._inference is not None:
            self._end("inference", self._inference, self._clock() + _KILL_AFTER_S)
        self._resources.close()

    def _end(self, name: str, child: Child, deadline_s: float) -> None:
        """Send SIGTERM; after the deadline or a second signal, SIGKILL."""
        child.terminate()
        if self._stop_requests > 1:  # the process may have started after the second signal
            child.kill()
        if not child.wait(max(0.0, deadline_s - self._clock())):
            log.error("process killed: it did not stop in time", name=name)
            child.kill()
            child.wait(_KILL_AFTER_S)

    # -- probes: called by the threads of the health endpoint

    def is_alive(self) -> Answer:
        """The answer of /livez: false only if waiting longer would not help, and a restart would."""
        limit_s = self._settings.worker.stall_s
        if self._beats is not None and not self._beats.healthy(self._clock()):
            return Answer(is_ok=False, text="the model thread hangs")
        for watched in self._watched:
            report, silent_s = watched.report, watched.silent_s
            if report.state == "running" and silent_s > limit_s:
                return Answer(is_ok=False, text=f"{watched.name} has not reported for {silent_s:.0f} s")
            if report.facts.get("is_store_healthy") and report.facts.get("stuck_s", 0.0) > limit_s:
                stage, stuck_s = report.facts["stuck_at"], report.facts["stuck_s"]
                return Answer(is_ok=False, text=f"{watched.name}: no progress in {stage} for {stuck_s:.0f} s")
        return Answer(is_ok=True, text="alive")

    def is_ready(self) -> Answer:
        """The answer of /readyz: model warm, group joined, every partition restored, store available."""
        if self._is_draining or self._stop_requests:
            return Answer(is_ok=False, text="draining")
        if not self._is_started:
            return Answer(is_ok=False, text="starting")
        partitions = 0
        for ingest in self._ingests:
            report, silent_s = ingest.report, ingest.silent_s
            missing = _missing(report, silent_s)
            if missing:
                return Answer(is_ok=False, text=f"{ingest.name}: {missing}")
            partitions += report.facts["partitions"]
        return Answer(is_ok=True, text=f"ready, {partitions} partitions")


def _missing(report: Report, silent_s: float) -> str | None:
    """Why an ingest process is not ready; None if it is."""
    if report.state != "running" or silent_s > _REPORTS_LATE_S:
        return f"{report.state}, last report {silent_s:.0f} s ago"
    if not report.facts["is_store_healthy"]:
        return "the store does not answer"
    if report.facts["restoring"]:
        return f"{report.facts['restoring']} partitions are being restored"
    return None


def run(settings: Settings) -> int:
    """Run a worker until SIGTERM or SIGINT; returns its exit code."""
    logs.configure(settings.log, process="supervisor")
    try:
        own_cores(settings.worker)
    except ConfigurationError as error:
        log.error("cannot run", error=str(error))  # noqa: TRY400 - the message is enough
        return EXIT_CONFIGURATION
    try:
        metrics_dir = health.use_shared_metrics()
    except OSError as error:
        log.error("cannot run", error=f"{error}: the worker needs a folder for temporary files, see TMPDIR")  # noqa: TRY400 - the message is enough
        return EXIT_CONFIGURATION
    try:
        return _run(settings)
    finally:
        shutil.rmtree(metrics_dir, ignore_errors=True)
        log.info("worker stopped")


def _run(settings: Settings) -> int:
    supervisor = Supervisor(settings)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, supervisor.ask_to_stop)
    probes = Probes(supervisor.is_alive, supervisor.is_ready)
    host, port = settings.worker.health_host, settings.worker.health_port
    with ExitStack() as stack:
        try:
            server = stack.enter_context(health.serving(probes, host, port))
        except OSError as error:
            log.error("cannot run", error=f"health endpoint {host}:{port}: {error}. Set CALLMOOD_WORKER__HEALTH_PORT")  # noqa: TRY400 - the message is enough
            return EXIT_CONFIGURATION
        try:
            stack.enter_context(supervisor)
            policy = settings.policy.model_dump(mode="json")
            log.info("worker started", health_port=server.server_port, policy=policy, compiled=is_compiled())
            return supervisor.run()
        except OSError:
            log.exception("cannot start a process")
            return EXIT_AGAIN
