"""The inference process's loop: batches overlap and keep their order, on a device that the test moves by hand."""

import threading
import time
from types import SimpleNamespace

import pytest
import zmq

from callmood.schemas.common import Encoding
from callmood.worker.inference import serve, wire
from callmood.worker.records import ModelInfo, Prediction
from callmood.worker.settings import ModelSettings

SURE = Prediction((0.7, 0.1, 0.1, 0.1), None)


class Device:
    """An engine on a device of which each batch is done when the test says so."""

    depth, batch_seconds, is_packed, rechecked = 2, 60.0, False, 0
    device, dtype = "cuda", "bf16"
    model = SimpleNamespace(info=ModelInfo("m", "1", "digest"))

    def __init__(self):
        self.batches = []

    def start(self, sounds):
        """As `Engine.start`."""
        done, fault = threading.Event(), []
        self.batches.append((done, fault))

        def collect():
            assert done.wait(20)
            if fault:
                raise fault[0]
            return [SURE] * len(sounds)

        return collect


@pytest.fixture
def device(monkeypatch):
    device = Device()
    monkeypatch.setattr(serve, "_open", lambda _: device)
    yield device
    for done, _ in device.batches:
        done.set()


@pytest.fixture
def server(device):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as client:
        for end in (router, client):
            end.setsockopt(zmq.LINGER, 0)
        router.bind("inproc://inference")
        client.connect("inproc://inference")
        client.send(wire.pack(wire.Hello()))
        with serve._Server(router, ModelSettings(max_wait_ms=0)) as server:
            yield SimpleNamespace(turn=server.turn, client=client)
            for done, _ in device.batches:
                done.set()


def ask(server, id_):
    server.client.send(wire.pack(wire.Request(id_, Encoding.PCMU, 8_000, bytes(8_000))))


def told(server, kind):
    """What the client has received of one kind since it last looked."""
    messages = []
    while server.client.poll(0):
        messages.append(wire.unpack(server.client.recv()))
    return [message for message in messages if isinstance(message, kind)]


def turn_until(server, holds):
    deadline_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline_s
        server.turn()


def turn_for(server, seconds):
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        server.turn()


def test_the_next_batch_is_started_while_one_runs(server, device):
    """Two are under way, never three; the first one's answers come first, and a batch that is done makes room."""
    for number in range(3):
        ask(server, f"utterance {number}")
        turn_until(server, lambda number=number: len(device.batches) == min(number + 1, 2))
    turn_for(server, 0.3)
    assert len(device.batches) == 2
    device.batches[1][0].set()
    turn_for(server, 0.3)
    assert told(server, wire.Answer) == []
    device.batches[0][0].set()
    turn_until(server, lambda: len(device.batches) == 3)
    turn_for(server, 0.3)
    assert [answer.id for answer in told(server, wire.Answer)] == ["utterance 0", "utterance 1"]


def test_a_batch_is_busy_from_when_the_one_before_it_was_done(server, device):
    """Waiting behind another is not hanging: the time in the beats begins again with each batch."""
    for number in range(2):
        ask(server, f"utterance {number}")
        turn_until(server, lambda number=number: len(device.batches) == number + 1)
    turn_for(server, 1.0)
    assert told(server, wire.Beat)[-1].busy_s > 0.6
    freed_s = time.monotonic()
    device.batches[0][0].set()
    turn_until(server, lambda: told(server, wire.Answer))
    turn_for(server, 2 * serve.BEAT_S)
    assert 0 < told(server, wire.Beat)[-1].busy_s < time.monotonic() - freed_s


def test_what_a_started_batch_raises_ends_the_process(server, device):
    """A device that fails after the batch was started is not hidden."""
    ask(server, "utterance")
    turn_until(server, lambda: device.batches)
    device.batches[0][1].append(RuntimeError("an illegal memory access was encountered"))
    device.batches[0][0].set()
    with pytest.raises(RuntimeError, match="illegal memory"):
        turn_for(server, 10)
