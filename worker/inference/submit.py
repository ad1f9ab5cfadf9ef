"""Utterances to the inference process, predictions back. Never blocks; one client per ingest process."""

import time

import zmq

from callmood.worker.inference import wire
from callmood.worker.records import ModelInfo, Prediction, Utterance


class InferenceClient:
    """The ingest process's end of the socket to the inference process.

    Args:
        address: `ipc://` path that the inference process binds; it may come up later.
        stall_s: longest silence, or time in one batch, of an inference process that counts as alive.

    Attributes:
        model: which model answers; None until it is loaded and warm.
        beat: the newest beat; None before the first.
    """

    def __init__(self, address: str, *, stall_s: float = 60.0) -> None:
        self.model: ModelInfo | None = None
        self.beat: wire.Beat | None = None
        self._stall_s = stall_s
        self._in_flight: set[str] = set()
        self._heard_s = time.monotonic()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)  # the caller bounds what is in flight
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.connect(address)
        self._socket.send(wire.pack(wire.Hello()))

    def submit(self, key: str, utterance: Utterance) -> None:
        """Send an utterance under a key of the caller's. A key that is in flight is not sent again."""
        if key in self._in_flight:
            return
        self._in_flight.add(key)
        sound = (utterance.encoding, utterance.rate_hz, utterance.audio)
        request = wire.Request(key, *sound, utterance.wants_emotion, utterance.capture_end_ms)
        self._socket.send(wire.pack(request))

    def collect(self) -> list[tuple[str, Prediction]]:
        """Take the answers since the last call: keys and predictions, in no particular order."""
        answers = []
        while self._socket.poll(0):
            match wire.unpack(self._socket.recv()):
                case wire.Answer(id=id_, prediction=prediction):
                    self._in_flight.discard(id_)
                    answers.append((id_, prediction))
                case wire.Beat() as beat:
                    self.beat = beat
                    self.model = beat.model
                    self._heard_s = time.monotonic()
        return answers

    def healthy(self, now_s: float) -> bool:
        """Whether the inference process beats and its model thread moves on, as of the last `collect`.

        Args:
            now_s: `time.monotonic()`.
        """
        busy_s = 0.0 if self.beat is None else self.beat.busy_s
        return busy_s + now_s - self._heard_s < self._stall_s

    def close(self) -> None:
        """Close the socket; the inference process forgets this client and what it had in flight."""
        self._socket.close()
        self._context.term()
