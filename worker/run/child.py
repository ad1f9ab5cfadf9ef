"""A child process of the supervisor: its start, its reports and its end."""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import structlog

from callmood.worker.run.processes import Report

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

log = structlog.get_logger()
_spawn = multiprocessing.get_context("spawn")


class Task(NamedTuple):
    """What a process runs.

    With `has_reports`, the target takes one more argument, the last: the connection for its reports.
    """

    name: str
    target: Callable[..., None]
    args: tuple[Any, ...]
    has_reports: bool = True


class Child(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int | None:
        """Process id."""

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""

    def reports(self) -> list[Report]:
        """The reports since the last call, oldest first; never waits."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; returns whether the process has ended."""


class SpawnedChild:
    """See `Child`. A start that fails leaves no open pipe.

    Raises:
        OSError: the system has no room for another process.
    """

    def __init__(self, task: Task) -> None:
        self._reports: Connection | None = None
        args, theirs = task.args, None
        if task.has_reports:
            self._reports, theirs = _spawn.Pipe(duplex=False)
            args = (*args, theirs)
        self._process = _spawn.Process(name=task.name, target=task.target, args=args)
        try:
            self._process.start()
        except BaseException:  # clean up, then raise it again
            self._close_reports()
            raise
        finally:
            if theirs is not None:
                theirs.close()
        log.info("process started", name=task.name, pid=self._process.pid)

    @property
    def pid(self) -> int | None:
        """See `Child`."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """See `Child`."""
        return self._process.exitcode

    def reports(self) -> list[Report]:
        """See `Child`."""
        reports = []
        try:
            while self._reports is not None and self._reports.poll():
                reports.append(self._reports.recv())
        except (EOFError, OSError):  # the process has ended; the supervisor reads its exit code next
            self._close_reports()
        return reports

    def terminate(self) -> None:
        """See `Child`."""
        self._process.terminate()

    def kill(self) -> None:
        """See `Child`."""
        self._process.kill()

    def wait(self, timeout_s: float) -> bool:
        """See `Child`."""
        self._process.join(timeout_s)
        return self._process.exitcode is not None

    def _close_reports(self) -> None:
        if self._reports is not None:
            with suppress(OSError):
                self._reports.close()
            self._reports = None
