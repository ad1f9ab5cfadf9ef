"""Where results, call states and positions are committed together: in Redis or in Kafka."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from callmood.worker.commits import Commit, Restored, TopicPartition
from callmood.worker.errors import StoreUnavailable


class Committed(NamedTuple):
    """What became of the commits of one round. Commits in neither list are not known to be durable: repeat them."""

    durable: tuple[Commit, ...]
    """The store has them."""
    fenced: tuple[TopicPartition, ...] = ()
    """Another owner has these partitions, or the store lost data of theirs: drop their work and claim them again."""
    failure: StoreUnavailable | None = None
    """Why the others must be repeated, exactly as they are."""


class Store(Protocol):
    """Where results and states are committed together."""

    moves_group_offsets: bool
    """Whether a commit moves the consumer group's offsets too; else they are moved afterwards, for display."""

    def claim(self, source: TopicPartition) -> Restored:
        """Take a partition over, fence its earlier owner, and get what it left.

        Raises:
            StoreUnavailable: no answer for now.
        """

    def commit(self, commits: Sequence[Commit]) -> Committed:
        """Commit each partition atomically, one commit for each. Repeat one that is not durable, but only as it is."""
