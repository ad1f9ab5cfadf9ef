"""One ingest process: the single-threaded loop that wires the stages in order.

poll -> take (decode, order, segment) -> submit | collect results -> aggregate -> commit (results + states + watermark).

It never waits for the model: too much in flight pauses the partitions, and polling continues. It is crash-only:
an unexpected error ends the process, and the next process recovers as after a kill.

Two clocks: the wall clock feeds latencies and the age of audio; everything that is due at a time goes by the monotonic
clock, because the wall clock may be set back.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import structlog

from callmood.worker import metrics
from callmood.worker.call import policy
from callmood.worker.call.render import Stamps
from callmood.worker.call.rule import Rule
from callmood.worker.commits import Commit, DeadLetter, TopicPartition
from callmood.worker.errors import (
    ConfigurationError,
    Fenced,
    InferenceLost,
    StoreUnavailable,
    TooManyBadRecords,
    Unsettled,
)
from callmood.worker.intake import decode
from callmood.worker.logs import call_hash
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Record, Utterance
from callmood.worker.run import traces
from callmood.worker.run.account import account
from callmood.worker.run.cadence import Cadence
from callmood.worker.run.losses import report_gone, report_restored, report_skipped
from callmood.worker.run.outside import Outside
from callmood.worker.run.progress import Progress, Stage, Status
from callmood.worker.run.reading import Reading
from callmood.worker.run.split_calls import SplitCalls
from callmood.worker.run.takeover import take_over
from callmood.worker.settings import Settings

log = structlog.get_logger()

_DRAIN_POLL_S = 0.01
_RETRY_S = 0.5
_CONFIRM_S = 5.0
_MEASURE_S = 1.0
_ASK_AFTER_S = 10.0


class _Asked(NamedTuple):
    """An utterance at the model."""

    source: TopicPartition
    call_id: str
    utterance_id: str
    audio_bytes: int


class Ingest:
    """The loop over the partitions of one consumer.

    Args:
        outside: what it is wired to.
        settings: of the worker.
        rules: of the alerts.
        clock: wall clock, in s since 1970.
        monotonic: a clock that is never set, in s.
        sleep: waits for so many s.
    """

    def __init__(
        self,
        outside: Outside,
        settings: Settings,
        rules: Sequence[Rule],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._consumer, self._store, self._inference, self._dead_letters = outside
        self._settings = settings
        self._rules = rules
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._decode = partial(
            decode.decode, input_format=settings.input.format, max_record_ms=settings.input.max_record_ms
        )
        self._partitions: dict[TopicPartition, Partition] = {}
        self._restoring: dict[TopicPartition, float] = {}
        """Partitions to take over, and when to try."""
        self._waiting: dict[str, _Asked] = {}
        """What is at the model, by its key there: one call id may be on two partitions."""
        self._split_calls = SplitCalls()
        self._pending: list[Commit] = []
        self._rendered_s = 0.0  # wall time at which the pending commits were made
        self._unsent: list[DeadLetter] = []  # dead-letter records of the pending commits, not in their topic yet
        self._is_paused, self._is_repairing = False, False
        self._is_quiet = False  # whether nothing has come since a commit that found nothing to do
        self._is_store_healthy = True
        self._cadence = Cadence(settings.worker.commit_interval_ms / 1000)
        self._next_measure_s = 0.0
        self._reading = Reading(self._consumer, min(_ASK_AFTER_S, settings.worker.stall_s / 4))
        self._progress = Progress()
        self._confirm_s: dict[TopicPartition, float] = {}
        """When a partition without anything new is committed all the same, to notice a new owner."""
        self._stamps = Stamps(policy.stamp(settings.policy), None)

    # -- one turn

    def turn(self) -> None:
        """One turn of the loop.

        Raises:
            Fenced: another worker owns a partition, or the store lost writes: start again from its content.
            InferenceLost: the inference process does not respond.
            TooManyBadRecords: more bad records in a row than the limit.
            ConfigurationError: the topic was created again, or a stored position belongs to another deployment.
        """
        began_s = self._monotonic()
        try:
            polled = self._consumer.poll(self._wait_ms(began_s))
        except ConfigurationError:  # the topic was created again: what was read of the old one is not lost
            self.drain(self._monotonic() + self._settings.worker.drain_timeout_s)
            raise
        self._cadence.polled(self._monotonic() - began_s)
        self._follow_changes()
        try:
            self._take_all(polled)
        except TooManyBadRecords:  # commit what led to it, for diagnosis
            self.drain(self._monotonic() + self._settings.worker.drain_timeout_s)
            raise
        self._report_skipped()
        self._collect_answers()
        self._throttle()
        if self._store.can_commit:
            if self._cadence.is_due(self._monotonic()):
                self._commit()
            self._restore_one()  # one a turn: the group removes a member that does not poll for long
        if self._monotonic() >= self._next_measure_s:
            self._measure()
        if not self._inference.healthy(self._monotonic()):
            raise InferenceLost("the inference process does not respond")

    def _wait_ms(self, now_s: float) -> int:
        is_busy = bool(self._restoring) or self._is_paused
        return self._cadence.wait_ms(now_s, is_busy=is_busy, is_quiet=self._is_quiet, is_asking=bool(self._waiting))

    @property
    def _held_sources(self) -> list[TopicPartition]:
        """Partitions of which records wait for a commit."""
        return [source for source, partition in self._partitions.items() if partition.is_waiting]

    def _take_all(self, polled: Mapping[TopicPartition, Sequence[Record]]) -> None:
        for source in dict.fromkeys((*self._held_sources, *polled)):
            self._take(source, polled.get(source, ()))

    def _take(self, source: TopicPartition, records: Sequence[Record]) -> None:
        partition = self._partitions.get(source)
        if partition is None:
            return
        metrics.RECORDS.labels(source.topic).inc(len(records))
        metrics.RECORD_BYTES.labels(source.topic).inc(sum(len(record.value or b"") for record in records))
        now_ms, self._is_quiet = self._clock() * 1000, False
        for utterance in partition.take(records, now_ms):
            self._submit(source, utterance)

    def drain(self, deadline_s: float) -> bool:
        """Stop reading, wait for what is in flight, commit. Returns whether all is done by the deadline (monotonic)."""
        self._consumer.pause()
        if not self._store.moves_group_offsets:  # Redis may have lost what this process still has
            self._confirm_s |= dict.fromkeys(self._partitions, 0.0)
        while self._monotonic() < deadline_s:
            with suppress(ConfigurationError):
                self._consumer.poll(0)
            self._follow_changes()
            self._collect_answers()
            with suppress(TooManyBadRecords):  # the process ends anyway
                self._take_all({})
            can_commit = self._store.can_commit or not self._partitions
            if can_commit:
                self._commit()
            is_done = not (self._waiting or self._pending or self._held_sources or self._is_repairing)
            if can_commit and is_done:
                return True
            self._sleep(_DRAIN_POLL_S)
        return False

    # -- assignment

    def _follow_changes(self) -> None:
        changes = self._consumer.take_changes()
        for source in changes.revoked | changes.assigned:  # what is assigned again is restored again
            self._drop(source)
        self._restoring |= dict.fromkeys(changes.assigned, 0.0)
        if changes.revoked or changes.assigned:
            metrics.REBALANCES.inc()
            log.info("rebalanced", assigned=len(changes.assigned), revoked=len(changes.revoked))
            metrics.PARTITIONS.set(len(self._partitions) + len(self._restoring))

    def _drop(self, source: TopicPartition) -> None:
        """Forget a partition; its next owner repeats what was not committed."""
        self._partitions.pop(source, None)
        self._restoring.pop(source, None)
        self._waiting = {key: asked for key, asked in self._waiting.items() if asked.source != source}
        self._pending = [commit for commit in self._pending if commit.source != source]
        self._split_calls.forget_partition(source)
        self._confirm_s.pop(source, None)

    def _restore_one(self) -> None:
        """Take over a newly assigned partition: fence the old owner, load its states, go to its watermark."""
        due = [source for source, due_s in self._restoring.items() if due_s <= self._monotonic()]
        if not due:
            return
        source = min(due, key=lambda one: (self._restoring[one], one))  # those that were not ready do not delay others
        starts_latest = self._settings.kafka.start == "latest"
        try:
            restored, start = take_over(self._store, self._consumer, source, starts_latest=starts_latest)
            self._consumer.start(source, start)
        except Unsettled as error:
            log.info("partition not ready for takeover", partition=source.partition, reason=str(error))
            self._restoring[source] = self._monotonic() + error.retry_s if error.retry_s else 0.0
            return
        except StoreUnavailable as error:
            self._store_failed(error)
            self._restoring = dict.fromkeys(self._restoring, self._monotonic() + _RETRY_S)
            return
        self._store_answered()
        self._partitions[source] = Partition(source, restored, self._decode, self._settings, self._rules)
        self._partitions[source].skip_to(start)
        self._confirm_s[source] = self._monotonic() + _CONFIRM_S
        report_restored(self._partitions[source])
        del self._restoring[source]
        log.info("partition restored", partition=source.partition, watermark=start, calls=len(restored.states))

    def _report_skipped(self) -> None:
        for skipped in self._consumer.take_skipped():
            report_skipped(skipped)
            if skipped.source in self._partitions:
                self._partitions[skipped.source].skip_to(skipped.next_offset)

    # -- inference

    def _submit(self, source: TopicPartition, utterance: Utterance) -> None:
        key = f"{source.topic}/{source.partition}/{utterance.id}"
        self._waiting[key] = _Asked(source, utterance.call_id, utterance.id, len(utterance.audio))
        self._inference.submit(key, utterance)
        other = self._split_calls.note(utterance.call_id, source)
        if other is not None:
            metrics.SPLIT_CALLS.inc()
            log.warning(
                "call is on two partitions",
                call=call_hash(utterance.call_id),
                partition=source.partition,
                other_partition=other.partition,
            )

    def _collect_answers(self) -> None:
        now_ms = self._clock() * 1000
        answers = self._inference.collect()
        for key, prediction in answers:
            asked = self._waiting.pop(key, None)
            if asked is not None:
                self._partitions[asked.source].answer(asked.call_id, asked.utterance_id, prediction, now_ms)
        if answers:
            self._cadence.answered()
        has_work = bool(self._waiting)
        self._progress.note(Stage.INFERENCE, self._monotonic(), has_work=has_work, has_moved=bool(answers))

    def _throttle(self) -> None:
        """Pause reading, but stay in the group: too much is in flight, records wait, or the store does not answer."""
        model, audio_bytes = self._settings.model, sum(asked.audio_bytes for asked in self._waiting.values())
        share = max(len(self._waiting) / model.max_in_flight, audio_bytes / (model.max_in_flight_mb * 1_000_000))
        is_full = share > 0.5 if self._is_paused else share >= 1  # noqa: PLR2004 - half of it
        should_pause = is_full or bool(self._held_sources) or not self._is_store_healthy
        if should_pause and not self._is_paused:
            self._consumer.pause()
        elif self._is_paused and not should_pause:
            self._consumer.resume(self._partitions)
        self._is_paused = should_pause
        metrics.PAUSED.set(should_pause)
        metrics.IN_FLIGHT.set(len(self._waiting))

    # -- commits

    def _commit(self) -> None:
        """Commit what is due; a commit without an answer is repeated as it is before anything newer is collected."""
        began_s = self._monotonic()
        self._cadence.began(began_s)
        if not self._pending:
            self._cadence.collected()
            now_s = self._clock()
            self._rendered_s = now_s
            is_confirming = any(confirm_s <= began_s for confirm_s in self._confirm_s.values())  # then all go along
            commits = [self._collect(partition, now_s) for partition in self._partitions.values()]
            self._pending = [commit for commit in commits if commit.is_news or is_confirming]
            self._unsent = [dead_letter for commit in self._pending for dead_letter in commit.dead_letters]
        self._is_quiet = not self._pending
        if not self._pending:
            self._is_repairing = False
            self._progress.note(Stage.COMMITS, began_s, has_work=True, has_moved=True)
            return
        try:
            self._dead_letters.send(self._unsent)
            self._unsent = []
            committed = self._store.commit(self._pending)
        except StoreUnavailable as error:
            self._commit_failed(error)
            return
        self._account(committed.durable)
        self._is_repairing = bool(committed.gone)
        for source, gone in committed.gone.items():
            report_gone(source, gone)
            self._partitions[source].restore_store(gone.summaries, all_states=gone.has_lost_states)
        if committed.fenced:
            raise Fenced(f"another worker owns {len(committed.fenced)} partitions, or the store lost writes")
        if committed.failure is not None:
            self._commit_failed(committed.failure)
            return
        self._store_answered()
        took_s = self._monotonic() - began_s
        self._cadence.took(took_s)
        metrics.COMMIT_SECONDS.observe(took_s)

    def _commit_failed(self, error: StoreUnavailable) -> None:
        self._store_failed(error)
        self._cadence.failed(self._monotonic() + _RETRY_S)

    def _account(self, durable: Sequence[Commit]) -> None:
        """Confirm, count and log commits that are in the store."""
        if not durable:
            return
        durable_s = self._clock()
        sources = {commit.source for commit in durable}
        self._pending = [commit for commit in self._pending if commit.source not in sources]
        if not self._store.moves_group_offsets:
            self._consumer.show_progress({commit.source: commit.watermark for commit in durable})
        ended_s = self._monotonic()
        for commit in durable:
            self._partitions[commit.source].confirm(commit)
            self._confirm_s[commit.source] = ended_s + _CONFIRM_S
            account(commit)
            traces.committed(commit, self._rendered_s, durable_s)
            for call in commit.calls:
                if call.has_ended:
                    self._split_calls.forget_call(call.call_id, commit.source)
        self._progress.note(Stage.COMMITS, ended_s, has_work=True, has_moved=True)

    def _collect(self, partition: Partition, now_s: float) -> Commit:
        return partition.collect(self._stamps._replace(model=self._inference.model), now_s * 1000)

    def _store_failed(self, error: StoreUnavailable) -> None:
        metrics.STORE_ERRORS.inc()
        if self._is_store_healthy:
            log.warning("store unavailable; reading is paused and the commit is repeated", error=str(error))
        self._is_store_healthy = False

    def _store_answered(self) -> None:
        if not self._is_store_healthy:
            log.info("store available again")
        self._is_store_healthy = True

    # -- facts

    def _measure(self) -> None:
        """Set the gauges, and note which stages have work to do."""
        now_s = self._monotonic()
        self._next_measure_s = now_s + _MEASURE_S
        self._reading.look(self._partitions, now_s, is_paused=self._is_paused)
        reading = self._reading
        can_commit = bool(self._partitions) and self._is_store_healthy and self._store.can_commit
        is_held = bool(self._held_sources) and can_commit and not self._waiting
        self._progress.note(Stage.READING, now_s, has_work=reading.has_work or is_held, has_moved=reading.has_moved)
        self._progress.note(Stage.COMMITS, now_s, has_work=can_commit, has_moved=False)
        metrics.RECORD_LAG.set(reading.unread)
        metrics.HELD_PARTITIONS.set(reading.held)
        partitions = self._partitions.values()
        oldest = [p.oldest_capture_ms for p in partitions if p.oldest_capture_ms is not None]
        metrics.AUDIO_AGE.set(max(0.0, self._clock() - min(oldest) / 1000) if oldest else 0.0)
        metrics.OPEN_RECORDS.set(max((p.open_records for p in partitions), default=0))
        for partition in partitions:
            for why, count in partition.take_skipped().items():
                metrics.RECORDS_SKIPPED.labels(why).inc(count)
        metrics.LIVE_CALLS.set(sum(p.live_calls for p in partitions))
        if self._inference.beat is not None:
            metrics.BATCH_PADDING.set(self._inference.beat.padding)
            metrics.RECHECKED.set(self._inference.beat.rechecked)

    def status(self) -> Status:
        """What the supervisor needs for its probes."""
        stuck_s, stuck_at = self._progress.longest(self._monotonic())
        return Status(len(self._partitions), len(self._restoring), self._is_store_healthy, stuck_s, stuck_at)
