"""The simulated Kafka's transactions: output topics, their coordinator, and the clients of one worker process.

Modelled on what brokers do and on what kafka-python 3.0.12 does wrong: a batch that fails does not fail its
transaction, a commit may be told done although the broker has aborted, offsets that were refused go along with the
next transaction of the same producer, and a member that says nothing of itself is not checked.
"""
# ruff: noqa: D102 - methods mean what those of the real ones mean

from dataclasses import dataclass, field
from types import SimpleNamespace

from kafka.errors import CommitFailedError, KafkaError, KafkaTimeoutError, ProducerFencedError

from callmood.worker.commits import TopicPartition
from callmood.worker.records import Position, Record
from tests.simulation.kafka_side import Group, Membership

TRANSACTION_S = 8.0
"""Longer than a session: a dead owner's transaction may outlive its successor's first commits."""


@dataclass
class Transaction:
    """What one producer does at once; `state` is open, committed or aborted."""

    began_s: float
    state: str = "open"
    logs: set[TopicPartition] = field(default_factory=set)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    group: Group | None = None


class OutputLog:
    """One partition of an output topic. The marks that end transactions take offsets too."""

    begin = 0

    def __init__(self, source: TopicPartition) -> None:
        self._source = source
        self._entries: list[tuple[Transaction, Record | None]] = []

    def append(self, transaction: Transaction, key: bytes | None = None, value: bytes | None = None) -> None:
        """A record, or (without a key) the mark."""
        offset = Position(*self._source, len(self._entries))
        record = None if key is None else Record(offset, key, value, (), round(transaction.began_s * 1000))
        self._entries.append((transaction, record))

    @property
    def newest(self) -> int:
        """The offset after all there is, open transactions included."""
        return len(self._entries)

    def end_at(self, _: float) -> int:
        """The last stable offset: what is open hides all behind it."""
        return next((n for n, (txn, _) in enumerate(self._entries) if txn.state == "open"), len(self._entries))

    def read(self, offset: int, now_s: float, limit: int) -> tuple[list[Record], int]:
        """Committed records only."""
        end = min(self.end_at(now_s), offset + limit)
        entries = self._entries[offset:end]
        return [record for txn, record in entries if record and txn.state == "committed"], max(offset, end)


class Broker:
    """The transaction coordinator and the output topics."""

    def __init__(self, world, topics: list[str], partitions: list[int]) -> None:
        self.logs = {
            source: OutputLog(source) for topic in topics for source in (TopicPartition(topic, n) for n in partitions)
        }
        self._world = world
        self._epochs: dict[str, int] = {}
        self._open: dict[str, Transaction] = {}

    def init(self, name: str) -> int:
        """A producer takes its name over: who had it before is fenced, and what it left open is aborted."""
        self._end(name, "aborted")
        self._epochs[name] = self._epochs.get(name, 0) + 1
        return self._epochs[name]

    def transaction(self, name: str, epoch: int) -> Transaction:
        self._check(name, epoch)
        return self._open.setdefault(name, Transaction(self._world.now_s))

    def add_offsets(
        self, name: str, epoch: int, offsets: dict[TopicPartition, int], membership: Membership, group: Group
    ) -> None:
        transaction = self.transaction(name, epoch)
        if not group.is_member(membership):
            assert not group.is_in(membership), "a member has committed while it joins: its process ends for nothing"
            raise CommitFailedError("simulated: no member of the group")
        transaction.offsets |= offsets
        transaction.group = group

    def end(self, name: str, epoch: int, state: str) -> None:
        self._check(name, epoch)
        self._end(name, state)

    def expire(self) -> None:
        """What is open for too long is aborted, and its producer fenced."""
        for name, transaction in list(self._open.items()):
            if self._world.now_s - transaction.began_s > TRANSACTION_S:
                self._world.note(name, "transaction expired")
                self.init(name)

    def holds_offset(self, source: TopicPartition) -> bool:
        """Whether an open transaction has an offset of this partition."""
        return any(source in transaction.offsets for transaction in self._open.values())

    def _check(self, name: str, epoch: int) -> None:
        if self._epochs[name] != epoch:
            raise ProducerFencedError("simulated: another producer has this name")

    def _end(self, name: str, state: str) -> None:
        transaction = self._open.pop(name, None)
        if transaction is None:
            return
        transaction.state = state
        for source in sorted(transaction.logs):
            self.logs[source].append(transaction)
        if state == "committed" and transaction.group is not None:
            transaction.group.committed |= transaction.offsets


