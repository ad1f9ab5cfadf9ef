"""What one commit holds, and what a store returns to the next owner of a partition. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from callmood.worker.errors import Reason
from callmood.worker.records import Record
from callmood.worker.stream_time import StreamTime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that breaks the contract, and the reason."""

    record: Record
    reason: Reason
    detail: str


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class CallUpdate:
    """A call whose state or results changed.

    `state` is the blob to store, None to forget it. `summary` (call/1) is None when only the state changed.
    """

    call_id: str
    state: bytes | None
    summary: Mapping[str, Any] | None = None
    risk: float = 0.0
    is_first: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether this is the call's last summary."""
        return self.summary is not None and self.summary["status"] != "live"


@dataclass(frozen=True, slots=True)
class Commit:
    """One partition's atomic step: results, states and watermark, all or nothing.

    `utterances` are utterance/1 and `alerts` alert/1 records in order. `dead_letters` must be written before the rest,
    because the watermark passes them. `is_news` is False if the store already holds all of it: committing it
    only shows whether the store still knows this owner.
    """

    source: TopicPartition
    watermark: int
    time: StreamTime
    utterances: tuple[Mapping[str, Any], ...] = ()
    alerts: tuple[Mapping[str, Any], ...] = ()
    calls: tuple[CallUpdate, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    is_news: bool = True


@dataclass(frozen=True, slots=True)
class Restored:
    """What the store holds of a partition; `watermark` is None if no worker has committed there yet."""

    watermark: int | None
    time: StreamTime
    states: Mapping[str, bytes]
