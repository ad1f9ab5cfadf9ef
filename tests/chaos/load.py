"""`python -m tests.chaos.load --run FILE`: the calls of the seed in real time, as a telephony gateway would send them.

Beside them a hostile producer sends records that break the contract; where they are is in a file, for the verifier.
Calls begin until there are as many as the run wants, and the runner has said that it is enough.
Every record is acknowledged by all in-sync replicas before the program ends; it ends with 1 if one never was.
"""

import heapq
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
from kafka import KafkaProducer

from callmood.bench.odd_records import bad_record_to_send
from tests.chaos.config import ENOUGH, ODD, Run, parser
from tests.chaos.telephone import Plan, plans, ticker

_DELIVERY_MS = 900_000
_FLUSH_S = 900
_TICKS_MORE = 18  # after a hole of more than 10 s the clock of a partition follows ticks that have lasted for 10 s
_ODD_SHARE, _LARGE_SHARE = 0.05, 0.1
_ODD_AGES_MS = (0, 0, 0, 10_800_000, None)  # None: the beginning of 1970; the broker refuses the future


class Load:
    """Plays the plans; a slot is a telephone line, which has one call after the other."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plans = plans(run.seed, run.chunk_ms)
        self._begun = 0
        self._random = np.random.default_rng(run.seed)
        self._hostile = Random(run.seed)
        self._unacknowledged: deque[Any] = deque()
        self._odd: list[Any] = []
        self._journal = run.file("journal.jsonl").open("a", buffering=1)
        self._producer = KafkaProducer(
            bootstrap_servers=run.bootstrap_servers.split(","),
            acks="all",
            linger_ms=5,
            delivery_timeout_ms=_DELIVERY_MS,
            request_timeout_ms=10_000,
            max_block_ms=_DELIVERY_MS,
            allow_auto_create_topics=False,
        )

    def play(self) -> None:
        """All calls, and the wait for the last acknowledgement."""
        now_s = time.time()
        lines = [(now_s + self._random.uniform(0, 8), line, iter(())) for line in range(self._run.concurrency)]
        heapq.heapify(lines)
        while lines:
            due_s, line, records = heapq.heappop(lines)
            time.sleep(max(0.0, due_s - time.time()))
            due_s = next(records, None)
            if due_s is None:
                if self._begun >= self._run.calls and self._run.file(ENOUGH).exists():
                    continue
                records = self._call(next(self._plans), time.time() + self._random.uniform(0.1, 2.0))
                self._begun += 1
                due_s = next(records)
            heapq.heappush(lines, (due_s, line, records))
        self._note("calls", self._begun)
        self._tick()
        self._producer.flush(timeout=_FLUSH_S)
        for future in self._unacknowledged:
            future.get(timeout=0)
        places = [future.get(timeout=0) for future in self._odd]
        self._run.file(ODD).write_text(json.dumps([(place.partition, place.offset) for place in places]))

    def _tick(self) -> None:
        """Let each partition's clock run on until the calls that nobody ended have been idle for long enough."""
        begin_s = round(time.time())
        for seq in range(self._run.idle_s + _TICKS_MORE):
            event = "end" if seq == self._run.idle_s + _TICKS_MORE - 1 else "start"
            for partition in range(self._run.partitions):
                headers = {"schema": "callmood.audio/1", "event": event, "stream": "0", "seq": str(seq)}
                self._producer.send(
                    self._run.topic("audio"),
                    key=ticker(self._run.seed, partition).encode(),
                    headers=[(name, text.encode()) for name, text in headers.items()],
                    partition=partition,
                    timestamp_ms=(begin_s + seq) * 1000,
                )

    def _call(self, plan: Plan, begin_s: float) -> Iterator[float]:
        """Yields when the next record is due, and sends it when it is asked for the one after."""
        self._note("begun", plan.call_id)
        for record in plan.records:
            yield begin_s + record.due_ms / 1000
            self._unacknowledged.append(
                self._producer.send(
                    self._run.topic("audio"),
                    key=plan.call_id.encode(),
                    value=record.value,
                    headers=[(name, text.encode()) for name, text in record.headers.items()],
                    timestamp_ms=round(begin_s * 1000 + record.capture_ms),
                )
            )
            if self._hostile.random() < _ODD_SHARE:
                self._harm(plan.call_id.encode())
        while self._unacknowledged and self._unacknowledged[0].is_done:
            self._unacknowledged.popleft().get(timeout=0)
        self._note("ended", plan.call_id)

    def _harm(self, near_key: bytes) -> None:
        """A record that breaks the contract, under any key and with any timestamp that the broker takes."""
        key, headers, value = bad_record_to_send(self._hostile, near_key, _LARGE_SHARE)
        age_ms = self._hostile.choice(_ODD_AGES_MS)
        timestamp_ms = 0 if age_ms is None else round(time.time() * 1000) - age_ms
        self._odd.append(self._producer.send(self._run.topic("audio"), value, key, headers, timestamp_ms=timestamp_ms))

    def _note(self, what: str, which: object) -> None:
        self._journal.write(json.dumps({"at_s": round(time.time(), 3), what: which}) + "\n")


def main() -> int:
    """Returns the exit code."""
    Load(parser(__doc__).parse_args().run).play()
    return 0


if __name__ == "__main__":
    sys.exit(main())
