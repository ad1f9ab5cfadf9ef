"""A TCP proxy that can cut connections, drop or delay traffic, or withhold an answer."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

_CHUNK: Final = 1 << 16
_LINGER: Final = struct.pack("ii", 1, 0)  # closing then sends RST, as a firewall or a dead host does
_REQUEST: Final = struct.Struct(">iHHi")
"""Kafka's protocol: size, API key, version, correlation id."""
_ANSWER: Final = struct.Struct(">ii")
"""Size and correlation id."""
_SIZE: Final = 4  # does not count itself

PRODUCE, OFFSET_FETCH, JOIN, SYNC, ADD_OFFSETS, END_TXN, OFFSET_COMMIT_TXN = 0, 9, 11, 14, 25, 26, 28
BAD_MOMENTS: Final = {
    "Produce": PRODUCE,
    "OffsetFetch": OFFSET_FETCH,
    "JoinGroup": JOIN,
    "SyncGroup": SYNC,
    "AddOffsetsToTxn": ADD_OFFSETS,
    "EndTxn": END_TXN,
    "TxnOffsetCommit": OFFSET_COMMIT_TXN,
}
"""Requests of Kafka's protocol whose answer may be lost, by their API key."""
SCRIPT: Final = b"EVALSHA"
"""The request of Redis's protocol whose answer may be lost."""


class Trap:
    """Set on proxies, it lets one request of a kind through, and cuts its connection when the answer comes.

    So what was asked for has happened, and who asked does not know it.
    """

    def __init__(self, kind: int | bytes) -> None:
        self.has_sprung = False
        self._kind = kind
        self._is_set = True

    def catches(self, request: int | bytes) -> bool:
        """Whether this is the request; there is only one."""
        is_caught = self._is_set and (
            self._kind == request if isinstance(self._kind, int) else self._kind in bytes(request)
        )
        self._is_set = self._is_set and not is_caught
        return is_caught

    def take_away(self) -> None:
        """Nothing more is caught; what was caught stays so."""
        self._is_set = False


class Proxies:
    """The thread in which all proxies run."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def open(self, target_port: int, *, speaks_kafka: bool = False) -> "Proxy":
        """A new proxy in front of a port of this machine."""
        return self.call(self._open(target_port, speaks_kafka=speaks_kafka))

    async def _open(self, target_port: int, *, speaks_kafka: bool) -> "Proxy":
        proxy = Proxy(target_port, speaks_kafka=speaks_kafka)
        self._servers.append(await asyncio.start_server(proxy.serve, "127.0.0.1", 0))
        proxy.port = self._servers[-1].sockets[0].getsockname()[1]
        return proxy

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run in the proxies' thread, and wait for the result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        """End the thread, and with it every connection."""
        self.call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what was reset is closed in the loop's next turn


class Proxy:
    """One listening port, and the connections through it. Its methods may be called from any thread."""

    def __init__(self, target_port: int, *, speaks_kafka: bool) -> None:
        self.port = 0
        self._target_port = target_port
        self._speaks_kafka = speaks_kafka
        self._writers: set[asyncio.StreamWriter] = set()
        self._delay_s = 0.0
        self._swallows = False
        self._trap: Trap | None = None
        self._loop = asyncio.get_running_loop()

    # -- told from outside

    def cut(self) -> None:
        """Reset every connection; new ones are served."""
        self._loop.call_soon_threadsafe(self._cut)

    def swallow(self, *, on: bool) -> None:
        """Nothing comes through any more, and nobody is told; at the end of it the connections are cut."""
        self._loop.call_soon_threadsafe(self._swallow, on)

    def delay(self, seconds: float) -> None:
        """Every piece comes later."""
        self._delay_s = seconds

    def set_trap(self, trap: Trap) -> None:
        """It takes the place of an earlier one; it may be set on other proxies too."""
        self._trap = trap

    # -- inside the loop

    def _swallow(self, on: bool) -> None:  # noqa: FBT001 - a callback
        if not on:
            self._cut()  # in the middle of a frame: a client that reads on would read nonsense
        self._swallows = on

    def _cut(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until one of its ends goes away."""
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            _reset(writer)
            return
        ends = {writer, to_writer}
        self._writers |= ends
        caught: dict[int, Trap] = {}  # by correlation id; in Redis's protocol the next answer is the one
        pass_on = (self._requests, self._answers) if self._speaks_kafka else (self._commands, self._replies)
        pumps = [
            asyncio.ensure_future(pass_on[0](reader, to_writer, caught)),
            asyncio.ensure_future(pass_on[1](to_reader, writer, caught)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in ends:
                _reset(end)
            self._writers -= ends

    async def _commands(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caught: dict[int, Trap]
    ) -> None:
        while data := await reader.read(_CHUNK):
            if self._trap and self._trap.catches(data):
                caught[0] = self._trap
            await self._pass(data, writer)

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caught: dict[int, Trap]
    ) -> None:
        while data := await reader.read(_CHUNK):
            if trap := caught.get(0):
                trap.has_sprung = True
                return
            await self._pass(data, writer)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caught: dict[int, Trap]
    ) -> None:
        while True:
            head = await reader.readexactly(_REQUEST.size)
            size, api_key, _, correlation = _REQUEST.unpack(head)
            if self._trap and self._trap.catches(api_key):
                caught[correlation] = self._trap
            await self._frame(head, size, reader, writer)

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caught: dict[int, Trap]
    ) -> None:
        while True:
            head = await reader.readexactly(_ANSWER.size)
            size, correlation = _ANSWER.unpack(head)
            if trap := caught.get(correlation):
                trap.has_sprung = True
                return
            await self._frame(head, size, reader, writer)

    async def _frame(self, head: bytes, size: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._pass(head, writer)
        rest = size + _SIZE - len(head)
        while rest:
            data = await reader.readexactly(min(rest, _CHUNK))
            rest -= len(data)
            await self._pass(data, writer)

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if not self._swallows:
            writer.write(data)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, AttributeError):  # it is closed already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    writer.transport.abort()
