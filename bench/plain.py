"""What people write without callmood: one loop of kafka-python, webrtcvad, and transformers' pipeline per utterance.

`callmood bench capacity` starts it, to compare: `python -m callmood.bench.plain MODEL`, where MODEL is a Hugging Face
folder, or `none` for the loop without a model. It cuts an utterance after half a second of silence, as callmood does,
labels it, and adds it to a stream in Redis. It has no order of records, no gaps, no state, no commit and no second
process.
"""

import json
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import soxr
import transformers
import webrtcvad
from kafka import KafkaConsumer

from callmood.redis_address import connect
from callmood.schemas.common import Encoding
from callmood.schemas.keys import Keys
from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection
from callmood.worker.adapters.redis_client import redis_address
from callmood.worker.g711 import to_s16
from callmood.worker.model.checkpoints import RATE_HZ
from callmood.worker.settings import Settings

STREAM: Final = "plain"
"""Name of the key that it writes to."""
NO_MODEL: Final = "none"

_FRAME_MS: Final = 20
_FRAME_BYTES: Final = 8 * _FRAME_MS * 2
_SILENT_FRAMES: Final = 25
_MIN_FRAMES: Final = 12
_PADDING_FRAMES: Final = 5
"""Of the silence, that the model gets as well."""


class Ended(NamedTuple):
    """An utterance: PCM of 16 bits at 8 kHz, and the time of its last word in ms since 1970."""

    pcm: bytes
    last_word_ms: float


class Channel:
    """The speech of one call: frames since the first voiced one."""

    def __init__(self) -> None:
        self._vad = webrtcvad.Vad(2)
        self._frames: list[bytes] = []
        self._silent = 0
        self._last_word_ms = 0.0

    def feed(self, pcm: bytes, at_ms: float) -> Ended | None:
        """Take a record of PCM at 8 kHz, captured from this time on; the utterance that it ends."""
        ended = None
        for number in range(len(pcm) // _FRAME_BYTES):
            frame = pcm[number * _FRAME_BYTES : (number + 1) * _FRAME_BYTES]
            is_voiced = self._vad.is_speech(frame, 8_000)
            if is_voiced:
                self._silent, self._last_word_ms = 0, at_ms + (number + 1) * _FRAME_MS
            elif self._frames:
                self._silent += 1
            if is_voiced or self._frames:
                self._frames.append(frame)
            if self._silent >= _SILENT_FRAMES:
                if len(self._frames) - self._silent >= _MIN_FRAMES:
                    heard = self._frames[: len(self._frames) - self._silent + _PADDING_FRAMES]
                    ended = Ended(b"".join(heard), self._last_word_ms)
                self._frames, self._silent = [], 0
        return ended


class Channels:
    """The speech of all calls."""

    def __init__(self) -> None:
        self._channels: dict[bytes, Channel] = {}

    def feed(self, key: bytes, value: bytes, at_ms: float) -> Ended | None:
        """Take a record of PCMU of this call, captured from this time on; the utterance that it ends."""
        pcm = to_s16(Encoding.PCMU, value).tobytes()
        return self._channels.setdefault(key, Channel()).feed(pcm, at_ms)


def labeller(model: str) -> Callable[[bytes], str]:
    """What labels PCM at 8 kHz with the model in this folder; without a model, nothing is computed."""
    if model == NO_MODEL:
        return lambda _: ""
    classify = transformers.pipeline("audio-classification", model, device="cpu")

    def label(pcm: bytes) -> str:
        wave = soxr.resample(np.frombuffer(pcm, np.int16).astype(np.float32) / 32_768, 8_000, RATE_HZ)
        best: str = classify(wave, top_k=1)[0]["label"]
        return best

    return label


def writer(configured: Settings) -> Callable[[bytes, float, str], None]:
    """What adds call, time of the last word, and label to the stream in Redis."""
    redis = connect(redis_address(configured.redis), timeout_s=configured.redis.timeout_s)
    stream = Keys(configured.redis.prefix).named(STREAM)

    def write(key: bytes, last_word_ms: float, label: str) -> None:
        said = {"call_id": key.decode(), "last_word_ms": last_word_ms, "label": label}
        redis.xadd(stream, {"json": json.dumps(said)})

    return write


def main(model: str) -> None:
    """Read the audio topic of the settings for ever."""
    configured, channels, label = settings.load(), Channels(), labeller(model)
    write = writer(configured)
    consumer = KafkaConsumer(configured.kafka.audio_topic, **connection(configured.kafka), auto_offset_reset="latest")
    for record in consumer:
        ended = channels.feed(record.key, record.value, record.timestamp)
        if ended is not None:
            write(record.key, ended.last_word_ms, label(ended.pcm))


if __name__ == "__main__":
    main(sys.argv[1])
