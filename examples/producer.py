"""Sends a recorded call to Kafka in real time, as a telephony gateway does: `python examples/producer.py FILE CALL_ID`.

The file has two channels, customer and agent. schemas/README.md describes the records.
"""

import os
import sys
import time

import soundfile
from kafka import KafkaProducer

RECORD_MS = 200
TOPIC = os.environ.get("CALLMOOD_KAFKA__AUDIO_TOPIC", "callmood.audio")


def send_call(producer: KafkaProducer, path: str, call_id: str) -> None:
    """A start record, one record per 200 ms of audio, an end record."""
    started_ms = round(time.time() * 1000)

    def send(seq: int, media_ms: int, audio: bytes = b"", **fields: str) -> None:
        headers = {"schema": "callmood.audio/1", "seq": str(seq), "media_ms": str(media_ms), **fields}
        producer.send(
            TOPIC,
            key=call_id.encode(),  # all records of one call have the same key
            value=audio,
            headers=[(name, value.encode()) for name, value in headers.items()],
            timestamp_ms=started_ms + media_ms,  # capture time of the first sample
        )

    rate_hz = soundfile.info(path).samplerate
    media = {"encoding": "s16le", "rate": str(rate_hz), "layout": "customer,agent"}
    send(0, 0, event="start", notice="given")
    seq = 0
    for samples in soundfile.blocks(path, blocksize=rate_hz * RECORD_MS // 1000, dtype="int16"):
        time.sleep(RECORD_MS / 1000)
        seq += 1
        send(seq, RECORD_MS * (seq - 1), samples.tobytes(), **media)
    send(seq + 1, RECORD_MS * seq, event="end")
    producer.flush()


if __name__ == "__main__":
    file, call = sys.argv[1:]
    send_call(KafkaProducer(bootstrap_servers=os.environ["CALLMOOD_KAFKA__BOOTSTRAP_SERVERS"]), file, call)
