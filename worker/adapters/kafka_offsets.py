"""Questions for offsets after a partition has got another leader: section 14 of `kafka_workarounds`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from kafka.consumer.fetcher import Fetcher
from kafka.errors import NotLeaderForPartitionError

_Answers = tuple[Mapping[Any, Any], set[Any]]
"""Offsets by partition, and the partitions that have to be asked for again."""

# -- 14. The offsets of a partition are asked of its former leader, for up to five minutes
#
# kafka-python: if the broker that is asked is no longer the leader, `_fetch_offsets_by_times_async` in
# kafka/consumer/fetcher.py asks the same one again at once, until the time is up, and never asks who leads. The next
# call does the same, until the metadata is five minutes old. So after a broker's restart, partitions that were to be
# taken over stood still.
# We: such an answer is the error for which the client gets new metadata, and then asks the new leader.
# Upstream: no upstream issue found. Java's client had the same fault (KAFKA-9535).


def install() -> None:
    """To be called before a client is made; again is harmless."""
    ask = Fetcher._send_list_offsets_requests  # noqa: SLF001 - there is no public way
    if not hasattr(ask, "__wrapped__"):
        Fetcher._send_list_offsets_requests = _of_new_leaders(ask)  # noqa: SLF001 - as above


def _of_new_leaders(ask: Callable[..., Awaitable[_Answers]]) -> Callable[..., Awaitable[_Answers]]:
    @wraps(ask)
    async def ask_leaders(fetcher: Any, timestamps: Mapping[Any, int]) -> _Answers:
        found, again = await ask(fetcher, timestamps)
        if again:
            raise NotLeaderForPartitionError(", ".join(f"{topic}/{partition}" for topic, partition in sorted(again)))
        return found, again

    return ask_leaders
