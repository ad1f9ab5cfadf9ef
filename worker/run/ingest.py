"""One ingest process: the single-threaded loop that wires the stages in order.

poll -> take (decode, order, segment) -> submit | collect results -> aggregate -> commit (results + states + watermark).

It never waits for the model: too much in flight pauses the partitions, and polling goes on. It is crash-only:
anything unexpected ends the process, and the next one recovers as it would after a kill.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import structlog

from callmood.worker import metrics
from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.adapters.dead_letters import DeadLetterTopic
from callmood.worker.adapters.publish_redis import Store
from callmood.worker.call import policy
from callmood.worker.call.alert import Rule
from callmood.worker.call.render import Stamps
from callmood.worker.commits import Commit, DeadLetter, Restored, TopicPartition
from callmood.worker.errors import Fenced, InferenceLost, StoreUnavailable, Unsettled
from callmood.worker.inference.wire import Beat
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import ModelInfo, Prediction, Utterance
from callmood.worker.run import traces
from callmood.worker.run.account import account
from callmood.worker.run.progress import Progress, Status
from callmood.worker.settings import Settings

log = structlog.get_logger()

_BUSY_POLL_MS = 10
_IDLE_POLL_MS = 50
_RETRY_S = 0.5
_CONFIRM_S = 5.0


class Inference(Protocol):
    """What the loop needs of the inference process."""

    model: ModelInfo | None
    beat: Beat | None

    def submit(self, utterance: Utterance) -> None:
        """Ask for an utterance's emotion; never waits."""

    def collect(self) -> list[tuple[str, Prediction]]:
        """The answers since the last call; never waits."""

    def healthy(self, now_s: float) -> bool:
        """Whether the inference thread itself has shown life lately."""


class Outside(NamedTuple):
    """What the loop is wired to."""

    consumer: AudioConsumer
    store: Store
    inference: Inference
    dead_letters: DeadLetterTopic


