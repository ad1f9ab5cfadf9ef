"""A TCP proxy that can be told to misbehave: cut, swallow, delay, or cut just before an answer arrives."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

_CHUNK: Final = 1 << 16
_LINGER: Final = struct.pack("ii", 1, 0)  # closing then sends RST, as a firewall or a dead host does
_FRAME: Final = struct.Struct(">iH")

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
"""Requests of Kafka's protocol after which a connection may be cut, by their API key."""


class Proxies:
    """The thread in which all proxies run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def open(self, target_port: int, *, speaks_kafka: bool = False) -> "Proxy":
        """A new proxy in front of a port of this machine."""
        return self.call(_opened(target_port, speaks_kafka=speaks_kafka))

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run in the proxies' thread, and wait for the result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        """End the thread; the connections go with the process."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class Proxy:
    """One listening port, and the connections through it. Its methods may be called from any thread."""

    def __init__(self, target_port: int, *, speaks_kafka: bool) -> None:
        self.port = 0
        self.cuts = 0
        """Connections that were cut at a bad moment."""
        self._target_port = target_port
        self._speaks_kafka = speaks_kafka
        self._writers: set[asyncio.StreamWriter] = set()
        self._delay_s = 0.0
        self._swallows = False
        self._bad_moment: int | None = None
        self._loop = asyncio.get_running_loop()

    # -- told from outside

    def cut(self) -> None:
        """Reset every connection; new ones are served."""
        self._loop.call_soon_threadsafe(self._cut)

    def swallow(self, *, on: bool) -> None:
        """Nothing comes through any more, and nobody is told."""
        self._swallows = on

    def delay(self, seconds: float) -> None:
        """Every piece comes later."""
        self._delay_s = seconds

    def cut_after(self, api_key: int) -> None:
        """Forward the next request of this kind, and cut its connection instead of letting the answer through."""
        self._bad_moment = api_key

    # -- inside the loop

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
        forward = self._requests if self._speaks_kafka else self._bytes
        pumps = [
            asyncio.ensure_future(forward(reader, to_writer)),
            asyncio.ensure_future(self._bytes(to_reader, writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for pump in pumps:
            with suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
                await pump
        for end in ends:
            _reset(end)
        self._writers -= ends

    async def _bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._pass(data, writer)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readexactly(_FRAME.size)
            size, api_key = _FRAME.unpack(head)
            await self._pass(head + await reader.readexactly(size - 2), writer)
            if api_key == self._bad_moment:
                self._bad_moment = None
                self.cuts += 1
                return

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if not self._swallows:
            writer.write(data)
            await writer.drain()


async def _opened(target_port: int, *, speaks_kafka: bool) -> Proxy:
    proxy = Proxy(target_port, speaks_kafka=speaks_kafka)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    return proxy


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, AttributeError):  # it is closed already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    writer.transport.abort()
