"""A temporary directory and its server processes. Both are removed when this process ends, however it ends."""

import contextlib
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.local.errors import PortTaken, StackError

_WATCH = Path(__file__).with_name("watch.py")
_POLL_S = 0.05
_STOP_S = 10.0
_TAIL_LINES = 20
_PORT_TAKEN = re.compile(r"address( already)? in use|addrinuse|address already", re.IGNORECASE)
_TCP_LISTEN = "0A"
_PORTS = range(10_000, 32_768)  # below those that the kernel gives to outgoing connections


@dataclass(frozen=True)
class Server:
    """A started server process; `log` holds its standard output and error."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Process id of the server itself, not of a shell around it."""
        return self.process.pid

    def wait_ready(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Poll `is_ready` until it holds.

        Raises:
            PortTaken: the server ended because its port is in use.
            StackError: the server ended or did not get ready in time; the message ends with the tail of its log.
        """
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            code = self.process.poll()
            if code is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
                continue
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
            if code is not None and _PORT_TAKEN.search(tail):
                raise PortTaken(f"{self.name}: the port is in use")
            end = f"ended with code {code}" if code is not None else f"was not ready after {timeout_s:g} s"
            raise StackError(f"{self.name} {end}:\n{tail}")

    def stop(self) -> None:
        """Ask the server to stop, then kill it; returns when it is gone."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


class Nursery:
    """Starts servers in a temporary directory. Closing it stops them, last started first, and removes the directory."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="callmood-stack-"))
        self._servers: list[Server] = []
        command = [sys.executable, "-I", "-S", str(_WATCH), str(self.directory)]
        self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)

    def start(self, name: str, command: Sequence[str]) -> Server:
        """Start a server with `directory/name` as its working directory; it is not ready yet."""
        home = self.directory / name
        home.mkdir(exist_ok=True)
        log = self.directory / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=self._watcher.pid,  # also keeps a terminal's Ctrl-C away from the servers
            )
        server = Server(name, process, log)
        self._servers.append(server)
        return server

    def discard(self, server: Server) -> None:
        """Stop one server and forget it."""
        server.stop()
        self._servers.remove(server)

    def close(self) -> None:
        """Stop all servers and remove the directory. A second call does nothing."""
        while self._servers:
            self._servers.pop().stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._watcher.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._watcher.communicate(b".")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _uninterrupted():
            self.close()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore a second Ctrl-C, which would leave half of the servers behind. Only the main thread receives one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def free_port() -> int:
    """A free TCP port of 127.0.0.1. Callers on this machine take turns, so that the next one gets another.

    Raises:
        StackError: there is none.
    """
    with Path(tempfile.gettempdir(), f"callmood-next-port-{os.getuid()}").open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        start = int(counter.read() or random.randrange(len(_PORTS)))
        for number in range(start, start + len(_PORTS)):
            port = _PORTS[number % len(_PORTS)]
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                counter.truncate(0)
                counter.write(str(number + 1))
                return port
    raise StackError(f"no port from {_PORTS.start} to {_PORTS.stop - 1} is free")


def listens(pid: int, port: int) -> bool:
    """Whether the process `pid` itself listens on `port`.

    A port that accepts is no proof: another process may have taken it first. Without /proc, any listener counts.
    """
    if not Path("/proc/self/fd").is_dir():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    with contextlib.suppress(OSError):  # the process is gone
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed since it was listed
                if str(descriptor.readlink()) in sockets:
                    return True
    return False


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):  # no IPv6
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _TCP_LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(columns[9])
    return inodes
