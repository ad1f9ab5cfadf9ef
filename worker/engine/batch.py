"""Utterances -> batches of at most a budget of padded seconds, of similar length each. Pure.

Clients take turns by seconds of audio (start-time fair queueing): a client that floods the queue delays only itself. A
batch is built around the utterance whose turn it is, so none starves. An utterance that meets an idle engine
starts at once; between batches it waits for others, but not longer than the deadline. The batcher learns how long
batches run, by the length of their utterances, and limits the next batch: on a slow device, batches are small.
"""

import math
from bisect import insort
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

LOOK_AHEAD: Final = 256
"""Utterances in the queue among which the others of a batch are looked for."""

MAX_PADDING: Final = 0.08
"""Largest share of padding in a batch; a longer or shorter utterance waits for the next one."""

_NEWEST_WEIGHT: Final = 0.2  # of the newest run in the learned cost


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Key]):
    key: Key
    seconds: float
    since_s: float
    turn: tuple[float, int]


class Batcher(Generic[Key]):
    """The queue in front of the engine. Time is the caller's: any clock that never goes back.

    Args:
        batch_seconds: padded seconds of audio in a batch, at most; one utterance alone may be longer.
        max_wait_s: longest wait for other utterances.
        max_run_s: how long a batch may run, as far as is known; one utterance alone may run longer.

    Attributes:
        batch_seconds: as given; may be lowered when less turns out to fit into memory.
    """

    def __init__(self, *, batch_seconds: float, max_wait_s: float, max_run_s: float = math.inf) -> None:
        self.batch_seconds = batch_seconds
        self._max_wait_s = max_wait_s
        self._max_run_s = max_run_s
        self._queue: list[_Waiting[Key]] = []  # by turn
        self._keys: set[Key] = set()
        self._turn_s = 0.0
        self._next_turn_s: dict[Hashable, float] = {}
        self._added = 0
        self._cost: dict[int, float] = {}
        self._last_batch_s = -math.inf

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def waiting(self) -> list[tuple[Key, float]]:
        """What waits, in the order of their turns, and its seconds."""
        return [(waiting.key, waiting.seconds) for waiting in self._queue]

    def add(self, key: Key, seconds: float, now_s: float, client: Hashable = None) -> None:
        """Put a client's utterance of `seconds` of audio into the queue.

        Raises:
            ValueError: the key already waits.
        """
        if key in self._keys:
            raise ValueError(f"{key!r} already waits")
        turn_s = max(self._turn_s, self._next_turn_s.get(client, 0.0))
        self._next_turn_s[client] = turn_s + seconds
        self._added += 1
        self._keys.add(key)
        insort(self._queue, _Waiting(key, seconds, now_s, (turn_s, self._added)), key=lambda waiting: waiting.turn)

    def discard(self, keys: Iterable[Key]) -> None:
        """Forget the utterances of `keys` that still wait."""
        self._keys -= set(keys)
        self._queue = [waiting for waiting in self._queue if waiting.key in self._keys]
        if not self._queue:
            self._next_turn_s.clear()

    def learn(self, longest_s: float, padded_s: float, run_s: float) -> None:
        """Learn the run time of a batch from its longest utterance and its padded seconds."""
        bucket, cost = _bucket(longest_s), run_s / padded_s
        before = self._cost.get(bucket, cost)
        self._cost[bucket] = before + _NEWEST_WEIGHT * (cost - before)

    def due_s(self) -> float | None:
        """When `due` will give a batch if nothing is added; None: the queue is empty."""
        if not self._queue:
            return None
        oldest_s = min(waiting.since_s for waiting in self._queue)
        if sum(waiting.seconds for waiting in self._queue) >= self._budget_s(self._queue[0].seconds):
            return oldest_s
        return min(oldest_s, self._last_batch_s) + self._max_wait_s

    def due(self, now_s: float) -> list[Key] | None:
        """Take the next batch, shortest utterance first; None: nothing waits, or waiting for more is better."""
        due_s = self.due_s()
        if due_s is None or now_s < due_s:
            return None
        window = self._queue[:LOOK_AHEAD]
        first = window[0]
        self._turn_s = first.turn[0]
        window.reverse()  # of equal lengths, those whose turn is first are then next to the seed
        window.sort(key=lambda waiting: waiting.seconds)
        batch = self._around([waiting.seconds for waiting in window], window.index(first))
        keys = [waiting.key for waiting in window[batch]]
        self.discard(keys)
        self._last_batch_s = now_s
        return keys

    def _budget_s(self, seconds: float) -> float:
        """Padded seconds that a batch around an utterance of this length may hold."""
        cost = self._cost.get(_bucket(seconds))
        return min(self.batch_seconds, self._max_run_s / cost) if cost else self.batch_seconds

    def _around(self, seconds: list[float], seed: int) -> slice:
        """The part of the ascending `seconds` around `seed` that makes the batch: grown where it adds less padding."""
        start, end = seed, seed + 1
        useful, budget_s = seconds[seed], self._budget_s(seconds[seed])
        while start > 0 or end < len(seconds):
            longest, count = seconds[end - 1], end - start
            down = longest - seconds[start - 1] if start > 0 else float("inf")
            up = count * (seconds[end] - longest) if end < len(seconds) else float("inf")
            added = seconds[start - 1] if down <= up else seconds[end]
            padded = (count + 1) * max(longest, added)
            if padded > budget_s or padded - useful - added > MAX_PADDING * padded:
                break
            start, end = (start - 1, end) if down <= up else (start, end + 1)
            useful += added
        return slice(start, end)


def _bucket(seconds: float) -> int:
    """Utterances of about one length: each bucket's are twice as long as those of the one before."""
    return math.frexp(seconds)[1]