class Ingest:
    """The loop over the partitions of one consumer."""

    def __init__(
        self,
        outside: Outside,
        settings: Settings,
        rules: Sequence[Rule],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._consumer, self._store, self._inference, self._dead_letters = outside
        self._settings = settings
        self._rules = rules
        self._clock = clock
        self._sleep = sleep
        self._decode = partial(
            decode.decode, input_format=settings.input.format, max_record_ms=settings.input.max_record_ms
        )
        self._partitions: dict[TopicPartition, Partition] = {}
        self._restoring: dict[TopicPartition, float] = {}
        """Partitions to take over, and when to try."""
        self._waiting: dict[str, tuple[TopicPartition, str]] = {}
        self._pending: list[Commit] = []
        self._rendered_s = 0.0  # when the pending commits were made
        self._letters: list[DeadLetter] = []  # of the pending commits, and not safe yet
        self._is_paused = False
        self._is_store_healthy = True
        self._next_commit_s = 0.0
        self._progress = Progress()
        self._confirm_s: dict[TopicPartition, float] = {}
        """When a partition without anything new is committed all the same."""
        self._stamps = Stamps(policy.stamp(settings.policy), None)

    # -- one turn

    def turn(self) -> None:
        """One turn of the loop.

        Raises:
            Fenced: a partition is another owner's, or the store lost writes: start again from what it holds.
            InferenceLost: the inference process is gone.
            TooManyBadRecords: a bad deployment of the producers.
        """
        polled = self._consumer.poll(_BUSY_POLL_MS if self._waiting or self._restoring else _IDLE_POLL_MS)
        self._follow_changes()
        for source, records in polled.items():
            partition = self._partitions.get(source)
            if partition is None:
                continue
            metrics.RECORDS.labels(source.topic).inc(len(records))
            metrics.RECORD_BYTES.labels(source.topic).inc(sum(len(record.value or b"") for record in records))
            now_ms = self._clock() * 1000
            for record in records:
                self._submit(source, partition.take(record, now_ms))
        self._collect_answers()
        self._throttle()
        if self._clock() >= self._next_commit_s:
            self._commit()
        self._restore_one()  # not all at once: the group takes a member that does not poll for dead
        if not self._inference.healthy(time.monotonic()):
            raise InferenceLost("the inference process shows no life")

    def drain(self, deadline_s: float) -> bool:
        """Stop reading, wait for what is in flight, commit. Returns whether all of it was done in time."""
        self._consumer.pause()
        while self._clock() < deadline_s:
            self._consumer.poll(0)
            self._follow_changes()
            self._collect_answers()
            self._commit()
            if not self._waiting and not self._pending:
                return True
            self._sleep(_BUSY_POLL_MS / 1000)
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
        """Forget a partition; what was not committed is the next owner's to do again."""
        self._partitions.pop(source, None)
        self._restoring.pop(source, None)
        self._waiting = {key: value for key, value in self._waiting.items() if value[0] != source}
        self._pending = [commit for commit in self._pending if commit.source != source]
        self._progress.forget(source)
        self._confirm_s.pop(source, None)

    def _restore_one(self) -> None:
        """Take a newly assigned partition over: fence the old owner, read what it left, go to its watermark."""
        due = [source for source, due_s in self._restoring.items() if due_s <= self._clock()]
        if not due:
            return
        source = min(due)
        try:
            restored = self._store.claim(source)
        except Unsettled as error:
            log.info("not to be taken over yet", partition=source.partition, why=str(error))
            self._restoring[source] = self._clock() + _RETRY_S
            return
        except StoreUnavailable as error:
            self._store_failed(error)
            self._restoring = dict.fromkeys(self._restoring, self._clock() + _RETRY_S)
            return
        self._store_answered()
        if restored.watermark is None:
            restored = Restored(self._consumer.start_of(source), restored.time, restored.states)
        assert restored.watermark is not None
        self._mourn(source, restored.watermark)
        self._partitions[source] = Partition(source, restored, self._decode, self._settings, self._rules)
        self._progress.note(source, restored.watermark, self._clock())
        self._confirm_s[source] = self._clock() + _CONFIRM_S
        metrics.VAD_FALLBACKS.inc(self._partitions[source].fresh_detectors)
        self._consumer.start(source, restored.watermark)
        del self._restoring[source]
        log.info("restored", partition=source.partition, watermark=restored.watermark, calls=len(restored.states))

    def _mourn(self, source: TopicPartition, watermark: int) -> None:
        """Say so when retention has deleted records that were still needed: the calls in them go on with a gap."""
        lost = self._consumer.oldest(source) - watermark
        if lost > 0:
            metrics.RECORDS_LOST.inc(lost)
            log.error("records were deleted before they were read", partition=source.partition, lost=lost)

    # -- inference

    def _submit(self, source: TopicPartition, utterances: list[Utterance]) -> None:
        for utterance in utterances:
            self._waiting[utterance.id] = (source, utterance.call_id)
            self._inference.submit(utterance)

    def _collect_answers(self) -> None:
        now_ms = self._clock() * 1000
        for utterance_id, prediction in self._inference.collect():
            waiting = self._waiting.pop(utterance_id, None)
            if waiting is not None:
                source, call_id = waiting
                self._partitions[source].answer(call_id, utterance_id, prediction, now_ms)

    def _throttle(self) -> None:
        """Too much in flight, or a store that does not answer, pauses reading; membership goes on."""
        limit = self._settings.model.max_in_flight
        is_full = len(self._waiting) > (limit // 2 if self._is_paused else limit - 1)
        should_pause = is_full or not self._is_store_healthy
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
        began_s = self._clock()
        self._next_commit_s = began_s + self._settings.worker.commit_interval_ms / 1000
        if not self._pending:
            self._rendered_s = began_s
            self._pending = [c for partition in self._partitions.values() if (c := self._collect(partition, began_s))]
            self._letters = [letter for commit in self._pending for letter in commit.dead_letters]
        if not self._pending:
            return
        try:
            self._dead_letters.send(self._letters)
            self._letters = []
            fenced = self._store.commit(self._pending)
        except StoreUnavailable as error:
            self._store_failed(error)
            self._next_commit_s = self._clock() + _RETRY_S
            return
        if fenced:
            raise Fenced(f"{len(fenced)} partitions are another owner's, or the store lost writes")
        durable_s = self._clock()
        self._store_answered()
        committed, self._pending = self._pending, []
        if not self._store.moves_group_offsets:
            self._consumer.show_progress({commit.source: commit.watermark for commit in committed})
        for commit in committed:
            self._partitions[commit.source].confirm(commit)
            self._progress.note(commit.source, commit.watermark, durable_s)
            self._confirm_s[commit.source] = durable_s + _CONFIRM_S
            account(commit)
            traces.committed(commit, self._rendered_s, durable_s)
        metrics.COMMIT_SECONDS.observe(self._clock() - began_s)

    def _collect(self, partition: Partition, now_s: float) -> Commit | None:
        """What is due; now and then without anything new, or nobody would notice that an idle partition was lost."""
        stamps = self._stamps._replace(model=self._inference.model)
        commit = partition.collect(stamps, now_s * 1000)
        return commit if commit.is_news or now_s >= self._confirm_s[partition.source] else None

    def _store_failed(self, error: StoreUnavailable) -> None:
        metrics.STORE_ERRORS.inc()
        if self._is_store_healthy:
            log.warning("store unavailable; reading is paused and the commit is repeated", error=str(error))
        self._is_store_healthy = False

    def _store_answered(self) -> None:
        if not self._is_store_healthy:
            log.info("store is back")
        self._is_store_healthy = True

    # -- facts

    def status(self) -> Status:
        """How it goes; also sets the gauges."""
        now_s = self._clock()
        partitions = self._partitions.values()
        oldest = [p.oldest_capture_ms for p in partitions if p.oldest_capture_ms is not None]
        metrics.AUDIO_AGE.set(max(0.0, now_s - min(oldest) / 1000) if oldest else 0.0)
        metrics.OPEN_RECORDS.set(max((p.open_records for p in partitions), default=0))
        for partition in partitions:
            for why, count in partition.take_skipped().items():
                metrics.RECORDS_SKIPPED.labels(why).inc(count)
        metrics.LIVE_CALLS.set(sum(p.live_calls for p in partitions))
        if self._inference.beat is not None:
            metrics.BATCH_PADDING.set(self._inference.beat.padding)
            metrics.RECHECKED.set(self._inference.beat.rechecked)
        unread = {source: self._consumer.lag(source) for source in self._partitions}
        metrics.RECORD_LAG.set(sum(lag or 0 for lag in unread.values()))
        return Status(
            partitions=len(self._partitions),
            restoring=len(self._restoring),
            is_store_healthy=self._is_store_healthy,
            stuck_s=self._progress.stuck_s(unread, now_s),
        )
