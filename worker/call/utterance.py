"""A closed span as the utterance that the model analyses and the aggregate counts. Pure."""

from callmood.worker import g711
from callmood.worker.call import acoustics
from callmood.worker.records import Utterance
from callmood.worker.speech.stream import Stream
from callmood.worker.speech.taken import ClosedSpan


def utterance_of(call_id: str, name: str, stream: Stream, closed: ClosedSpan, withheld: str | None) -> Utterance:
    """The utterance on the call's time line, with its sound measured.

    Args:
        call_id: id of the call.
        name: of the stream in the call.
        stream: what closed the span; it still knows the records that hold it.
        closed: the span.
        withheld: the policy's reason for no emotion.
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
        withheld=withheld,
        traceparent=last.traceparent,
        voiced_start_ms=stream.time.call_ms(span.voiced_start_sample),
        voiced_end_ms=stream.time.call_ms(span.voiced_end_sample),
    )
