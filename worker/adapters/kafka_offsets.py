"""Questions for offsets when a partition has got another leader, or has none: section 14 of `kafka_workarounds`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from kafka.consumer.fetcher import Fetcher

_Answers = tuple[Mapping[Any, Any], set[Any]]
"""Offsets by partition, and the partitions that have to be asked for again."""
_NO_LEADER = (None, -1)

# -- 14. The offsets of a partition are asked of its former leader, for up to five minutes
#
# kafka-python: if the broker that is asked is no longer the leader, `_fetch_offsets_by_times_async` in
# kafka/consumer/fetcher.py asks the same one again at once, until the time is up, and never asks who leads. The next
# call does the same, until the metadata is five minutes old. So after a broker's restart, partitions that were to be
# taken over stood still. Asked for several partitions, it leaves out those without a leader: `end_offsets` then raises
# a KeyError, and `offsets_for_times` has None for them, as if there were no later record.
# We: where a partition has to be asked for again, new metadata is waited for first. One without a leader is asked for
# again, too.
# Upstream: no upstream issue found. Java's client had the same fault (KAFKA-9159).


def install() -> None:
    """To be called before a client is made; again is harmless."""
    ask = Fetcher._send_list_offsets_requests  # noqa: SLF001 - there is no public way
    if not hasattr(ask, "__wrapped__"):
        Fetcher._send_list_offsets_requests = _of_present_leaders(ask)  # noqa: SLF001 - as above


def _of_present_leaders(ask: Callable[..., Awaitable[_Answers]]) -> Callable[..., Awaitable[_Answers]]:
    @wraps(ask)
    async def ask_leaders(fetcher: Any, timestamps: Mapping[Any, int]) -> _Answers:
        cluster = fetcher._manager.cluster  # noqa: SLF001 - as above
        left_out = {one for one in timestamps if cluster.leader_for_partition(one) in _NO_LEADER}
        found, again = await ask(fetcher, timestamps)
        again = left_out.union(again)
        if again:
            await cluster.request_update()  # at most ten times a second
        return found, again

    return ask_leaders
