"""The inference process: a socket for any number of clients, the speech check, the batcher, and the model's thread.

The model hears only what the check and the policy leave to it. A GPU is given its next batch while it runs the one
before, so that it never waits for Python: one thread starts batches, another waits for them. A CPU computes several
batches side by side: a product of one utterance is too small to be shared by many cores.
"""

import gc
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

import structlog
import zmq

from callmood.worker.engine.batch import Batcher
from callmood.worker.engine.parts import duration_s, early_answer, part_of
from callmood.worker.inference import wire
from callmood.worker.inference.checks import Checks
from callmood.worker.inference.overload import is_skipped
from callmood.worker.records import Prediction
from callmood.worker.settings import ModelSettings

if TYPE_CHECKING:
    from callmood.worker.engine.infer import Collect, Engine
    from callmood.worker.engine.parts import Sound
    from callmood.worker.records import Speech

log = structlog.get_logger()

BEAT_S: Final = 0.25
_SWITCH_S: Final = 0.0005
"""By default, a thread waits up to 5 ms for another that computes in Python, as those of the speech check do."""
_NEWEST_WEIGHT: Final = 0.05  # of the newest batch in the shares of padding and of what is computed again
_Key = tuple[bytes, str]
"""A client's identity and the id of its utterance."""


def open_warm(settings: ModelSettings) -> "Engine":
    """The engine of these settings, warmed up.

    Raises:
        ConfigurationError: there is no such device.
        ModelError: the checkpoint cannot be used.
    """
    gc.disable()  # the imports and the model stay; looking for garbage among them takes a sixth of the start's CPU time
    try:
        from callmood.worker.engine.infer import open_engine  # noqa: PLC0415 - torch belongs to the model's thread of this process alone

        engine = open_engine(settings)
        engine.warm_up()
    finally:
        gc.freeze()
        gc.enable()
    return engine


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

    Only `_thread` touches a model on a GPU, and `_waiting` waits for it; on a CPU, the threads of `_slots` compute.

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
        self._next_beat_s = 0.0
        self._wake, self._wakeup = socket.socketpair()
        self._poller = zmq.Poller()
        self._poller.register(router, zmq.POLLIN)
        self._poller.register(self._wakeup, zmq.POLLIN)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._waiting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="results")
        self._slots: ThreadPoolExecutor | None = None
        self._wake.setblocking(False)
        self._checks: Checks[_Key] = Checks(settings, self._rouse, clock)
        self._engine: Engine | None = None
        self._opening: Future[Engine] | None = self._thread.submit(opened, settings)
        self._running: list[_Running] = []
        self._finished_s = 0.0
        self._padding = 0.0
        self._rechecked = 0.0
        self._rechecked_before = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_details: object) -> None:
        self._checks.close()
        for threads in (self._thread, self._waiting, self._slots):
            if threads is not None:  # after an error, the process ends with what runs
                threads.shutdown(wait=error is None, cancel_futures=True)
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
        if due_s is not None and self._is_free():
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

    def _is_free(self) -> bool:
        return self._engine is not None and len(self._running) < self._engine.depth

    def _start(self) -> None:
        """Hand the next batches to the model, as many as it takes."""
        while self._is_free():
            assert self._engine is not None
            now_s = self._clock()
            keys = self._batcher.due(now_s)
            if keys is None:
                return
            taken = [self._requests.pop(key) for key in keys]
            sounds = [asked.heard for asked in taken]
            share, future = self._begin(self._engine, sounds)
            self._running.append(_Running(keys, taken, [duration_s(sound) for sound in sounds], now_s, share, future))
            future.add_done_callback(lambda _: self._rouse())
            if not self._is_free():
                self._skip(now_s)

    def _begin(self, engine: "Engine", sounds: "list[Sound]") -> "tuple[float, Future[list[Prediction]]]":
        """Begin a batch; on a CPU with all threads if it is the only one now, else with the share of a slot.

        Returns:
            How many times the threads of a slot it has.
        """
        if self._slots is None:
            return 1.0, self._waiting.submit(_collect, self._thread.submit(engine.start, sounds))
        of_slot = engine.threads // engine.slots
        threads = of_slot if self._running or len(self._batcher) else engine.threads
        return threads / of_slot, self._slots.submit(_compute, engine, sounds, threads)

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
        if self._opening is not None and self._opening.done() and self._checks.is_open:
            self._engine, self._opening = self._opening.result(), None
            engine = self._engine
            if engine.slots:
                self._slots = ThreadPoolExecutor(engine.slots, thread_name_prefix="inference")
                self._batcher.batch_seconds /= engine.slots  # so that they take about the memory of one batch
            self._rechecked_before = engine.rechecked
            log.info("model ready", device=engine.plan.device, dtype=engine.plan.dtype, packed=engine.plan.packed)
            self._next_beat_s = 0.0
        for done in [running for running in self._running if running.future.done()]:
            self._running.remove(done)
            predictions = done.future.result()
            self._account(done)
            for (client, id_), asked, prediction in zip(done.keys, done.asked, predictions, strict=True):
                queue_ms = (done.since_s - asked.arrived_s) * 1000
                self._send(client, wire.Answer(id_, replace(prediction, queue_ms=queue_ms, speech=asked.speech)))

    def _account(self, done: "_Running") -> None:
        """Learn from a batch: its run time, what fits into memory, the shares of padding and of what is rechecked."""
        assert self._engine is not None
        now_s = self._clock()
        took_s = self._busy_s(done, now_s)
        self._finished_s = now_s
        longest_s = max(done.seconds)
        if longest_s == 0:  # nothing was computed
            return
        useful_s, padded_s = sum(done.seconds), longest_s * len(done.seconds)
        computed_s = useful_s if self._engine.plan.packed else padded_s
        self._batcher.learn(longest_s, padded_s, took_s * done.share)
        self._batcher.batch_seconds = min(self._batcher.batch_seconds, self._engine.batch_seconds)
        self._padding += _NEWEST_WEIGHT * (1 - useful_s / computed_s - self._padding)
        rechecked = self._engine.rechecked  # by batches that are not done yet as well: their turn brings none then
        share = min(1.0, (rechecked - self._rechecked_before) / len(done.seconds))
        self._rechecked += _NEWEST_WEIGHT * (share - self._rechecked)
        self._rechecked_before = rechecked

    def _busy_s(self, first: "_Running", now_s: float) -> float:
        """How long the first batch has been computed; on a GPU, not before the one before it was done."""
        return now_s - (first.since_s if self._slots is not None else max(first.since_s, self._finished_s))

    def _beat(self) -> None:
        now_s = self._clock()
        self._next_beat_s = now_s + BEAT_S
        busy_s = self._busy_s(self._running[0], now_s) if self._running else 0.0
        busy_s = max(busy_s, self._checks.busy_s(now_s))
        beat = wire.Beat(self._engine.info if self._engine else None, busy_s, self._padding, self._rechecked)
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


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """A batch that is computed.

    For each utterance, `seconds` is the length that the model analyses. `share`: its threads, in those of a slot.
    """

    keys: list[_Key]
    asked: list[_Asked]
    seconds: list[float]
    since_s: float
    share: float
    future: "Future[list[Prediction]]"


def _collect(started: "Future[Collect]") -> "list[Prediction]":
    return started.result()()


def _compute(engine: "Engine", sounds: "list[Sound]", threads: int) -> "list[Prediction]":
    return engine.start(sounds, threads)()
