"""Processes forked from a server that has imported the model's libraries once: each costs ten CPU-seconds less.

What such a process starts by multiprocessing is forked too, and begins as a spawned process does: with default signals
and without its parent's files. A test of the start itself, or of a preloaded library, starts the command instead.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, ForkProcess, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch

_SERVER: Final = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["warmed"])
_STANDARD: Final = {0, 1, 2}


def start(target: Callable[..., object], *arguments: Any, daemon: bool = False) -> ForkServerProcess:
    """Start a function in a process of its own. What it writes on standard error is the test's."""
    process = _SERVER.Process(target=_run, args=(target, arguments), daemon=daemon)
    with _without_main(), _on_the_path():
        process.start()
    return process


def _run(target: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    multiprocessing.process._parent_process = None  # its parent is the server, not the process that asked for it
    target(*arguments)


@contextmanager
def _on_the_path() -> Iterator[None]:
    """The server, which the first process starts, finds the project and the tests."""
    tests = Path(__file__).parent
    with patch.dict(os.environ):
        given = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(tests.parent), str(tests), given])
        yield


@contextmanager
def _without_main() -> Iterator[None]:
    """The new process imports no main module: it might import `prometheus_client`, see `warmed`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def start_training(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> ForkServerProcess:
    """Start a command of `callmood-train`; its exit code is the process's own."""
    return start(_train, list(arguments), dict(environment or {}))


def start_worker(environment: Mapping[str, str], log: Path, prepare: str = "") -> ForkServerProcess:
    """Start `callmood worker` as the leader of a session.

    Args:
        environment: the whole environment.
        log: file that receives standard output and standard error.
        prepare: `module:function`, called in each child process before it begins.
    """
    return start(_work, dict(environment), log, prepare)


def start_analysis() -> Connection:
    """Start what `callmood analyze` computes: send a recording, a call id and settings; receive what it says of them.

    The answer is the list of utterances and the aggregate. The process ends with the connection.
    """
    ours, theirs = _SERVER.Pipe()
    start(_analyse, theirs, daemon=True)
    theirs.close()
    return ours


def _analyse(asked: Connection) -> None:
    from callmood.worker.commands.analyze import analyze  # noqa: PLC0415 - only the server imports torch
    from callmood.worker.engine.check import Listener  # noqa: PLC0415 - as above
    from callmood.worker.settings import ModelSettings  # noqa: PLC0415 - as above

    listener = Listener.open(ModelSettings(device="cpu", threads=1))
    with suppress(EOFError):
        while True:
            recording, call_id, settings = asked.recv()
            asked.send(analyze(recording, call_id, listener, settings))


def _train(arguments: list[str], environment: dict[str, str]) -> None:
    import torch  # noqa: PLC0415 - only the server imports it, not every process of pytest

    from callmood.training.__main__ import main  # noqa: PLC0415 - as above

    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.exit(main(arguments))


def _work(environment: dict[str, str], log: Path, prepare: str) -> None:
    os.setsid()

    from callmood.__main__ import main  # noqa: PLC0415 - only after the new session: `live.Worker.kill` ends a session
    from callmood.worker.run import child  # noqa: PLC0415 - as above

    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # derived again from the environment
    with log.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    child._spawn = _Context(prepare)
    sys.exit(main(["worker"]))


class _Context(ForkContext):
    """Replaces the worker's context of spawned processes."""

    def __init__(self, prepare: str) -> None:
        self._prepare = prepare

    def Process(self, **options: Any) -> "_Child":  # noqa: N802 - the name in `multiprocessing`
        return _Child(self._prepare, **options)


class _Child(ForkProcess):
    """A forked process with what a spawned one has: its arguments, the standard streams, nothing else of its parent."""

    def __init__(self, prepare: str, **options: Any) -> None:
        super().__init__(**options)
        self._prepare = prepare
        self._inherited: dict[int, tuple[int, int]] = {}

    def start(self) -> None:
        given = {argument.fileno() for argument in self._args if isinstance(argument, Connection)}
        numbers = {int(path.name) for path in Path("/proc/self/fd").iterdir()} - _STANDARD - given
        self._inherited = {number: identity for number in numbers if (identity := _identity(number))}
        super().start()

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for number, identity in self._inherited.items():
            if _identity(number) == identity:  # else the number has been given to another file
                os.close(number)
        if self._prepare:
            module, _, function = self._prepare.partition(":")
            getattr(importlib.import_module(module), function)()
        super().run()


def _identity(file: int) -> tuple[int, int] | None:
    with suppress(OSError):
        status = os.fstat(file)
        return status.st_dev, status.st_ino
    return None
