"""Bugs that somebody could write tomorrow: the transaction in Kafka, and its projection into Redis."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

from callmood.worker.adapters.publish_kafka import KafkaStore
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.commits import Commit
from callmood.worker.run.ingest import Ingest
from callmood.worker.run.projector import Projector
from tests.simulation.kafka_side import SimConsumer
from tests.simulation.planting import around, planted
from tests.simulation.transactions import SimProducer, SimReader

# -- the transaction


@planted(25, "kafka")
def sends_are_not_checked() -> Iterator[None]:
    """Nobody asks whether the batches of a transaction have arrived."""

    def send(original, self, **record):
        original(self, **record)
        return SimpleNamespace(get=lambda **_: None)

    with around(SimProducer, "send", send):
        yield


@planted(85, "kafka")
def live_membership() -> Iterator[None]:
    """Offsets carry what the client says of itself now, which is nothing once it has been thrown out."""
    with patch.object(
        SimConsumer, "membership", property(lambda self: self.live_membership, lambda *_: None), create=True
    ):
        yield


@planted(12, "kafka")
def commit_while_joining() -> Iterator[None]:
    """Offsets carry the membership of before, which the broker may refuse: each end of a process makes all join."""

    def poll(original, self, timeout_ms):
        before = self.membership
        polled = original(self, timeout_ms)
        self.membership = self.membership or before
        return polled

    with around(SimConsumer, "poll", poll):
        yield


@planted(9, "kafka")
def offsets_before_results() -> Iterator[None]:
    """The watermark is committed by a transaction of its own, before the results."""

    def commit(original, self, commits):
        original(self, [Commit(c.source, c.watermark, c.time) for c in commits])
        return original(self, commits)

    with around(KafkaStore, "commit", commit):
        yield


@planted(3, "kafka")
def results_before_states() -> Iterator[None]:
    """Utterances are in one transaction, states and offsets in the next."""

    def commit(original, self, commits):
        keep = self._producer.send_offsets_to_transaction
        self._producer.send_offsets_to_transaction = lambda *_: None
        original(self, [Commit(c.source, c.watermark, c.time, c.utterances) for c in commits])
        self._producer.send_offsets_to_transaction = keep
        return original(self, [replace(c, utterances=()) for c in commits])

    with around(KafkaStore, "commit", commit):
        yield


@planted(24, "kafka")
def the_name_is_not_taken_over() -> Iterator[None]:
    """A producer goes on under a name that its predecessor still uses: the older one is not fenced."""

    def init(_, self):
        epochs = self._world.broker._epochs
        self._epoch = epochs.setdefault(self._name, 1)

    def join(original, self, timeout_ms):
        self._group.is_member = lambda _: True
        return original(self, timeout_ms)

    with around(SimProducer, "init_transactions", init), around(SimConsumer, "poll", join):
        yield


# -- taking over


def _ends_are_stable():
    def ends(original, self, sources, timeout_ms):
        self._sees_open = False
        return original(self, sources, timeout_ms)

    return around(SimReader, "end_offsets", ends)


@planted(5, "kafka")
def states_up_to_the_stable_end_only() -> Iterator[None]:
    """States behind what a dead owner left open are not read, although they are committed."""
    with _ends_are_stable():
        yield


@planted(152, "kafka")
def what_is_open_is_not_waited_for() -> Iterator[None]:
    """A takeover goes by what is committed, while a zombie may still commit more."""

    def committed(_, self, source, *, timeout_ms):
        return self._group.committed.get(source) if timeout_ms else None

    with around(SimConsumer, "committed", committed), _ends_are_stable():
        yield


@planted(3, "kafka")
def partition_is_kept_on_revoke() -> Iterator[None]:
    """What was in memory of a partition that went away and came back is used again."""
    kept = {}

    def drop(original, self, source):
        kept[id(self), source] = self._partitions.get(source) or kept.get((id(self), source))
        original(self, source)

    def restore(original, self):
        before = set(self._partitions)
        original(self)
        for source in self._partitions.keys() - before:
            self._partitions[source] = kept.get((id(self), source)) or self._partitions[source]

    with around(Ingest, "_drop", drop), around(Ingest, "_restore_one", restore):
        yield


# -- the projection


@planted(23, "both")
def projection_starts_at_the_groups_offset() -> Iterator[None]:
    """The projector goes on where its group stands, not where Redis does."""

    def start(original, self, source, _):
        original(self, source, self._positions[source])

    with around(SimConsumer, "start", start):
        yield


@planted(4, "both")
def projected_position_is_stored_first() -> Iterator[None]:
    """The position of the projection moves before its data."""

    def commit(original, self, commits):
        moved = original(self, [Commit(c.source, c.watermark, c.time) for c in commits])
        return moved if moved.fenced or moved.failure else original(self, commits)

    with around(RedisStore, "commit", commit):
        yield


@planted(12, "both")
def idle_projections_are_not_confirmed() -> Iterator[None]:
    """A failover that lost the last writes of a quiet topic is never noticed."""

    def done(original, self, commit):
        original(self, commit)
        self._confirm_s.clear()

    with around(Projector, "_done", done):
        yield


@planted(14, "both")
def a_partition_that_came_back_is_not_claimed() -> Iterator[None]:
    """A partition that was taken and given back between two looks is forgotten."""

    def follow(original, self):
        original(self)
        for source in getattr(self, "_before", set()):
            self._claiming.pop(source, None)
        self._before = getattr(self, "_before", set()) | set(self._sources)

    with around(Projector, "_follow_changes", follow):
        yield
