"""Bugs that a chaos run must find: each patches the worker in its own process. See `armed`."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from kafka import OffsetAndMetadata
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaError

from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.adapters.publish_kafka import KafkaStore
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.adapters.store import Committed
from callmood.worker.commits import Commit
from callmood.worker.errors import Fenced
from callmood.worker.run.ingest import Ingest
from tests.chaos.armed import IN_THE_GAP, reach

BUGS: dict[str, Callable[[], None]] = {}


def _bug(plant: Callable[[], None]) -> Callable[[], None]:
    BUGS[plant.__name__] = plant
    return plant


def _replace(owner: type, method: str, replacement: Callable[..., Any]) -> None:
    original = getattr(owner, method)

    @wraps(original)
    def call(self: Any, *args: Any, **more: Any) -> Any:
        return replacement(original, self, *args, **more)

    setattr(owner, method, call)


def _reach_gap(commits: list[Commit]) -> None:
    if any(commit.utterances for commit in commits):
        reach(IN_THE_GAP)


@_bug
def position_before_results() -> None:
    """The watermark is moved in Redis by a step of its own, before the results."""

    def commit(original: Any, self: Any, commits: list[Commit]) -> Any:
        moved = original(self, [Commit(c.source, c.watermark, c.time) for c in commits])
        _reach_gap(commits)
        return moved if moved.fenced or moved.failure else original(self, commits)

    _replace(RedisStore, "commit", commit)


@_bug
def fence_is_ignored() -> None:
    """A commit that was refused counts as done."""

    def commit(original: Any, self: Any, commits: list[Commit]) -> Any:
        committed = original(self, commits)
        return committed if committed.failure else Committed(tuple(commits))

    _replace(RedisStore, "commit", commit)


@_bug
def offsets_before_results() -> None:
    """Offsets are committed to the group on their own, and the results in a transaction after that."""

    def commit(original: Any, self: Any, commits: list[Commit]) -> Any:
        consumer = self._consumer._consumer
        consumer.commit({KafkaPartition(*c.source): OffsetAndMetadata(c.watermark, "", -1) for c in commits})
        _reach_gap(commits)
        return original(self, commits)

    _replace(KafkaStore, "commit", commit)


@_bug
def results_outside_the_transaction() -> None:
    """Utterances are in one transaction, states and offsets in another."""

    def commit(original: Any, self: Any, commits: list[Commit]) -> Any:
        said = [Commit(c.source, c.watermark, c.time, utterances=c.utterances) for c in commits]
        offsets, self._producer.send_offsets_to_transaction = self._producer.send_offsets_to_transaction, print
        original(self, said)
        self._producer.send_offsets_to_transaction = offsets
        return original(self, [Commit(c.source, c.watermark, c.time, (), c.alerts, c.calls) for c in commits])

    _replace(KafkaStore, "commit", commit)


@_bug
def producer_is_used_again() -> None:
    """A transaction that failed is given up, its producer goes on, and the commit counts as done."""

    def commit(original: Any, self: Any, commits: list[Commit]) -> Any:
        try:
            return original(self, commits)
        except Fenced as error:
            if not isinstance(error.__cause__, KafkaError):
                raise
            self._producer.abort_transaction()
            return Committed(tuple(commits))

    _replace(KafkaStore, "commit", commit)


@_bug
def live_membership() -> None:
    """Offsets carry what the group says of us now: nothing, once we are out, and the broker takes that unchecked."""
    membership = property(lambda self: self._consumer.group_metadata(), lambda *_: None)
    AudioConsumer.membership = membership  # type: ignore[assignment]  # that is the bug
    original = AudioConsumer.poll

    @wraps(original)
    def poll(self: Any, timeout_ms: int) -> Any:
        self._listener.is_lost = False  # without this, the process would end before it commits
        return original(self, timeout_ms)

    AudioConsumer.poll = poll


@_bug
def state_is_kept_on_revoke() -> None:
    """What was in memory of a partition that went to another and came back is used again."""
    kept: dict[Any, Any] = {}

    def drop(original: Any, self: Any, source: Any) -> None:
        kept[source] = self._partitions.get(source) or kept.get(source)
        original(self, source)

    def restore(original: Any, self: Any) -> None:
        before = set(self._partitions)
        original(self)
        for source in self._partitions.keys() - before:
            self._partitions[source] = kept.get(source) or self._partitions[source]

    _replace(Ingest, "_drop", drop)
    _replace(Ingest, "_restore_one", restore)


@_bug
def position_of_the_group() -> None:
    """Reading resumes at the group's own idea of the position, not at the store's."""

    def start(original: Any, self: Any, source: Any, offset: int) -> None:
        original(self, source, max(offset, self.position(source)))

    _replace(AudioConsumer, "start", start)
