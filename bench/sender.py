"""Sends the voices of the example calls to Kafka in real time."""

import time
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from kafka import KafkaProducer

from callmood.bench.ingest import Load, records_of
from callmood.worker.adapters.kafka_client import connection
from callmood.worker.errors import ConfigurationError
from callmood.worker.g711 import encode_pcmu
from callmood.worker.settings import Settings

_EXAMPLES: Final = Path(__file__).parents[2] / "examples" / "calls"


def voices() -> bytes:
    """The example calls one after the other: PCMU at 8 kHz, customer and agent interleaved."""
    heard = [soundfile.read(path, dtype="int16", always_2d=True)[0] for path in sorted(_EXAMPLES.glob("*.flac"))]
    if not heard:
        raise ConfigurationError(f"{_EXAMPLES} has no example calls: run this in the repository")
    return encode_pcmu(np.ascontiguousarray(np.concatenate(heard)).reshape(-1))


def send(load: Load, speech: bytes, configured: Settings, name: str) -> float:
    """Send the calls in real time, each record once it is complete; returns how late the sender was at most, ms."""
    producer = KafkaProducer(**connection(configured.kafka), linger_ms=5)
    began_s, start_ms, first_ms, late_s = time.monotonic(), round(time.time() * 1000), 0, 0.0
    for record in records_of(load, speech):
        first_ms = first_ms or record.timestamp_ms
        at_ms = record.timestamp_ms - first_ms
        wait_s = began_s + (at_ms + load.chunk_ms) / 1000 - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        late_s = max(late_s, -wait_s)
        key = (record.key or b"") + f"-{name}".encode()
        producer.send(
            configured.kafka.audio_topic, record.value, key, list(record.headers), timestamp_ms=start_ms + at_ms
        )
    producer.flush()
    producer.close()
    return late_s * 1000
