"""An inference process's loop on a device and a clock that the test moves."""

import threading
import time
from concurrent.futures import wait
from contextlib import contextmanager

import zmq

import callmood.worker.engine.infer  # noqa: F401 - threads of the speech check import it, and no test waits for torch
from callmood.schemas.common import Encoding
from callmood.worker.engine.plan import Plan
from callmood.worker.inference import serve, wire
from callmood.worker.records import ModelInfo, Prediction
from callmood.worker.settings import ModelSettings

SURE = Prediction((0.7, 0.1, 0.1, 0.1), None)
WALL_S = 1_790_000_000.0  # since 1970, at 0 of the clock that never goes back
LIMIT_S = 20.0  # for threads that have nothing to wait for; no test waits for time to pass


class Device:
    """An engine on a device of which each batch is done when the test says so."""

    depth, slots, batch_seconds, rechecked = 2, 0, 60.0, 0
    plan = Plan(device="cuda", dtype="bf16")
    info = ModelInfo("m", "1", "digest")

    def __init__(self):
        self.batches = []
        self.heard = []

    def start(self, sounds):
        """As `Engine.start`."""
        done, fault = threading.Event(), []
        self.heard += [data for _, _, data in sounds]
        self.batches.append((done, fault))

        def collect():
            assert done.wait(LIMIT_S)
            if fault:
                raise fault[0]
            return [SURE] * len(sounds)

        return collect


class Cores(Device):
    """Two cores, on which a batch is computed in the thread that starts it."""

    slots = threads = 2
    plan = Plan(packed=True)

    def __init__(self):
        super().__init__()
        self.taken = []

    def start(self, sounds, threads=0):
        """As `Engine.start`."""
        self.taken.append(threads)
        predictions = super().start(sounds)()
        return lambda: predictions

    def has_begun(self, count):
        """Whether so many batches have begun, soon."""
        until_s = time.monotonic() + LIMIT_S
        while len(self.batches) < count and time.monotonic() < until_s:
            time.sleep(0.001)
        return len(self.batches) == count


class Scene:
    """A server, a client of it, a device and a clock; nothing moves by itself."""

    def __init__(self, router, client, device, *, speech_check=False, **settings):
        self.now_s = 100.0
        self.device = device
        self.client = client
        model = ModelSettings(max_wait_ms=0, speech_check=speech_check, **settings)
        self.server = serve._Server(
            router, model, clock=lambda: self.now_s, opened=lambda _: device, wall=lambda: WALL_S + self.now_s
        )

    def ask(self, id_, audio=bytes(8_000), *, wants_emotion=True):
        """Send an utterance that has just ended, by default of one second."""
        ended_ms = round(1000 * (WALL_S + self.now_s))
        self.client.send(wire.pack(wire.Request(id_, Encoding.PCMU, 8_000, audio, wants_emotion, ended_ms)))

    def check(self):
        """A step in which all that waits for the speech check is judged."""
        self.server._receive()
        wait([judged.future for judged in self.server._checks._waiting], LIMIT_S)
        self.step()

    def step(self):
        """One step of the loop; afterwards the model's thread has started all that it was given."""
        self.server.step()
        self.server._batches._thread.submit(bool).result(LIMIT_S)

    def end_batches(self, *numbers):
        """Let these batches be done, and wait until the oldest one that runs is known to be."""
        for number in numbers:
            self.device.batches[number][0].set()
        wait([running.future for running in self.server._batches._running][: len(numbers)], LIMIT_S)

    def received(self, kind):
        """What the client has received of one kind since it last looked."""
        messages = []
        while self.client.poll(0):
            messages.append(wire.unpack(self.client.recv()))
        return [message for message in messages if isinstance(message, kind)]


@contextmanager
def opened(device=None, **settings):
    device = device or Device()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as client:
        for end in (router, client):
            end.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.bind("inproc://inference")
        client.connect("inproc://inference")
        client.send(wire.pack(wire.Hello()))
        scene = Scene(router, client, device, **settings)
        with scene.server:
            wait([scene.server._batches._opening], LIMIT_S)
            scene.step()
            yield scene
            for done, _ in device.batches:
                done.set()
