"""The speech check in the inference process: utterances in, verdicts out, on threads of its own beside the model's."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from callmood.worker.engine.cores import usable_cores
from callmood.worker.settings import ModelSettings

if TYPE_CHECKING:
    from callmood.worker.engine.check import SpeechCheck
    from callmood.worker.model.audio import Sound
    from callmood.worker.records import Speech

Key = TypeVar("Key")

_MAX_THREADS: Final = 4
_CORES_PER_THREAD: Final = 4  # a CPU that runs the model has little left, a GPU's has enough


class _Judged(NamedTuple, Generic[Key]):
    key: Key
    future: "Future[Speech | None]"


class Checks(Generic[Key]):
    """Utterances that wait for the check, oldest first.

    Args:
        settings: of the model.
        wake: called from another thread when there may be something to take.
        clock: seconds; never goes back.
    """

    def __init__(
        self, settings: ModelSettings, wake: Callable[[], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wake = wake
        self._clock = clock
        threads = max(1, min(_MAX_THREADS, usable_cores() // _CORES_PER_THREAD))
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="speech-check", initializer=_begin_thread)
        self._check: Future[SpeechCheck] | None = None
        if settings.speech_check:
            self._check = self._threads.submit(_open)
        self._waiting: deque[_Judged[Key]] = deque()
        self._since_s = clock()

    @property
    def is_on(self) -> bool:
        """Whether the speech check is on."""
        return self._check is not None

    @property
    def is_open(self) -> bool:
        """Whether the check is loaded, or off.

        Raises:
            ModelError: its weights cannot be used.
        """
        return self._check is None or (self._check.done() and self._check.result() is not None)

    def add(self, key: Key, sound: "Sound") -> None:
        """Judge an utterance; only if the check is on."""
        assert self._check is not None
        if not self._waiting:
            self._since_s = self._clock()
        future = self._threads.submit(_judge, self._check, sound)
        self._waiting.append(_Judged(key, future))
        future.add_done_callback(lambda _: self._wake())

    def take(self) -> "Iterator[tuple[Key, Speech | None]]":
        """The verdicts that are there, in the order in which the utterances came; None: the check failed on one.

        Raises:
            Exception: the check fails on silence, too: no later verdict can be trusted.
        """
        while self._waiting and self._waiting[0].future.done():
            judged = self._waiting.popleft()
            self._since_s = self._clock()
            yield judged.key, judged.future.result()

    def busy_s(self, now_s: float) -> float:
        """How long the oldest utterance has had a thread, at most; 0 if none waits."""
        return now_s - self._since_s if self._waiting else 0.0

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _begin_thread() -> None:
    from callmood.worker.engine.infer import compute_with  # noqa: PLC0415 - torch is slow to import

    compute_with(1)  # an utterance has too little work for two cores: with two, it takes twice the CPU time


def _open() -> "SpeechCheck":
    from callmood.worker.engine.check import SpeechCheck  # noqa: PLC0415 - torch is slow to import

    return SpeechCheck.open()


def _judge(check: "Future[SpeechCheck]", sound: "Sound") -> "Speech | None":
    return check.result().judge(sound)