class SimProducer:
    """Stands where the store's `KafkaProducer` stands."""

    def __init__(self, world, life, name: str) -> None:
        self._world = world
        self._life = life
        self._name = name
        self._epoch = 0
        self._has_failed = False
        self._has_lost_batch = False
        self._offsets: dict[TopicPartition, int] = {}

    def init_transactions(self) -> None:
        self._world.point(self._life, "init")
        self._epoch = self._world.broker.init(self._name)

    def begin_transaction(self) -> None:
        self._refuse()
        self._has_lost_batch = False
        self._world.point(self._life, "begun")

    def send(self, *, topic: str, partition: int, key: bytes, value: bytes | None, headers=()) -> SimpleNamespace:
        assert isinstance(headers, tuple | list)
        self._refuse()
        self._world.point(self._life, "send")
        try:
            transaction = self._world.broker.transaction(self._name, self._epoch)
        except KafkaError as error:
            self._has_failed = True
            return _future(error)
        if self._world.dice(self._world.faults.lost_batch):
            self._has_lost_batch = True
            return _future(KafkaTimeoutError("simulated: batch expired"))
        source = TopicPartition(topic, partition)
        transaction.logs.add(source)
        self._world.broker.logs[source].append(transaction, key, value)
        return _future(None)

    def flush(self, timeout: float) -> None:
        assert timeout > 0
        self._world.point(self._life, "flush")

    def send_offsets_to_transaction(self, offsets, membership: Membership) -> None:
        self._refuse()
        self._world.point(self._life, "offsets")
        self._offsets |= {TopicPartition(*source): int(offset.offset) for source, offset in offsets.items()}
        world = self._world
        try:
            world.broker.add_offsets(self._name, self._epoch, self._offsets, membership, world.group)
        except KafkaError:
            self._has_failed = True
            raise
        self._offsets = {}
        world.point(self._life, "offsets sent")

    def commit_transaction(self) -> None:
        self._refuse()
        self._world.point(self._life, "commit")
        is_told_done_but_aborted = self._has_lost_batch and self._world.random.random() < 0.5
        self._world.broker.end(self._name, self._epoch, "aborted" if is_told_done_but_aborted else "committed")
        self._world.note(self._life.name, "transaction")
        self._world.point(self._life, "committed")

    def abort_transaction(self) -> None:
        """Not used by the worker; a planted bug may."""
        self._has_failed = False
        self._world.broker.end(self._name, self._epoch, "aborted")

    def _refuse(self) -> None:
        if self._has_failed:
            raise KafkaError("simulated: the producer is in an error state")


class SimReader:
    """Stands where the store's consumers without a group stand."""

    def __init__(self, world, life, *, sees_open: bool) -> None:
        self._world = world
        self._life = life
        self._sees_open = sees_open
        self._at: dict[TopicPartition, int] = {}

    def assign(self, sources) -> None:
        self._at = {TopicPartition(*source): 0 for source in sources}

    def seek(self, source, offset: int) -> None:
        self._at[TopicPartition(*source)] = offset

    def seek_to_beginning(self, source) -> None:
        self._at[TopicPartition(*source)] = 0

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {source.partition for source in self._world.broker.logs if source.topic == topic}

    def end_offsets(self, sources, timeout_ms: int) -> dict[TopicPartition, int]:
        assert timeout_ms > 0
        self._world.point(self._life, "ends")
        logs = {source: self._world.broker.logs[TopicPartition(*source)] for source in sources}
        return {s: log.newest if self._sees_open else log.end_at(self._world.now_s) for s, log in logs.items()}

    def position(self, source, timeout_ms: int) -> int:
        assert timeout_ms > 0
        return self._at[TopicPartition(*source)]

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        assert timeout_ms > 0
        polled = {}
        for source, at in self._at.items():
            polled[source], self._at[source] = self._world.broker.logs[source].read(at, self._world.now_s, 1000)
        if not any(polled.values()):
            self._world.read_waits(self._life)
        return polled


def _future(error: Exception | None) -> SimpleNamespace:
    def get(timeout: float) -> None:
        assert timeout >= 0
        if error is not None:
            raise error

    return SimpleNamespace(get=get)
