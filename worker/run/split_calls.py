"""Calls whose id is on two partitions: their producers use different partitioners, which the contract forbids. Pure."""

from callmood.worker.commits import TopicPartition


class SplitCalls:
    """The partition of each call with utterances, and the calls that were seen on a second one."""

    def __init__(self) -> None:
        self._home: dict[str, TopicPartition] = {}
        self._split: set[str] = set()

    def note(self, call_id: str, source: TopicPartition) -> TopicPartition | None:
        """An utterance of the call is on this partition. Returns the call's other partition, once for each call."""
        home = self._home.setdefault(call_id, source)
        if home == source or call_id in self._split:
            return None
        self._split.add(call_id)
        return home

    def forget_call(self, call_id: str, source: TopicPartition) -> None:
        """The call has ended on this partition."""
        if self._home.get(call_id) == source:
            del self._home[call_id]
            self._split.discard(call_id)

    def forget_partition(self, source: TopicPartition) -> None:
        """The partition is another worker's now."""
        for call_id in [call_id for call_id, home in self._home.items() if home == source]:
            self.forget_call(call_id, source)
