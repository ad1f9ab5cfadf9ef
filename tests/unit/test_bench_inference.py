"""The benchmark of the inference process: what it sends and when, and what it counts."""

import os
from types import SimpleNamespace

import pytest
import zmq

from callmood.bench import inference
from callmood.bench.inference import Result, Said
from callmood.schemas.common import Encoding
from callmood.worker.errors import CallmoodError
from callmood.worker.inference import wire
from callmood.worker.inference.submit import InferenceClient

VOICES = [Said(Encoding.PCMU, 8000, bytes([number])) for number in range(3)]


class _Client:
    """Answers every utterance at the next look, but not those it is told to lose."""

    def __init__(self, lost=()):
        self.asked, self.sent, self.lost = [], [], lost
        self.model = None

    def submit(self, key, said):
        self.sent.append(said)
        self.asked.append(key)

    def collect(self):
        asked, self.asked = self.asked, []
        return [(key, None) for key in asked if int(key) not in self.lost]


def test_voices_are_sent_in_turn_at_a_steady_rate():
    """Twenty in a second, each answered after its moment."""
    client = _Client()
    result = inference.measure(client, os.getpid(), VOICES, 1_200, 1)
    assert client.sent == (VOICES * 7)[:20]
    assert (result.per_minute, result.unanswered) == (1_200, 0)
    assert len(result.took_ms) == 20
    assert min(result.took_ms) >= 0


def test_the_workers_client_reads_no_more_of_an_utterance(tmp_path):
    """What is sent in its place arrives as a request."""
    address = f"ipc://{tmp_path}/socket"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(address)
        client = InferenceClient(address)
        client.submit("1", VOICES[1])
        received = [wire.unpack(router.recv_multipart()[1]) for _ in range(2)]
        client.close()
    assert received == [wire.Hello(), wire.Request("1", Encoding.PCMU, 8_000, b"\1")]


def test_what_is_not_answered_is_counted(monkeypatch):
    """After the last was sent, it waits for a while and not for ever."""
    monkeypatch.setattr(inference, "_LAST_S", 0.2)
    assert inference.measure(_Client(lost={3, 5}), os.getpid(), VOICES, 1_200, 1).unanswered == 2


def test_the_line_has_percentiles():
    """Of the answers; without one, they are infinite."""
    assert str(Result(20_000.0, 0, 0.25, [1.0, 2.0, 3.0])) == (
        "20,000 utterances a minute, 0 unanswered: 25.0 % of a core, answers after 2.0 ms (p50), 3.0 ms (p99)"
    )
    assert "inf ms (p99)" in str(Result(60.0, 1, 0.0, []))


def test_a_process_that_ends_is_reported():
    """Instead of waiting for a model that never answers."""
    with pytest.raises(CallmoodError, match="does not start"):
        inference.wait_until_ready(_Client(), SimpleNamespace(exit_code=1))
