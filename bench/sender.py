"""Sends the voices of the example calls to Kafka in real time."""

import time
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from kafka import KafkaProducer

from callmood.bench.ingest import Load, headers_of, records_of
from callmood.schemas.common import Event
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


_BATCHES: Final = {"linger_ms": 20, "batch_size": 262_144}
"""Records of 20 ms go together: on the machine that is measured, the sender must cost little."""
_ASKED: Final = 100
"""The time until Kafka has a record is measured for one in so many, about."""


def send(load: Load, speech: bytes, configured: Settings, name: str) -> float:
    """Send the calls in real time, each record once it is complete.

    Returns:
        How long after its time a record was sent, or Kafka had one of those that were asked for, at most, ms.
    """
    producer = KafkaProducer(**connection(configured.kafka), **_BATCHES)
    began_s, start_ms, first_ms, late_s = time.monotonic(), round(time.time() * 1000), 0, [0.0]
    for number, record in enumerate(records_of(load, speech)):
        first_ms = first_ms or record.timestamp_ms
        at_ms = record.timestamp_ms - first_ms
        due_s = began_s + (at_ms + load.chunk_ms) / 1000
        if (wait_s := due_s - time.monotonic()) > 0:
            time.sleep(wait_s)
        late_s[0] = max(late_s[0], -wait_s)
        key = (record.key or b"") + f"-{name}".encode()
        sent = producer.send(
            configured.kafka.audio_topic, record.value, key, list(record.headers), timestamp_ms=start_ms + at_ms
        )
        if number % (_ASKED + 1) == 0:
            sent.add_callback(lambda _, due_s=due_s: late_s.append(time.monotonic() - due_s))
    producer.flush()
    producer.close()
    return max(late_s) * 1000


def end(load: Load, configured: Settings, name: str) -> None:
    """End the calls that were sent under this name."""
    with closing(KafkaProducer(**connection(configured.kafka), **_BATCHES)) as producer:
        for line in range(load.calls):
            headers = headers_of(Event.END, load, line, load.records // load.calls)
            producer.send(configured.kafka.audio_topic, b"", f"call-{line}-{name}".encode(), list(headers))
        producer.flush()
