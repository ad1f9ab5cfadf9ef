"""What the other channels of a stream did while one spoke. Pure."""

from collections.abc import Sequence

from callmood.schemas.common import Role
from callmood.worker.records import Span
from callmood.worker.speech import echo
from callmood.worker.speech.segment import Segmenter
from callmood.worker.speech.taken import ClosedSpan


def closed_span(channels: Sequence[Segmenter], index: int, role: Role, span: Span) -> ClosedSpan:
    """The span with how long another channel was voiced in it, and whether it is an echo of one."""
    others = [channel for number, channel in enumerate(channels) if number != index]
    overlap_ms = max((other.voiced_ms(span.start_sample, span.end_sample) for other in others), default=0)
    return ClosedSpan(index, role, span, overlap_ms, _is_echo(channels[index], others, span))


def may_echo(channels: Sequence[Segmenter]) -> None:
    """Let the channels of a new stream keep what is compared, if there is something to compare."""
    for channel in channels:
        channel.keeps_levels = 1 < len(channels) <= echo.MAX_CHANNELS


def _is_echo(own: Segmenter, others: Sequence[Segmenter], span: Span) -> bool:
    length = own.frame_samples
    first, end, known_by = (
        sample // length for sample in (span.voiced_start_sample, span.voiced_end_sample, span.decided_sample)
    )
    if not own.keeps_levels or end - first < echo.MIN_FRAMES:
        return False
    levels = own.levels(first, end, known_by=known_by)
    before = first - echo.MAX_LAG_FRAMES
    return any(echo.is_echo(levels, other.levels(before, end, known_by=known_by)) for other in others)
