"""The store: results, call states and positions, committed together in Redis or in Kafka."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from callmood.worker.commits import Commit, Restored, TopicPartition
from callmood.worker.errors import ConfigurationError, StoreUnavailable


class Gone(NamedTuple):
    """What a store has lost of a partition, although it has its position."""

    has_lost_states: bool
    """States of calls: the owner must store all of them again."""
    silent_calls: int
    """Number of live calls whose earlier utterances are lost."""
    summaries: tuple[str, ...]
    """Live calls whose aggregate, or place in a list of live calls or open alerts, is gone: to be published again."""


class Committed(NamedTuple):
    """The outcome of one round of commits. A commit in neither list may not be durable: repeat it."""

    durable: tuple[Commit, ...]
    """The store has them."""
    fenced: tuple[TopicPartition, ...] = ()
    """Another owner has these partitions, or the store lost data of theirs: drop their work and claim them again."""
    failure: StoreUnavailable | None = None
    """Why the others must be repeated, exactly as they are."""
    gone: Mapping[TopicPartition, Gone] = {}
    """What the store has lost of partitions whose commits are durable."""


def not_ours(source: TopicPartition, field: str, found: str, apart: str) -> ConfigurationError:
    """The error for a stored position that belongs to another deployment.

    Args:
        source: the partition.
        field: the field of `Origin` that differs.
        found: what is stored.
        apart: what keeps two deployments apart.
    """
    if field == "topic_id":
        return ConfigurationError(
            f"topic {source.topic!r} is the topic of another cluster, or was deleted and created again: the stored "
            f"position and states belong to a topic with the id {found}. Delete them (schemas/redis.md), or set {apart}"
        )
    whose = f"consumer group {found!r}" if field == "group" else f"another Kafka cluster ({found})"
    return ConfigurationError(
        f"the stored position of {source.topic}/{source.partition} belongs to {whose}: two deployments must not share "
        f"it. Set {apart} for one of them; after a move, delete the old position and states (schemas/redis.md)"
    )


class Store(Protocol):
    """Where results and states are committed together."""

    moves_group_offsets: bool
    """Whether a commit moves the consumer group's offsets too; else they are moved afterwards, for display."""

    @property
    def can_commit(self) -> bool:
        """Whether this process may commit now, and take partitions over. If not, poll, and ask again."""

    def claim(self, source: TopicPartition) -> Restored:
        """Take over a partition: fence its earlier owner and return its stored states and position.

        Raises:
            StoreUnavailable: no answer for now.
            ConfigurationError: the position is another cluster's, another topic's or another group's.
        """

    def commit(self, commits: Sequence[Commit]) -> Committed:
        """Commit each partition atomically, one commit for each. Repeat one that is not durable, but only as it is."""
