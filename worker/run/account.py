"""Metrics and log lines of durable commits: one line per utterance."""

from collections import Counter

import structlog

from callmood.schemas.utterance import label_or_reason
from callmood.worker import metrics
from callmood.worker.commits import Commit
from callmood.worker.logs import call_hash

log = structlog.get_logger()


def account(commit: Commit) -> None:
    """Count and log a commit that is durable."""
    metrics.COMMITS.inc()
    account_dead_letters(commit)
    for alert in commit.alerts:
        metrics.ALERTS.labels(alert["rule"]).inc()
        log.info("alert", call=call_hash(alert["call_id"]), rule=alert["rule"], value=alert["value"])
    for call in commit.calls:
        if call.has_ended and call.summary is not None and not call.was_over:
            metrics.CALLS_ENDED.labels(call.summary["end_reason"]).inc()
            log.info("call ended", call=call_hash(call.call_id), reason=call.summary["end_reason"])
    _account_formats(commit)
    for utterance in commit.utterances:
        emotion = utterance["emotion"]
        label = label_or_reason(utterance)
        total_ms = utterance["latency_ms"]["total"]
        metrics.UTTERANCES.labels(utterance["role"], label).inc()
        metrics.LATENCY.observe(total_ms / 1000)
        log.info(
            "utterance",
            call=call_hash(utterance["call_id"]),
            number=utterance["number"],
            role=utterance["role"],
            start_ms=utterance["start_ms"],
            end_ms=utterance["end_ms"],
            label=label,
            confidence=emotion["confidence"] if emotion else None,
            latency_ms=total_ms,
            partition=commit.source.partition,
        )


def _account_formats(commit: Commit) -> None:
    """Count what looks as if it had another encoding than the declared one; log it once for each call."""
    doubtful = [utterance for utterance in commit.utterances if utterance["quality"]["looks_like"]]
    for utterance in doubtful:
        metrics.DOUBTFUL_FORMAT.labels(utterance["quality"]["looks_like"]).inc()
    counts = Counter(utterance["call_id"] for utterance in doubtful)
    firsts = {utterance["call_id"]: utterance["quality"]["looks_like"] for utterance in reversed(doubtful)}
    for call in commit.calls:
        if call.summary is not None and 0 < counts[call.call_id] == call.summary["doubtful_format"]:
            log.warning("audio looks wrongly encoded", call=call_hash(call.call_id), looks_like=firsts[call.call_id])


def account_dead_letters(commit: Commit) -> None:
    """Count and log the dead-letter records of a commit."""
    for reason, count in Counter(letter.reason.value for letter in commit.dead_letters).items():
        metrics.DEAD_LETTERS.labels(reason).inc(count)
    for dead_letter in commit.dead_letters:
        log.warning(
            "dead-letter record",
            reason=dead_letter.reason.value,
            detail=dead_letter.detail,
            partition=commit.source.partition,
            offset=dead_letter.record.position.offset,
        )
