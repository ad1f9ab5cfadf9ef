"""How long a takeover lasts and how much audio it reads again, one at a time, under load."""

import time
from collections import Counter
from contextlib import closing, suppress
from statistics import median
from typing import TYPE_CHECKING

from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition

from callmood.worker.errors import BadRecord
from callmood.worker.intake import decode
from callmood.worker.records import Position, Record
from tests.chaos import look
from tests.chaos.fleet import SESSION_S, Restored
from tests.chaos.servers import wait_until

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

_LONGEST_MS = 5_000
_STEADY_S = 3.0
_TAKEN_S = 60.0
_AFTER_KILL_S, _REREAD_S, _DRAIN_S, _BEHIND_S = SESSION_S + 5.0, 30.0, 25.0, 3.0
"""What is promised; a drain may last as long as its setting, and a moment."""


class Takeovers:
    """Kills and orderly ends of workers that the others are given time to answer."""

    def __init__(self, scene: "Scene") -> None:
        self._scene = scene
        self.after_kill_s: list[float] = []
        """From kill -9 of a worker until the last of its partitions goes on elsewhere."""
        self.reread_s: list[float] = []
        """Audio of one stream between the record that a successor begins with and the newest at the kill, the most."""
        self.drain_s: list[float] = []
        """From SIGTERM to the worker's end."""
        self.behind_s: list[float] = []
        """From the last line of its last ingest process until the last of its partitions goes on elsewhere."""

    def measure(self, count: int) -> None:
        """This many kills and as many orderly ends, in turn."""
        for number in range(count):
            self._kill(number % 2)
            self._terminate((number + 1) % 2)

    def _kill(self, victim: int) -> None:
        owned = self._steady(victim)
        began_s = time.time()
        self._scene.fleet.kill(victim)
        ends = look.ends(self._scene.run, "audio")
        self._scene.note("kill worker")
        taken = self._taken(owned, began_s)
        self.after_kill_s.append(max(r.at_s for r in taken) - began_s)
        self.reread_s += [self._reread_s(r, ends[r.partition]) for r in taken]

    def _terminate(self, victim: int) -> None:
        owned = self._steady(victim)
        began_s = time.time()
        self.drain_s.append(self._scene.fleet.terminate(victim))
        self._scene.note("SIGTERM")
        taken = self._taken(owned, began_s)
        lines = self._scene.fleet.lines("drained")
        left_s = max((at_s for at_s, slot, _ in lines if slot == victim and at_s > began_s), default=began_s)
        self.behind_s.append(max(0.0, max(r.at_s for r in taken) - left_s))

    def _steady(self, victim: int) -> set[int]:
        """Wait until both workers have had their share for a while; returns the victim's."""
        fleet = self._scene.fleet

        def is_steady() -> bool:
            owners, newest = fleet.owners(), fleet.restored()[-1:]
            shared = len(owners) == self._scene.run.partitions and len(set(owners.values())) == len(fleet.numbers)
            rests = newest and time.time() - newest[0].at_s > _STEADY_S
            return bool(shared and rests and all(fleet.is_ready(number) for number in fleet.numbers))

        wait_until(is_steady, "both workers to have partitions", timeout_s=120)
        return {partition for partition, slot in fleet.owners().items() if slot == victim}

    def _taken(self, owned: set[int], since_s: float) -> list[Restored]:
        """The first takeover of each of these partitions since then."""
        found: dict[int, Restored] = {}

        def is_complete() -> bool:
            for restored in self._scene.fleet.restored():
                if restored.at_s > since_s and restored.partition in owned:
                    found.setdefault(restored.partition, restored)
            return found.keys() == owned

        wait_until(is_complete, "the partitions to be taken over", timeout_s=_TAKEN_S)
        return list(found.values())

    def _reread_s(self, restored: Restored, end: int) -> float:
        """The most audio of one stream that is read again: in the records from the watermark to the old end."""
        source = KafkaPartition(self._scene.run.topic("audio"), restored.partition)
        heard_s: Counter[tuple[str, str]] = Counter()
        with closing(KafkaConsumer(bootstrap_servers=self._scene.run.bootstrap_servers.split(","))) as consumer:
            consumer.assign([source])
            consumer.seek(source, restored.watermark)
            while consumer.position(source) < end:
                records = consumer.poll(timeout_ms=1_000).get(source, ())
                for record in (record for record in records if record.offset < end):
                    with suppress(BadRecord):  # from the hostile producer
                        position = Position(*source, record.offset)
                        read = Record(position, record.key, record.value, tuple(record.headers), record.timestamp)
                        chunk = decode.decode(read, input_format="headers", max_record_ms=_LONGEST_MS)
                        if chunk is not None and chunk.format is not None:
                            heard_s[chunk.call_id, chunk.stream] += chunk.samples / chunk.format.rate_hz
        return max(heard_s.values(), default=0.0)

    def _figures(self) -> dict[str, tuple[list[float], float]]:
        """Per name: what was measured, and the longest that is promised.

        A static member that ends keeps its partitions for the session timeout: it is expected back.
        """
        is_static = self._scene.fleet.has_static_members
        return {
            "calls go on after kill -9 of a worker": (self.after_kill_s, _AFTER_KILL_S),
            "audio read again by a successor": (self.reread_s, _REREAD_S),
            "SIGTERM to the worker's end": (self.drain_s, _DRAIN_S),
            "partitions go on after its last word": (self.behind_s, _AFTER_KILL_S if is_static else _BEHIND_S),
        }

    def rows(self) -> list[tuple[str, str]]:
        """For the table."""
        return [
            (name, f"median {median(values):.1f} s, worst {max(values):.1f} s, of {len(values)}; limit {limit_s:g} s")
            for name, (values, limit_s) in self._figures().items()
            if values
        ]

    def broken(self) -> list[str]:
        """Promises that were not kept."""
        return [
            f"{name}: {max(values):.1f} s, not {limit_s:g} s"
            for name, (values, limit_s) in self._figures().items()
            if values and max(values) > limit_s
        ]
