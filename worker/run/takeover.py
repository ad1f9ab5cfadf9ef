"""Takes over a partition: fences the earlier owner, loads the stored states, and finds the offset to read from."""

from dataclasses import replace
from typing import NamedTuple

from kafka.errors import KafkaError

from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.adapters.store import Store
from callmood.worker.commits import Commit, Restored, TopicPartition
from callmood.worker.errors import Fenced, Unsettled
from callmood.worker.partition.stored import newest_time_ms
from callmood.worker.run import losses
from callmood.worker.stream_time import StreamTime

_ASK_MS = 10_000


class TakenOver(NamedTuple):
    """What the earlier owner left, and where to read on: its watermark, or the oldest record that is left."""

    restored: Restored
    start: int


def take_over(store: Store, consumer: AudioConsumer, source: TopicPartition, *, starts_latest: bool) -> TakenOver:
    """Claim the partition.

    Args:
        store: where the position is.
        consumer: of the partition.
        source: the partition.
        starts_latest: whether a partition without a position is read from its end on. Then the end is stored at once:
            a successor that looked it up again would skip what came in between.

    Raises:
        StoreUnavailable: no answer for now; try again. `Unsettled`: none of this partition, and others may be ready.
        Fenced: another worker has claimed the partition in between.
        ConfigurationError: the position is somebody else's.
    """
    oldest = consumer.oldest(source)  # a partition without a leader is neither claimed nor reported
    restored = store.claim(source)
    watermark, time = restored.watermark, restored.time
    if time is None:  # a clock behind the calls would not end them for as long as it is behind
        time = StreamTime(newest_time_ms(restored.states.values()))
    if watermark is None and restored.states:
        watermark = _found_again(consumer, source, oldest)
    elif watermark is None:
        was_added_later = restored.first_partitions is not None and source.partition >= restored.first_partitions
        watermark = oldest if was_added_later else consumer.start_of(source)
        if starts_latest:
            _store_start(store, Commit(source, watermark, time))
    if oldest > watermark:
        losses.report_deleted(source, oldest - watermark)
    if restored.has_lost_states:
        losses.report_lost_states(source)
    return TakenOver(replace(restored, watermark=watermark, time=time), max(oldest, watermark))


def _found_again(consumer: AudioConsumer, source: TopicPartition, oldest: int) -> int:
    """The store has lost the position, but not the states: go on at the newest watermark that the group was shown.

    Without one, at the oldest record: calls that are over are then computed again.
    """
    try:
        shown = consumer.committed(source, timeout_ms=_ASK_MS)
    except KafkaError as error:
        raise Unsettled(f"kafka: {error}") from error
    watermark = oldest if shown is None else shown
    losses.report_lost_position(source, watermark, has_group_offset=shown is not None)
    return watermark


def _store_start(store: Store, start: Commit) -> None:
    committed = store.commit([start])
    if committed.fenced:
        raise Fenced(f"{start.source.topic}/{start.source.partition} is another owner's")
    if committed.failure is not None:
        raise committed.failure
