"""Counts and logs what the worker has lost without a fault of its records: deleted, unreadable, evicted."""

import structlog

from callmood.worker import metrics
from callmood.worker.adapters.kafka_workarounds import Skipped
from callmood.worker.adapters.store import Gone
from callmood.worker.commits import TopicPartition

log = structlog.get_logger()


def report_deleted(source: TopicPartition, lost: int) -> None:
    """Records that Kafka has deleted before they were read: their calls go on with a gap."""
    metrics.RECORDS_LOST.inc(lost)
    log.error("records were deleted before they were read", topic=source.topic, partition=source.partition, lost=lost)


def report_skipped(skipped: Skipped) -> None:
    """Records that were not read: their calls go on with a gap."""
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
    """States of live calls that no owner has any more: these calls begin again."""
    metrics.STORE_LOST.inc()
    log.error("the store has lost the states of live calls; they begin again", partition=source.partition)


def report_gone(source: TopicPartition, gone: Gone) -> None:
    """What the store has lost under its owner, who stores again what it has."""
    found = {"states": int(gone.has_lost_states), "utterances": gone.silent_calls, "aggregates": len(gone.summaries)}
    for what, lost in found.items():
        if lost:
            metrics.STORE_LOST.inc(lost)
            log.error(
                "the store has lost keys of live calls; states and aggregates are stored again",
                partition=source.partition,
                what=what,
                lost=lost,
            )
