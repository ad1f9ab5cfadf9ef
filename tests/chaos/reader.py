"""`python -m tests.chaos.reader --run FILE`: checks what a reader sees during the failures.

It only looks and writes down; `verify` judges. Ends on SIGTERM.
"""

import json
import signal
import sys
import threading
import time
from contextlib import closing
from typing import Any

import redis
from kafka import KafkaConsumer
from kafka.errors import KafkaError

from callmood.redis_address import connect
from callmood.schemas.keys import Keys
from tests.chaos.config import Run, parser

_LOOK_S = 0.2
_CALLS_A_LOOK = 5
_RETRY_S = 0.5


class Reader:
    """One thread for Kafka, one for Redis; each line of the history is one look."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stopping = threading.Event()
        self._history = run.file("history.jsonl").open("a", buffering=1)
        self._lock = threading.Lock()
        signal.signal(signal.SIGTERM, lambda *_: self._stopping.set())

    def read(self) -> None:
        """Until SIGTERM."""
        loops = [self._read_redis] if self._run.mode != "kafka" else []
        loops += [self._read_kafka] if self._run.mode != "redis" else []
        threads = [threading.Thread(target=loop) for loop in loops]
        for thread in threads:
            thread.start()
        while not self._stopping.wait(1.0):
            pass
        for thread in threads:
            thread.join()

    def _read_redis(self) -> None:
        keys = Keys(self._run.prefix)
        while not self._stopping.wait(_LOOK_S):
            try:
                with closing(connect(self._run.redis, timeout_s=2.0, decode_responses=True)) as client:
                    while not self._stopping.wait(_LOOK_S):
                        for call_id in client.zrevrange(keys.live_by("update"), 0, _CALLS_A_LOOK - 1):
                            self._look(client, keys, call_id)
            except redis.RedisError:
                time.sleep(_RETRY_S)

    def _look(self, client: Any, keys: Keys, call_id: str) -> None:
        """A call's hash and its stream at one moment."""
        with client.pipeline(transaction=True) as both:
            both.hgetall(keys.call(call_id))
            both.xrange(keys.utterances_of(call_id))
            fields, entries = both.execute()
        if fields:
            ids = [json.loads(entry["json"])["utterance_id"] for _, entry in entries]
            self._write({"call": call_id, "fields": fields, "ids": ids})

    def _read_kafka(self) -> None:
        topics = [self._run.topic("utterance"), self._run.topic("call")]
        consumer = KafkaConsumer(
            *topics,
            bootstrap_servers=self._run.bootstrap_servers.split(","),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            group_id=None,
        )
        with closing(consumer):
            while not self._stopping.is_set():
                try:
                    polled = consumer.poll(timeout_ms=500)
                except KafkaError:
                    time.sleep(_RETRY_S)
                    continue
                for source, records in polled.items():
                    for record in records:
                        self._write({"topic": source.topic, "at": [source.partition, record.offset]})

    def _write(self, line: dict[str, Any]) -> None:
        with self._lock:
            self._history.write(json.dumps({"t": round(time.time(), 3)} | line) + "\n")


def main() -> int:
    """Returns the exit code."""
    Reader(parser(__doc__).parse_args().run).read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
