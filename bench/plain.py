"""What people write without callmood: one loop of kafka-python, webrtcvad, and transformers' pipeline per utterance.

`callmood bench latency` starts it, to compare. It cuts an utterance after half a second of silence, as callmood does,
labels it with the demo model in transformers' own class, and adds it to a stream in Redis. It has no order of records,
no gaps, no state, no commit and no second process.
"""

import json
import sys
from typing import Any, Final

import numpy as np
import soxr
import torch
import transformers
import webrtcvad
from kafka import KafkaConsumer

from callmood.redis_address import connect
from callmood.schemas.common import EMOTIONS, Encoding
from callmood.worker import settings
from callmood.worker.adapters.kafka_client import connection
from callmood.worker.adapters.redis_client import redis_address
from callmood.worker.g711 import to_s16
from callmood.worker.model.checkpoints import DEMO_FOLDER, RATE_HZ
from callmood.worker.model.model import load

_FRAME_MS: Final = 20
_FRAME_BYTES: Final = 8 * _FRAME_MS * 2
_SILENT_FRAMES: Final = 25
_MIN_FRAMES: Final = 12


def classifier() -> Any:
    """The demo model as transformers' pipeline: its projector is the identity, so the logits are the same."""
    model = load(DEMO_FOLDER)
    size = model.encoder.config.hidden_size
    config = type(model.encoder.config)(
        **model.encoder.config.to_dict()
        | {
            "classifier_proj_size": size,
            "id2label": dict(enumerate(map(str, EMOTIONS))),
            "use_weighted_layer_sum": False,
        }
    )
    theirs = transformers.HubertForSequenceClassification(config).eval()
    theirs.hubert.load_state_dict(model.encoder.state_dict())
    with torch.no_grad():
        theirs.projector.weight.copy_(torch.eye(size))
        theirs.projector.bias.zero_()
        theirs.classifier.weight.copy_(next(model.head.parameters()))
        theirs.classifier.bias.zero_()
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=model.spec.normalize, return_attention_mask=True)
    return transformers.pipeline("audio-classification", theirs, feature_extractor=extractor, device="cpu")


class Channel:
    """The speech of one call: frames since the first voiced one."""

    def __init__(self) -> None:
        self._vad = webrtcvad.Vad(2)
        self._frames: list[bytes] = []
        self._silent = 0
        self._last_word_ms = 0.0

    def feed(self, pcm: bytes, at_ms: float) -> tuple[bytes, float] | None:
        """Take a record of PCM at 8 kHz, captured from this time on; an utterance that it ends, and its last word."""
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
                    ended = b"".join(self._frames), self._last_word_ms
                self._frames, self._silent = [], 0
        return ended


def main(stream: str) -> None:
    """Read the audio topic of the settings for ever; write to this stream."""
    configured = settings.load()
    classify = classifier()
    consumer = KafkaConsumer(configured.kafka.audio_topic, **connection(configured.kafka), auto_offset_reset="latest")
    redis = connect(redis_address(configured.redis), timeout_s=configured.redis.timeout_s)
    channels: dict[bytes, Channel] = {}
    for record in consumer:
        pcm = to_s16(Encoding.PCMU, record.value).tobytes()
        ended = channels.setdefault(record.key, Channel()).feed(pcm, record.timestamp)
        if ended is None:
            continue
        utterance, last_word_ms = ended
        wave = soxr.resample(np.frombuffer(utterance, np.int16).astype(np.float32) / 32_768, 8_000, RATE_HZ)
        best = classify(wave, top_k=1)[0]
        said = {"call_id": record.key.decode(), "last_word_ms": last_word_ms, "label": best["label"]}
        redis.xadd(stream, {"json": json.dumps(said)})


if __name__ == "__main__":
    main(sys.argv[1])
