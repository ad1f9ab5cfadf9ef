"""Messages between an ingest process and the inference process: one msgpack array per ZeroMQ message."""

from dataclasses import astuple, dataclass
from typing import Any

import msgpack

from callmood.schemas.common import Encoding
from callmood.worker.records import ModelInfo, Prediction, Speech


@dataclass(frozen=True, slots=True)
class Hello:
    """A client that wants beats."""


@dataclass(frozen=True, slots=True)
class Request:
    """An utterance for the speech check and, if `wants_emotion`, for the model: one channel in its native codec.

    `ended_ms` is its end by the wall clock, ms since 1970.
    """

    id: str
    encoding: Encoding
    rate_hz: int
    audio: bytes
    wants_emotion: bool = True
    ended_ms: int = 0


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life of the inference process.

    Attributes:
        model: None until it is loaded and warm.
        busy_s: how long the process has been at its current batch or utterance; 0 when it is idle.
        padding: share of padding in recent batches.
        rechecked: share of recent utterances that were computed twice.
    """

    model: ModelInfo | None
    busy_s: float
    padding: float = 0.0
    rechecked: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the request `id`."""

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
            sound = (message.encoding.value, message.rate_hz, message.audio)
            fields = ("request", message.id, *sound, message.wants_emotion, message.ended_ms)
        case Beat(model=model):
            info = model and (model.id, model.version, model.digest)
            fields = ("beat", info, message.busy_s, message.padding, message.rechecked)
        case Answer(id=id_, prediction=found):
            speech = found.speech and astuple(found.speech)
            times_ms = (found.queue_ms, found.inference_ms)
            fields = ("answer", id_, found.probabilities, found.reason, *times_ms, speech, found.is_skipped)
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
        case ("request", id_, encoding, rate_hz, audio, wants_emotion, ended_ms):
            return Request(id_, Encoding(encoding), rate_hz, audio, wants_emotion, ended_ms)
        case ("beat", model, busy_s, padding, rechecked):
            return Beat(ModelInfo(*model) if model else None, busy_s, padding, rechecked)
        case ("answer", id_, probabilities, reason, queue_ms, inference_ms, speech, is_skipped):
            found = Speech(*speech) if speech else None
            return Answer(id_, Prediction(probabilities, reason, queue_ms, inference_ms, found, is_skipped))
        case other:
            raise ValueError(f"not a message of callmood: {type(other).__name__}")
