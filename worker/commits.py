"""The content of one commit, and the data that a store returns to the next owner of a partition. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


class Origin(NamedTuple):
    """Whose position in which log: ids that Kafka gives to the cluster and to the topic, and the consumer group.

    What is empty is unknown, and is compared with nothing. `partitions` is the topic's present number, 0 if unknown.
    """

    cluster: str = ""
    topic_id: str = ""
    group: str = ""
    partitions: int = 0


@dataclass(frozen=True, slots=True)
class CallUpdate:
    """A call whose state or results changed.

    `state` is the blob to store, None to forget it. `summary` (call/1) is None when only the state changed. `is_known`:
    an earlier commit held a summary; `was_over`: the newest of those told that the call had ended.
    """

    call_id: str
    state: bytes | None
    summary: Mapping[str, Any] | None = None
    risk: float = 0.0
    is_first: bool = False
    is_known: bool = False
    was_over: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether this is the call's last summary."""
        return self.summary is not None and self.summary["status"] != "live"


@dataclass(frozen=True, slots=True)
class Commit:
    """One partition's atomic step: results, states and watermark, all or nothing.

    `utterances` are utterance/1 and `alerts` alert/1 records in order. `dead_letters` must be written before the rest,
    because the watermark passes them. `is_news` is False if the store already holds all of it: committing it
    only shows whether the store still knows this owner. `is_whole`: the states of all calls are in it. A commit that is
    copied from Kafka has the timestamp of each call's newest record in `logged_ms`, and in `erased` when calls were
    erased.
    """

    source: TopicPartition
    watermark: int
    time: StreamTime
    utterances: tuple[Mapping[str, Any], ...] = ()
    alerts: tuple[Mapping[str, Any], ...] = ()
    calls: tuple[CallUpdate, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    is_news: bool = True
    is_whole: bool = False
    logged_ms: Mapping[str, int] = field(default_factory=dict)
    erased: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restored:
    """What the store holds of a partition; `watermark` is None if no worker has committed there yet.

    `time` is the clock before the record at the watermark; None if it is not stored, or was lost.
    `has_lost_states`: the store has lost states of live calls. `first_partitions` is the number of partitions that the
    topic had when the first position was stored, None if unknown: a partition with a higher number was added later.
    """

    watermark: int | None
    time: StreamTime | None
    states: Mapping[str, bytes]
    has_lost_states: bool = False
    first_partitions: int | None = None
