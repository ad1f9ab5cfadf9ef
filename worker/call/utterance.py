"""Makes the utterance that the model analyses and the aggregate counts from a closed span. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from callmood.schemas.common import Notice, WithheldReason
from callmood.worker import g711
from callmood.worker.call import acoustics, plausible, policy
from callmood.worker.records import Utterance
from callmood.worker.settings import PolicySettings
from callmood.worker.speech.stream import Stream
from callmood.worker.speech.taken import ClosedSpan


class Facts(NamedTuple):
    """What a call knows of all its utterances at one moment."""

    origin_ms: int
    """Capture time at 0 of its time line."""
    attributes: Mapping[str, str]
    """Those with reserved names."""
    notice: Notice | None
    """Whether the caller was told."""
    policy: PolicySettings
    """Whose emotion may be inferred."""


def utterance_of(call_id: str, name: str, stream: Stream, closed: ClosedSpan, facts: Facts) -> Utterance:
    """The utterance on the call's time line, with its sound measured.

    Args:
        call_id: id of the call.
        name: of the stream in the call.
        stream: what closed the span; it still knows the records that hold it.
        closed: the span.
        facts: what the call knows.
    """
    span, audio = closed.span, stream.format
    sources = stream.sources(span)
    last = sources[-1]
    pcm = g711.to_s16(audio.encoding, span.audio)
    return Utterance(
        id=f"{call_id}:{name}:{closed.channel}:{span.start_sample}",
        call_id=call_id,
        stream=name,
        channel=closed.channel,
        role=closed.role,
        start_ms=stream.time.call_ms(span.start_sample),
        end_ms=stream.time.call_ms(span.end_sample),
        capture_end_ms=round(last.end_capture_ms - (last.end_sample - span.end_sample) * 1000 / audio.rate_hz),
        encoding=audio.encoding,
        rate_hz=audio.rate_hz,
        audio=span.audio,
        cut=span.cut,
        missing_ms=round(span.missing_samples * 1000 / audio.rate_hz),
        overlap_ms=closed.overlap_ms,
        acoustics=acoustics.measure(pcm, audio.rate_hz),
        first=min(source.position for source in sources),
        last=max(source.position for source in sources),
        withheld=policy.withheld(closed.role, facts.notice, facts.policy)
        or (WithheldReason.ECHO if closed.is_echo else None),
        traceparent=last.traceparent,
        voiced_start_ms=stream.time.call_ms(span.voiced_start_sample),
        voiced_end_ms=stream.time.call_ms(span.voiced_end_sample),
        spoken_at_ms=facts.origin_ms + stream.time.call_ms(span.start_sample),
        attributes=facts.attributes,
        is_echo=closed.is_echo,
        looks_like=plausible.looks_like(pcm),
    )
