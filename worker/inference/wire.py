"""Messages between an ingest process and the inference process: one msgpack array per ZeroMQ message."""

from dataclasses import dataclass
from typing import Any

import msgpack

from callmood.schemas.common import Encoding
from callmood.worker.records import ModelInfo, Prediction


@dataclass(frozen=True, slots=True)
class Hello:
    """A client that wants beats."""


@dataclass(frozen=True, slots=True)
class Request:
    """An utterance for the model: one channel in its native codec."""

    id: str
    encoding: Encoding
    rate_hz: int
    audio: bytes

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return len(self.audio) / self.encoding.bytes_per_sample / self.rate_hz


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life of the inference process.

    Attributes:
        model: None until it is loaded and warm.
        busy_s: how long the model's thread has been at its current batch; 0 when it is idle.
        padding: share of padding in recent batches.
        rechecked: share of recent utterances that were computed twice.
    """

    model: ModelInfo | None
    busy_s: float
    padding: float = 0.0
    rechecked: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to the request `id`."""

    id: str
    prediction: Prediction


Message = Hello | Request | Beat | Answer


def pack(message: Message) -> bytes:
    """Bytes of a message."""
    fields: tuple[Any, ...]
    match message:
        case Hello():
            fields = ("hello",)
        case Request():
            fields = ("request", message.id, message.encoding.value, message.rate_hz, message.audio)
        case Beat(model=model):
            info = model and (model.id, model.version, model.digest)
            fields = ("beat", info, message.busy_s, message.padding, message.rechecked)
        case Answer(id=id_, prediction=found):
            fields = ("answer", id_, found.probabilities, found.reason, found.queue_ms, found.inference_ms)
    packed: bytes = msgpack.packb(fields)
    return packed


def unpack(data: bytes) -> Message:
    """The message of `data`.

    Raises:
        ValueError: another program wrote it.
    """
    match msgpack.unpackb(data, use_list=False):
        case ("hello",):
            return Hello()
        case ("request", id_, encoding, rate_hz, audio):
            return Request(id_, Encoding(encoding), rate_hz, audio)
        case ("beat", model, busy_s, padding, rechecked):
            return Beat(ModelInfo(*model) if model else None, busy_s, padding, rechecked)
        case ("answer", id_, probabilities, reason, queue_ms, inference_ms):
            return Answer(id_, Prediction(probabilities, reason, queue_ms, inference_ms))
        case other:
            raise ValueError(f"not a message of callmood: {type(other).__name__}")
