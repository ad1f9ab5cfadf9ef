"""The batches that the engine computes: on a GPU one after the other, on a CPU several side by side.

A GPU is given its next batch while it runs the one before, so that it never waits for Python: one thread starts
batches, another waits for them. A CPU computes several batches side by side, because a product of one utterance is too
small to be shared by many cores.
"""

import gc
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import structlog

from callmood.worker.engine.parts import duration_s
from callmood.worker.records import Prediction
from callmood.worker.settings import ModelSettings

if TYPE_CHECKING:
    from callmood.worker.engine.infer import Collect, Engine
    from callmood.worker.engine.parts import Sound

log = structlog.get_logger()

_NEWEST_WEIGHT: Final = 0.05
"""Weight of the newest batch in the shares of padding and of what is computed again."""
Item = TypeVar("Item")


def open_warm(settings: ModelSettings) -> "Engine":
    """The engine of these settings, warmed up.

    Raises:
        ConfigurationError: there is no such device.
        ModelError: the checkpoint cannot be used.
    """
    gc.disable()  # the imports and the model stay; looking for garbage among them takes a sixth of the start's CPU time
    try:
        from callmood.worker.engine.infer import open_engine  # noqa: PLC0415 - torch belongs to the model's thread of this process alone

        engine = open_engine(settings)
        engine.warm_up()
    finally:
        gc.freeze()
        gc.enable()
    return engine


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Generic[Item]):
    """A batch that is computed.

    Attributes:
        items: what the caller knows each utterance by.
        seconds: of each utterance, the length that the model analyses.
        since_s: when it was given to the engine.
        share: its threads, in those of a slot.
        future: one answer for each utterance.
    """

    items: list[Item]
    seconds: list[float]
    since_s: float
    share: float
    future: "Future[list[Prediction]]"

    @property
    def padded_s(self) -> float:
        """Seconds of audio if each utterance is padded to the longest."""
        return max(self.seconds) * len(self.seconds)


class Batches(Generic[Item]):
    """Opens the engine, and computes batches with it. On a GPU only `_thread` touches the model.

    Args:
        settings: the model and how it is run.
        opened: gives the engine; runs in a thread of its own.
        rouse: called when a batch is done, from any thread.

    Attributes:
        engine: None until it is open.
        padding: share of what was computed that was padding, of the newest batches.
    """

    def __init__(
        self, settings: ModelSettings, opened: "Callable[[ModelSettings], Engine]", rouse: Callable[[], None]
    ) -> None:
        self.engine: Engine | None = None
        self.padding = 0.0
        self._rouse = rouse
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._waiting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="results")
        self._slots: ThreadPoolExecutor | None = None
        self._opening = self._thread.submit(opened, settings)
        self._running: list[Batch[Item]] = []
        self._done_s = 0.0
        self._analysed = 0.0
        self._again = 0.0
        self._rechecked_before = 0

    def close(self, *, wait: bool) -> None:
        """End the threads, after the batches that run or, without `wait`, in spite of them."""
        for threads in (self._thread, self._waiting, self._slots):
            if threads is not None:
                threads.shutdown(wait=wait, cancel_futures=True)

    def take_engine(self) -> bool:
        """Take the engine as soon as it is open; returns whether that was now.

        Raises:
            ConfigurationError: there is no such device.
            ModelError: the checkpoint cannot be used.
        """
        if self.engine is not None or not self._opening.done():
            return False
        self.engine = engine = self._opening.result()
        if engine.slots:
            self._slots = ThreadPoolExecutor(engine.slots, thread_name_prefix="inference")
        self._rechecked_before = engine.rechecked
        plan, threads = engine.plan, engine.threads if engine.slots else None
        log.info("model ready", device=plan.device, dtype=plan.dtype, packed=plan.packed, threads=threads)
        return True

    def is_free(self) -> bool:
        """Whether the engine can be given a batch."""
        return self.engine is not None and len(self._running) < self.engine.depth

    @property
    def rechecked(self) -> float:
        """Share of utterances that were computed again in float32, of the newest batches; an estimate.

        The engine counts for all batches, also for those that run: what they compute again counts with another one.
        """
        return min(1.0, self._again / self._analysed) if self._analysed else 0.0

    def begin(self, items: list[Item], sounds: "list[Sound]", now_s: float, *, is_last: bool) -> None:
        """Give a batch to the engine, which must be free. With `is_last`, nothing waits to run beside it."""
        assert self.engine is not None
        share, future = self._begin(self.engine, sounds, is_alone=is_last and not self._running)
        self._running.append(Batch(items, [duration_s(sound) for sound in sounds], now_s, share, future))
        future.add_done_callback(lambda _: self._rouse())

    def _begin(
        self, engine: "Engine", sounds: "list[Sound]", *, is_alone: bool
    ) -> "tuple[float, Future[list[Prediction]]]":
        """On a CPU, a batch has all threads if it is the only one now, else the share of a slot."""
        if self._slots is None:
            return 1.0, self._waiting.submit(_collect, self._thread.submit(engine.start, sounds))
        of_slot = engine.threads // engine.slots
        threads = engine.threads if is_alone else of_slot
        return threads / of_slot, self._slots.submit(_compute, engine, sounds, threads)

    def take_done(self, now_s: float) -> list[tuple[Batch[Item], float]]:
        """The batches that are done, with answers or the model's error, and how long each was computed, s."""
        done = []
        for batch in [running for running in self._running if running.future.done()]:
            done.append((batch, self._computed_s(batch, now_s)))
            self._done_s = now_s
            self._running.remove(batch)
            self._account(batch)
        return done

    def _account(self, batch: Batch[Item]) -> None:
        assert self.engine is not None
        if not batch.padded_s:  # nothing was computed
            return
        useful_s = sum(batch.seconds)
        computed_s = useful_s if self.engine.plan.packed else batch.padded_s
        self.padding += _NEWEST_WEIGHT * (1 - useful_s / computed_s - self.padding)
        before, self._rechecked_before = self._rechecked_before, self.engine.rechecked
        self._again += _NEWEST_WEIGHT * (self._rechecked_before - before - self._again)
        self._analysed += _NEWEST_WEIGHT * (len(batch.seconds) - self._analysed)

    def busy_s(self, now_s: float) -> float:
        """How long the batch that runs longest has been computed."""
        return self._computed_s(self._running[0], now_s) if self._running else 0.0

    def _computed_s(self, batch: Batch[Item], now_s: float) -> float:
        """How long a batch has been computed; on a GPU, not before the one before it was done."""
        return now_s - (batch.since_s if self._slots is not None else max(batch.since_s, self._done_s))


def _collect(started: "Future[Collect]") -> list[Prediction]:
    return started.result()()


def _compute(engine: "Engine", sounds: "list[Sound]", threads: int) -> list[Prediction]:
    return engine.start(sounds, threads)()
