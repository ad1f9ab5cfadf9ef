"""`python -m deploy.local up | down | run -- CMD | fetch`."""

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from deploy.local.apache import archive_classes
from deploy.local.errors import StackError
from deploy.local.java import cache_folder
from deploy.local.stack import LocalStack

_DOWN_S = 30.0
_POLL_S = 0.1
_BY_SIGTERM = 128 + signal.SIGTERM


def up(stack: LocalStack) -> int:
    """Start the stack, print its addresses as shell exports, and keep it until Ctrl-C or `down`."""
    with _only_one(), stack:
        for name, value in stack.environment().items():
            print(f"export {name}={value}", flush=True)
        print(f"Kafka: {stack.kafka_kind}. Redis: {stack.redis_kind}. Ctrl-C or `down` stops both.", file=sys.stderr)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return 0


def fetch() -> int:
    """Download what a start needs, so that later starts are fast and need no network."""
    try:
        archive_classes()
    except StackError as error:
        print(f"Kafka cannot be started here yet: {error}", file=sys.stderr)
    return 0


def down() -> int:
    """Stop the servers of `up`, and wait until they have ended."""
    pid = _keeper()
    if pid is None:
        print("no stack is running", file=sys.stderr)
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_S
    while _keeper() is not None:
        if time.monotonic() > deadline:
            raise StackError(f"process {pid} did not end in {_DOWN_S:g} s")
        time.sleep(_POLL_S)
    return 0


def run(stack: LocalStack, command: list[str]) -> int:
    """Run a command with the stack's addresses in its environment; its exit code is the result."""
    with stack, subprocess.Popen(command, env=os.environ | stack.environment()) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            return child.wait()  # a terminal sends Ctrl-C to the command too: let it finish
        except SystemExit:
            child.terminate()
            raise


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the lock file that tells `down` which process keeps the stack."""
    with _lock_file().open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError("a stack is already running: stop it with `python -m deploy.local down`") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _keeper() -> int | None:
    """Process id of the running `up`. It runs if its lock is held; the file alone proves nothing."""
    with _lock_file().open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            return int(lock.read() or 0) or None
    return None


def _lock_file() -> Path:
    return cache_folder() / "local-stack.pid"


def _on_sigterm(*_: object) -> NoReturn:
    raise SystemExit(_BY_SIGTERM)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    parser.add_argument("--kafka", choices=("auto", "apache", "tansu"), default="auto")
    parser.add_argument("--redis", choices=("auto", "redis-server", "valkey"), default="auto")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("up", help="start both, print their addresses, stay until Ctrl-C or `down`")
    actions.add_parser("down", help="stop the servers of `up`")
    actions.add_parser("fetch", help="download what a start needs")
    with_stack = actions.add_parser("run", help="run a command with both servers, then stop them")
    with_stack.add_argument("command", nargs=argparse.REMAINDER, help="-- CMD ARGUMENT...")
    parsed = parser.parse_args(arguments)
    if parsed.action == "run":
        parsed.command = parsed.command[1:] if parsed.command[:1] == ["--"] else parsed.command
        if not parsed.command:
            parser.error("run needs a command: run -- CMD")
    return parsed


def main(arguments: list[str]) -> int:
    """Exit code: the command's for `run`, 1 where the stack does not start, 143 after SIGTERM."""
    parsed = _parse(arguments)
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        if parsed.action in ("down", "fetch"):
            return {"down": down, "fetch": fetch}[parsed.action]()
        stack = LocalStack(kafka=parsed.kafka, redis=parsed.redis)
        return up(stack) if parsed.action == "up" else run(stack, parsed.command)
    except StackError as error:
        print(f"deploy.local: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
