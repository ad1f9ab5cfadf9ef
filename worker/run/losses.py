"""Counts and logs losses: records that Kafka deleted or that cannot be parsed, and what the store lost."""

import structlog

from callmood.worker import metrics
from callmood.worker.adapters.kafka_batches import Skipped
from callmood.worker.adapters.store import Gone
from callmood.worker.commits import TopicPartition
from callmood.worker.partition.partition import Partition

log = structlog.get_logger()


def report_deleted(source: TopicPartition, lost: int) -> None:
    """Report records that Kafka deleted before the worker read them: their calls continue with a gap."""
    metrics.RECORDS_LOST.inc(lost)
    log.error("records were deleted before they were read", topic=source.topic, partition=source.partition, lost=lost)


def report_skipped(skipped: Skipped) -> None:
    """Report records that were not read: their calls continue with a gap."""
    lost = skipped.next_offset - skipped.first
    if skipped.is_deleted:
        report_deleted(skipped.source, lost)
        return
    metrics.RECORDS_LOST.inc(lost)
    log.error(
        "records that cannot be parsed were skipped",
        topic=skipped.source.topic,
        partition=skipped.source.partition,
        offset=skipped.first,
        lost=lost,
        error=skipped.reason,
    )


def report_lost_states(source: TopicPartition) -> None:
    """Report states of live calls that are lost: these calls start again."""
    metrics.STORE_LOST.inc()
    log.error("store lost the states of live calls; the calls start again", partition=source.partition)


def report_lost_position(source: TopicPartition, watermark: int, *, has_group_offset: bool) -> None:
    """Report that the position is lost although states are there; reading goes on at this offset."""
    metrics.STORE_LOST.inc()
    log.error(
        "store lost the position of a partition",
        partition=source.partition,
        watermark=watermark,
        has_group_offset=has_group_offset,
    )


def report_restored(partition: Partition) -> None:
    """Report what of a partition's states could not be restored: calls start again, channels get a new detector."""
    metrics.VAD_FALLBACKS.inc(partition.fresh_detectors)
    if partition.unreadable_states:
        metrics.STORE_LOST.inc(partition.unreadable_states)
        log.error(
            "stored states cannot be read; their calls start again",
            partition=partition.source.partition,
            lost=partition.unreadable_states,
        )


def report_gone(source: TopicPartition, gone: Gone) -> None:
    """Report keys that the store lost while this worker owned the partition; the worker stores them again."""
    found = {"states": int(gone.has_lost_states), "utterances": gone.silent_calls, "aggregates": len(gone.summaries)}
    for what, lost in found.items():
        if lost:
            metrics.STORE_LOST.inc(lost)
            log.error(
                "store lost keys of live calls; states and aggregates are stored again",
                partition=source.partition,
                what=what,
                lost=lost,
            )
