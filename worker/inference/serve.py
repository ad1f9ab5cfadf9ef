"""The inference process: a socket for any number of clients, the speech check, the batcher, and the batches that run.

The model hears only what the check and the policy leave to it.
"""

import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

import zmq

from callmood.worker.engine.batch import Batcher
from callmood.worker.engine.parts import duration_s, early_answer, part_of
from callmood.worker.inference import wire
from callmood.worker.inference.batches import Batch, Batches, open_warm
from callmood.worker.inference.checks import Checks
from callmood.worker.inference.overload import is_skipped
from callmood.worker.records import Prediction
from callmood.worker.settings import ModelSettings

if TYPE_CHECKING:
    from callmood.worker.engine.infer import Engine
    from callmood.worker.engine.parts import Sound
    from callmood.worker.records import Speech

BEAT_S: Final = 0.25
_SWITCH_S: Final = 0.0005
"""By default, a thread waits up to 5 ms for another that computes in Python, as those of the speech check do."""
_Key = tuple[bytes, str]
"""A client's identity and the id of its utterance."""


def serve(settings: ModelSettings, address: str, opened: "Callable[[ModelSettings], Engine]" = open_warm) -> None:
    """Bind the socket, load and warm the model, and answer until SIGTERM or the death of the parent process.

    Runs in the process's main thread and takes its SIGTERM and SIGINT. On SIGTERM the batches that run are finished.

    Args:
        settings: the model and how it is run.
        address: `ipc://` path to bind.
        opened: gives the engine; runs in the model's thread.

    Raises:
        ConfigurationError: there is no such device.
        ModelError: the checkpoint cannot be used.
        Exception: the model fails whatever it is given; the process must not go on.
    """
    sys.setswitchinterval(_SWITCH_S)
    if not settings.path.startswith("hf://"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all comes from a local folder
    parent = multiprocessing.parent_process()
    parent_pid = os.getppid() if parent is None else parent.pid
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides the order
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a send to a client that is gone fails
        router.setsockopt(zmq.SNDHWM, 0)  # clients bound what they have in flight, and so what comes back
        router.setsockopt(zmq.RCVHWM, 0)
        router.bind(address)
        with _Server(router, settings, opened=opened) as server:
            while not stopping.is_set():
                server.turn()
                if os.getppid() != parent_pid:
                    os._exit(1)  # no client is left, and a device that hangs must not keep the process


class _Server:
    """Clients, the speech check, the queue, and the batches that run.

    Args:
        router: the bound socket.
        settings: the model and how it is run.
        clock: seconds; never goes back.
        opened: gives the engine.
        wall: the wall clock, in s since 1970.
    """

    def __init__(
        self,
        router: "zmq.Socket[bytes]",
        settings: ModelSettings,
        clock: Callable[[], float] = time.monotonic,
        opened: "Callable[[ModelSettings], Engine]" = open_warm,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._router = router
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._batcher: Batcher[_Key] = Batcher(
            batch_seconds=settings.batch_seconds,
            max_wait_s=settings.max_wait_ms / 1000,
            max_run_s=settings.batch_ms / 1000,
        )
        self._clients: set[bytes] = set()
        self._requests: dict[_Key, _Asked] = {}
        """Those that no batch has."""
        self._next_beat_s = 0.0
        self._wake, self._wakeup = socket.socketpair()
        self._poller = zmq.Poller()
        self._poller.register(router, zmq.POLLIN)
        self._poller.register(self._wakeup, zmq.POLLIN)
        self._wake.setblocking(False)
        self._checks: Checks[_Key] = Checks(settings, self._rouse, clock)
        self._batches: Batches[tuple[_Key, _Asked]] = Batches(settings, opened, self._rouse)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_details: object) -> None:
        self._checks.close()
        self._batches.close(wait=error is None)  # after an error, the process ends with what runs
        self._wakeup.close()
        self._wake.close()

    def _rouse(self) -> None:
        """End the wait of `turn`; called from any thread."""
        with suppress(OSError):  # so much is to be read that it ends anyway, or the process ends
            self._wake.send(b"\0")

    def turn(self) -> None:
        """Wait for something to do, at most until the next beat, and do all of it."""
        until_s = self._next_beat_s
        due_s = self._batcher.due_s()
        if due_s is not None and self._batches.is_free():
            until_s = min(until_s, due_s)
        ready = dict(self._poller.poll(max(0, math.ceil((until_s - self._clock()) * 1000))))
        if self._wakeup.fileno() in ready:
            self._wakeup.recv(64)
        self.step()

    def step(self) -> None:
        """Do all that there is to do now, without waiting."""
        self._receive()
        self._take_verdicts()
        self._finish()
        self._start()
        if self._clock() >= self._next_beat_s:
            self._beat()

    def _receive(self) -> None:
        while self._router.poll(0):
            client, data = self._router.recv_multipart()
            match wire.unpack(data):
                case wire.Hello():
                    self._clients.add(client)
                    self._next_beat_s = 0.0
                case wire.Request() as request:
                    self._ask((client, request.id), _Asked(request, self._clock()))

    def _ask(self, key: _Key, asked: "_Asked") -> None:
        """To the speech check first, if it is on."""
        self._requests[key] = asked
        if self._checks.is_on:
            self._checks.add(key, asked.sound)
        else:
            self._sort(key, None)

    def _take_verdicts(self) -> None:
        for key, speech in self._checks.take():
            if key in self._requests:  # else its client is gone
                self._sort(key, speech)

    def _sort(self, key: _Key, speech: "Speech | None") -> None:
        """Answer an utterance that the model does not analyse; otherwise queue the part that counts."""
        asked = replace(self._requests.pop(key), speech=speech)
        answer = early_answer(speech, wants_emotion=asked.request.wants_emotion)
        if answer is not None:
            self._send(key[0], wire.Answer(key[1], answer))
            return
        self._requests[key] = asked
        self._batcher.add(key, duration_s(asked.heard), self._clock(), key[0])

    def _start(self) -> None:
        """Hand the next batches to the engine, as many as it takes."""
        while self._batches.is_free():
            now_s = self._clock()
            keys = self._batcher.due(now_s)
            if keys is None:
                return
            taken = [(key, self._requests.pop(key)) for key in keys]
            self._batches.begin(taken, [asked.heard for _, asked in taken], now_s, is_last=not len(self._batcher))
            if not self._batches.is_free():
                self._skip(now_s)

    def _skip(self, now_s: float) -> None:
        """Answer without the model what is old and short, and has waited for longer than a batch should take."""
        if not self._settings.skip_after_s:
            return
        late = [
            (key, self._requests.pop(key))
            for key, voice_s in self._batcher.waiting
            if now_s - self._requests[key].arrived_s >= self._settings.batch_ms / 1000
            and is_skipped(self._settings, age_s=self._age_s(key), voice_s=voice_s)
        ]
        self._batcher.discard([key for key, _ in late])
        for (client, id_), asked in late:
            queue_ms = (now_s - asked.arrived_s) * 1000
            self._send(client, wire.Answer(id_, Prediction(None, None, queue_ms, speech=asked.speech, is_skipped=True)))

    def _age_s(self, key: _Key) -> float:
        return self._wall() - self._requests[key].request.ended_ms / 1000

    def _finish(self) -> None:
        """Answer the batches that are done; an exception of the model ends the process."""
        if self._checks.is_open and self._batches.take_engine():
            assert self._batches.engine is not None
            if slots := self._batches.engine.slots:
                self._batcher.batch_seconds /= slots  # so that they take about the memory of one batch
            self._next_beat_s = 0.0
        for batch, took_s in self._batches.take_done(self._clock()):
            predictions = batch.future.result()
            self._learn(batch, took_s)
            for ((client, id_), asked), prediction in zip(batch.items, predictions, strict=True):
                queue_ms = (batch.since_s - asked.arrived_s) * 1000
                self._send(client, wire.Answer(id_, replace(prediction, queue_ms=queue_ms, speech=asked.speech)))

    def _learn(self, batch: Batch["tuple[_Key, _Asked]"], took_s: float) -> None:
        """Learn from a batch how long such audio takes, and how much fits into memory."""
        assert self._batches.engine is not None
        if batch.padded_s:
            self._batcher.learn(max(batch.seconds), batch.padded_s, took_s * batch.share)
            self._batcher.batch_seconds = min(self._batcher.batch_seconds, self._batches.engine.batch_seconds)

    def _beat(self) -> None:
        now_s = self._clock()
        self._next_beat_s = now_s + BEAT_S
        busy_s = max(self._batches.busy_s(now_s), self._checks.busy_s(now_s))
        info = self._batches.engine.info if self._batches.engine else None
        beat = wire.Beat(info, busy_s, self._batches.padding, self._batches.rechecked)
        for client in list(self._clients):
            self._send(client, beat)

    def _send(self, client: bytes, message: wire.Message) -> None:
        """Send to a client; forget one that is gone, with all it had in the queue."""
        try:
            self._router.send_multipart([client, wire.pack(message)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._clients.discard(client)
            orphans = [key for key in self._requests if key[0] == client]
            self._batcher.discard(orphans)
            for key in orphans:
                del self._requests[key]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, when it came, and what the speech check found in it."""

    request: wire.Request
    arrived_s: float
    speech: "Speech | None" = None

    @property
    def sound(self) -> "Sound":
        """The whole utterance."""
        return self.request.encoding, self.request.rate_hz, self.request.audio

    @property
    def heard(self) -> "Sound":
        """The part that the model analyses."""
        return part_of(self.sound, self.speech)
