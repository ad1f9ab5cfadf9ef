"""Places the streams of a call on its time line. Pure.

The rule. The clock of the leg that came first is the call's clock, and each leg is placed at its capture time, in any
order of arrival: a leg that began earlier moves the beginning of the call, as long as the call has no result. Clocks of
gateways differ (docs/decisions/0007-partition-clock.md). If a leg would begin more than 10 s before the call, or is
more than 10 s ahead of a leg that continues after it, it has another clock: its first record is placed at the point of
the call at which it arrived. Smaller differences look the same as legs that began at different times.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from callmood.worker.records import Chunk, Unheard
from callmood.worker.speech.stream import Stream
from callmood.worker.speech.taken import Taken

_APART_MS: Final = 10_000


class Places:
    """The time line of one call.

    Args:
        origin_ms: capture time at its 0; None before the first record.
        is_settled: whether the call has a result, so that its beginning stays.
    """

    def __init__(self, origin_ms: int | None = None, *, is_settled: bool = False) -> None:
        self.origin_ms = origin_ms
        self.is_settled = is_settled

    def begin(self, capture_ms: int) -> bool:
        """Whether this record is the call's first; its stream is placed once it is its turn."""
        is_first = self.origin_ms is None
        if is_first:
            self.origin_ms = max(0, capture_ms)
        return is_first

    def place(self, stream: Stream, others: Collection[Stream], chunk: Chunk, taken: Taken, *, elapsed_ms: int) -> None:
        """Place a stream whose first record has just been taken. Where all others have ended, the call was paused."""
        assert stream.time.zero_ms is not None
        assert self.origin_ms is not None
        zero_ms, before_ms = round(stream.time.zero_ms), stream.time.offset_ms
        if not others and not self.is_settled:
            self.origin_ms = max(0, zero_ms)
        at_ms, now_ms = zero_ms - self.origin_ms, _now_ms(others, elapsed_ms)
        if at_ms < -_APART_MS and others:
            at_ms = now_ms - round(_length_ms(chunk))
        elif at_ms < 0 and not self.is_settled:
            self.origin_ms = max(0, self.origin_ms + at_ms)
            for other in others:
                other.time.offset_ms -= at_ms
        stream.time.offset_ms = max(0, at_ms)
        _move(stream, taken, before_ms)
        stopped_ms = max((other.time.call_position_ms for other in others), default=0)
        if others and all(other.ended for other in others) and stream.time.offset_ms > stopped_ms:
            taken.unheard.insert(0, Unheard(stopped_ms, stream.time.offset_ms, is_pause=True))
        stream.is_tentative = bool(others) and stream.time.call_position_ms > now_ms + _APART_MS

    def compare(self, stream: Stream, others: Collection[Stream], chunk: Chunk) -> None:
        """A stream has gone on with this record: one that was placed far ahead of it has another clock."""
        for other in others:
            if other.is_tentative:
                ahead_ms = other.time.call_position_ms - stream.time.call_position_ms + round(_length_ms(chunk))
                other.is_tentative = False
                if ahead_ms > _APART_MS:
                    other.time.offset_ms = max(0, other.time.offset_ms - ahead_ms)


def _move(stream: Stream, taken: Taken, before_ms: int) -> None:
    """What the first record has brought was placed as if its stream had begun with it, at `before_ms`."""
    by_ms = stream.time.offset_ms - before_ms
    taken.holds = [(is_hold, at_ms + by_ms) for is_hold, at_ms in taken.holds]
    for index, unheard in enumerate(taken.unheard):
        start_ms = unheard.start_ms + (0 if unheard.is_pause else by_ms)  # a pause that another stream has begun
        taken.unheard[index] = replace(unheard, start_ms=start_ms, end_ms=max(start_ms, unheard.end_ms + by_ms))
    if (
        stream.paused.at_ms is not None and stream.paused.at_ms >= before_ms
    ):  # it begins with this record, or began earlier on another clock
        stream.paused.at_ms += by_ms


def _length_ms(chunk: Chunk) -> float:
    return chunk.samples * 1000 / chunk.format.rate_hz if chunk.format else 0.0


def _now_ms(streams: Collection[Stream], elapsed_ms: int) -> int:
    """Where the call is now: at its newest record, and what has passed since."""
    return max(
        (
            stream.time.call_position_ms
            + (0 if stream.active_at_ms is None else max(0, elapsed_ms - stream.active_at_ms))
            for stream in streams
        ),
        default=0,
    )
