"""The inference process's loop: batches overlap and keep their order, on a device and a clock that the test moves."""

import threading
from concurrent.futures import wait

import pytest
import zmq

from callmood.schemas.common import Encoding
from callmood.worker.engine.plan import Plan
from callmood.worker.inference import serve, wire
from callmood.worker.records import ModelInfo, Prediction
from callmood.worker.settings import ModelSettings

SURE = Prediction((0.7, 0.1, 0.1, 0.1), None)
LIMIT_S = 20.0  # for threads that have nothing to wait for; no test waits for time to pass


class Device:
    """An engine on a device of which each batch is done when the test says so."""

    depth, batch_seconds, rechecked = 2, 60.0, 0
    plan = Plan(device="cuda", dtype="bf16")
    info = ModelInfo("m", "1", "digest")

    def __init__(self):
        self.batches = []

    def start(self, sounds):
        """As `Engine.start`."""
        done, fault = threading.Event(), []
        self.batches.append((done, fault))

        def collect():
            assert done.wait(LIMIT_S)
            if fault:
                raise fault[0]
            return [SURE] * len(sounds)

        return collect


class Scene:
    """A server, a client of it, a device and a clock; nothing moves by itself."""

    def __init__(self, router, client, device):
        self.now_s = 100.0
        self.device = device
        self.client = client
        self.server = serve._Server(router, ModelSettings(max_wait_ms=0), clock=lambda: self.now_s)

    def ask(self, id_):
        """Send an utterance of one second."""
        self.client.send(wire.pack(wire.Request(id_, Encoding.PCMU, 8_000, bytes(8_000))))

    def step(self):
        """One step of the loop; afterwards the model's thread has started all that it was given."""
        self.server.step()
        self.server._thread.submit(bool).result(LIMIT_S)

    def end_batches(self, *numbers):
        """Let these batches be done, and wait until the oldest one that runs is known to be."""
        for number in numbers:
            self.device.batches[number][0].set()
        wait([running.future for running in self.server._running][: len(numbers)], LIMIT_S)

    def received(self, kind):
        """What the client has received of one kind since it last looked."""
        messages = []
        while self.client.poll(0):
            messages.append(wire.unpack(self.client.recv()))
        return [message for message in messages if isinstance(message, kind)]


@pytest.fixture
def scene(monkeypatch):
    device = Device()
    monkeypatch.setattr(serve, "_open", lambda _: device)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as client:
        for end in (router, client):
            end.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.bind("inproc://inference")
        client.connect("inproc://inference")
        client.send(wire.pack(wire.Hello()))
        scene = Scene(router, client, device)
        with scene.server:
            wait([scene.server._opening], LIMIT_S)
            scene.step()
            yield scene
            for done, _ in device.batches:
                done.set()


def test_a_client_learns_which_model_answers(scene):
    """The first beat after the model is warm has its name and digest, and nothing runs."""
    assert scene.received(wire.Beat)[-1] == wire.Beat(Device.info, 0.0, 0.0, 0.0)


def test_the_next_batch_is_started_while_one_runs(scene):
    """Two are under way, never three; the first one's answers come first, and a batch that is done makes room."""
    for number in range(3):
        scene.ask(f"utterance {number}")
        scene.step()
        assert len(scene.device.batches) == min(number + 1, 2)
    scene.device.batches[1][0].set()
    scene.step()
    assert scene.received(wire.Answer) == []
    assert len(scene.device.batches) == 2
    scene.end_batches(0, 1)
    scene.step()
    assert len(scene.device.batches) == 3
    assert [answer.id for answer in scene.received(wire.Answer)] == ["utterance 0", "utterance 1"]


def test_a_batch_is_busy_from_when_the_one_before_it_was_done(scene):
    """Waiting behind another is not hanging: the time in the beats begins again with each batch."""
    for number in range(2):
        scene.ask(f"utterance {number}")
        scene.step()
    scene.now_s += 5.0
    scene.step()
    assert scene.received(wire.Beat)[-1].busy_s == 5.0
    scene.now_s += 2.0
    scene.end_batches(0)
    scene.step()
    assert scene.received(wire.Beat)[-1].busy_s == 0.0
    scene.now_s += 1.0
    scene.step()
    assert scene.received(wire.Beat)[-1].busy_s == 1.0


def test_the_batcher_learns_how_long_each_batch_had_the_model(scene, monkeypatch):
    """Of two batches that overlap, the second is charged from the end of the first."""
    learned = []
    monkeypatch.setattr(scene.server._batcher, "learn", lambda *figures: learned.append(figures))
    for number in range(2):
        scene.ask(f"utterance {number}")
        scene.step()
    for number, took_s in enumerate((7.0, 3.0)):
        scene.now_s += took_s
        scene.end_batches(number)
        scene.step()
    assert learned == [(1.0, 1.0, 7.0), (1.0, 1.0, 3.0)]


def test_answers_carry_the_time_in_the_queue(scene):
    """An utterance that waits behind two batches has waited until its own was started."""
    for number in range(3):
        scene.ask(f"utterance {number}")
        scene.step()
    scene.now_s += 4.0
    scene.end_batches(0, 1)
    scene.step()
    scene.end_batches(2)
    scene.step()
    assert [answer.prediction.queue_ms for answer in scene.received(wire.Answer)] == [0.0, 0.0, 4000.0]


def test_beats_keep_their_distance(scene):
    """A client hears from the process every `BEAT_S`, not more often, however busy the loop is."""
    scene.received(wire.Beat)
    scene.now_s += serve.BEAT_S / 2
    scene.step()
    assert scene.received(wire.Beat) == []
    scene.now_s += serve.BEAT_S / 2
    scene.step()
    scene.step()
    assert len(scene.received(wire.Beat)) == 1


def test_a_batch_that_is_done_ends_the_wait(scene, monkeypatch):
    """The loop that waits for its next beat goes on as soon as a batch is done, with the answers."""
    monkeypatch.setattr(serve, "BEAT_S", 1_000.0)
    scene.now_s += 1.0
    scene.ask("utterance")
    scene.step()
    threading.Timer(0.0, scene.device.batches[0][0].set).start()
    while not (answers := scene.received(wire.Answer)):
        scene.server.turn()  # waits up to 1,000 s unless something wakes it: then the test runs into its time limit
    assert [answer.id for answer in answers] == ["utterance"]


def test_what_a_client_leaves_behind_is_dropped(scene):
    """A client that is gone when it is sent a beat is forgotten, with all that it had in the queue."""
    for number in range(5):
        scene.ask(f"utterance {number}")
        scene.step()
    assert len(scene.server._batcher) == 3
    scene.client.close()
    while scene.server._clients:  # ZeroMQ closes in a thread of its own: the beats after that cannot be sent
        scene.now_s += serve.BEAT_S
        scene.step()
    assert len(scene.server._batcher) == 0
    assert scene.server._requests == {}


def test_what_a_started_batch_raises_ends_the_process(scene):
    """A device that fails after the batch was started is not hidden."""
    scene.ask("utterance")
    scene.step()
    scene.device.batches[0][1].append(RuntimeError("an illegal memory access was encountered"))
    scene.end_batches(0)
    with pytest.raises(RuntimeError, match="illegal memory"):
        scene.step()
