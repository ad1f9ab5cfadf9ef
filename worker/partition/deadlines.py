"""One deadline per key, popped in order. Pure."""

import heapq
from collections.abc import Iterator


class Deadlines:
    """A heap with at most one valid entry per key; `pop_due` skips the others."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._at_ms: dict[str, int] = {}

    def set(self, key: str, at_ms: int) -> None:
        """Set or move the deadline of a key."""
        self._at_ms[key] = at_ms
        heapq.heappush(self._heap, (at_ms, key))

    def pull(self, key: str, at_ms: int) -> None:
        """Make sure that the key's deadline is not later than this."""
        if self._at_ms.get(key, at_ms + 1) > at_ms:
            self.set(key, at_ms)

    def drop(self, key: str) -> None:
        """Remove the key's deadline."""
        self._at_ms.pop(key, None)

    def has_due(self, now_ms: int) -> bool:
        """Whether `pop_due` might find something."""
        return bool(self._heap) and self._heap[0][0] <= now_ms

    def pop_due(self, now_ms: int) -> Iterator[str]:
        """Take out the keys whose deadline has come, earliest first; the caller may set them again."""
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, key = heapq.heappop(self._heap)
            if self._at_ms.get(key) == at_ms:
                del self._at_ms[key]
                yield key
