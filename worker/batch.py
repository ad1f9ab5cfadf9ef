"""Utterances -> batches of at most a budget of padded seconds, of similar length each. Pure.

A batch is built around the utterance that has waited longest, so none starves. An utterance that meets an idle engine
goes at once; between batches it waits for company, but not longer than the deadline.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

LOOK_AHEAD: Final = 256
"""Utterances among which company is looked for."""

MAX_PADDING: Final = 0.25
"""Largest share of padding in a batch; a longer or shorter utterance waits for the next one."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Key]):
    key: Key
    seconds: float
    since_s: float


class Batcher(Generic[Key]):
    """The queue in front of the engine. Time is the caller's: any clock that never goes back.

    Args:
        batch_seconds: padded seconds of audio in a batch, at most; one utterance alone may be longer.
        max_wait_s: longest wait for company.
    """

    def __init__(self, *, batch_seconds: float, max_wait_s: float) -> None:
        self._batch_seconds = batch_seconds
        self._max_wait_s = max_wait_s
        self._waiting: dict[Key, _Waiting[Key]] = {}
        self._last_batch_s = float("-inf")

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key, seconds: float, now_s: float) -> None:
        """Put an utterance of `seconds` of audio at the end of the queue.

        Raises:
            ValueError: the key already waits.
        """
        if key in self._waiting:
            raise ValueError(f"{key!r} already waits")
        self._waiting[key] = _Waiting(key, seconds, now_s)

    def discard(self, keys: Iterable[Key]) -> None:
        """Forget the utterances of `keys` that still wait."""
        for key in keys:
            self._waiting.pop(key, None)

    def due_s(self) -> float | None:
        """When `due` will give a batch if nothing is added; None: the queue is empty."""
        oldest = next(iter(self._waiting.values()), None)
        if oldest is None:
            return None
        if sum(waiting.seconds for waiting in self._waiting.values()) >= self._batch_seconds:
            return oldest.since_s
        return min(oldest.since_s, self._last_batch_s) + self._max_wait_s

    def due(self, now_s: float) -> list[Key] | None:
        """Take the next batch, shortest utterance first; None: it is better to wait for company, or nothing waits."""
        due_s = self.due_s()
        if due_s is None or now_s < due_s:
            return None
        window = list(islice(self._waiting.values(), LOOK_AHEAD))
        oldest = window[0]
        window.reverse()  # of equal lengths the oldest then stand last, next to the seed, and are the first company
        window.sort(key=lambda waiting: waiting.seconds)
        batch = self._around([waiting.seconds for waiting in window], window.index(oldest))
        keys = [waiting.key for waiting in window[batch]]
        self.discard(keys)
        self._last_batch_s = now_s
        return keys

    def _around(self, seconds: list[float], seed: int) -> slice:
        """The part of the ascending `seconds` around `seed` that makes the batch: grown where it adds less padding."""
        start, end = seed, seed + 1
        useful = seconds[seed]
        while start > 0 or end < len(seconds):
            longest, count = seconds[end - 1], end - start
            down = longest - seconds[start - 1] if start > 0 else float("inf")
            up = count * (seconds[end] - longest) if end < len(seconds) else float("inf")
            added = seconds[start - 1] if down <= up else seconds[end]
            padded = (count + 1) * max(longest, added)
            if padded > self._batch_seconds or padded - useful - added > MAX_PADDING * padded:
                break
            start, end = (start - 1, end) if down <= up else (start, end + 1)
            useful += added
        return slice(start, end)
