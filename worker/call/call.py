"""One live call: its streams, what waits for inference, its aggregate, and what a successor must know. Pure.

The one rule that makes restarts exact: whatever one record closes is published together with the call's state right
after that record, never before and never without it. A successor that restores that state and hears the records from
its `resume` on again does exactly what this process would have done.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from callmood.schemas.common import Event, Notice
from callmood.worker import g711
from callmood.worker.call import acoustics, policy
from callmood.worker.call.alert import Rule
from callmood.worker.call.fold import Fold
from callmood.worker.errors import BadRecord, ConfigurationError, Reason
from callmood.worker.records import Chunk, Cut, Prediction, Result, Unheard, Utterance
from callmood.worker.settings import Settings
from callmood.worker.speech.media_time import MediaTime
from callmood.worker.speech.stream import ClosedSpan, Stream, Taken

STATE_VERSION = 1
_MAX_STREAMS = 64


@dataclass(slots=True)
class _Group:
    """What one record closed, and the call's processing state right after it."""

    utterances: list[Utterance]
    unheard: list[Unheard]
    ended: str | None
    cut: dict[str, Any]
    decided_ms: float
    answers: dict[str, tuple[Prediction | None, float]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return len(self.answers) == len(self.utterances)


class Outcome(NamedTuple):
    """What a record led to: utterances for the model, and whether the record itself is already of no more use."""

    utterances: list[Utterance]
    is_settled: bool


class Released(NamedTuple):
    """A result that is due, its number in the call, and when it was decided and known (wall clock, ms)."""

    result: Result
    number: int
    decided_ms: float
    known_ms: float


class Saved(NamedTuple):
    """A call as it is stored: `blob` restores it; the records before `resume` (per stream) are not needed again."""

    blob: bytes
    resume: Mapping[str, int]


class Call:
    """One call of one partition."""

    def __init__(self, call_id: str, settings: Settings, rules: Sequence[Rule]) -> None:
        self.id = call_id
        self.seen_at_ms = 0
        """The partition's clock at the call's last record, or at its end."""
        self.fold = Fold(call_id, rules)
        self.last_offset = -1
        """Newest record of the call that was read, by a predecessor too."""
        self.is_over = False
        """Whether no record can change the call any more; results may still be on their way."""
        self._settings = settings
        self._streams: dict[str, Stream] = {}
        self._origin_ms: int | None = None
        self._notice: Notice | None = None
        self._groups: deque[_Group] = deque()
        self._cut: dict[str, Any] | None = None
        self._unsettled: list[tuple[str, int, int]] = []

    # -- records in

    def take(self, chunk: Chunk, *, elapsed_ms: int, now_ms: float) -> Outcome:
        """Take one record; `now_ms` only feeds the latency figures.

        Raises:
            BadRecord: the record does not fit its call, which goes on as if it had not come.
        """
        self.last_offset = max(self.last_offset, chunk.position.offset)
        stream = self._stream(chunk)
        next_seq = stream.next_seq
        taken, is_duplicate = stream.push(chunk)
        self._streams.setdefault(chunk.stream, stream)
        if is_duplicate:
            return Outcome([], is_settled=True)
        stream.active_at_ms = max(stream.active_at_ms or 0, elapsed_ms)
        self.seen_at_ms = max(self.seen_at_ms, elapsed_ms)
        self._unsettled.append((chunk.stream, max(chunk.seq, next_seq), chunk.position.offset))
        self._notice = chunk.notice or self._notice
        if chunk.attributes or chunk.notice is not None:
            self.fold.describe(chunk.attributes, chunk.notice)
        if stream.ended:
            return Outcome(self._end(Event.END.value, {chunk.stream: taken}, now_ms), is_settled=False)
        return Outcome(self._group({chunk.stream: taken}, now_ms), is_settled=False)

    def stall(self, quiet_since_ms: int, now_ms: float) -> list[Utterance]:
        """Close what is open in the streams without a record since then, so that they hold back nothing."""
        taken = {
            name: stream.close(Cut.GAP)
            for name, stream in self._streams.items()
            if stream.active_at_ms is not None and stream.active_at_ms <= quiet_since_ms
        }
        return self._group(taken, now_ms, let_go=True)

    @property
    def active_at_ms(self) -> int | None:
        """The partition's clock at the newest record of the stream that stalls next; None if all are let go."""
        return min((s.active_at_ms for s in self._streams.values() if s.active_at_ms is not None), default=None)

    def end(self, reason: str, *, elapsed_ms: int, now_ms: float) -> list[Utterance]:
        """The call is over without an `end` record."""
        self.seen_at_ms = elapsed_ms
        return self._end(reason, {}, now_ms)

    @property
    def is_paused(self) -> bool:
        """Whether the producer has asked not to listen."""
        return any(stream.paused_at_ms is not None for stream in self._streams.values())

    @property
    def fresh_detectors(self) -> int:
        """Channels that could not be restored exactly and go on with a fresh detector."""
        return sum(stream.fresh_detectors for stream in self._streams.values())

    @property
    def has_news(self) -> bool:
        """Whether there is something to publish."""
        return self.fold.is_changed or (bool(self._groups) and self._groups[0].is_complete)

    def _stream(self, chunk: Chunk) -> Stream:
        stream = self._streams.get(chunk.stream)
        if stream is not None:
            return stream
        if len(self._streams) >= _MAX_STREAMS:
            raise BadRecord(Reason.BAD_HEADER, f"more than {_MAX_STREAMS} streams in one call")
        media_zero_ms = max(0, chunk.capture_ms - round(chunk.media_ms or 0))
        if self._origin_ms is None:
            self._origin_ms = media_zero_ms
            self.fold.start(media_zero_ms)
        time = MediaTime(max(0, media_zero_ms - self._origin_ms))
        return Stream(time, self._settings.segment, self._settings.input)

    def _end(self, reason: str, taken: dict[str, Taken], now_ms: float) -> list[Utterance]:
        for name, stream in self._streams.items():
            taken.setdefault(name, Taken()).extend(stream.close(Cut.END))
        self.is_over = True
        reason = reason if any(stream.time.rate_hz for stream in self._streams.values()) else "no_audio"
        return self._group(taken, now_ms, ended=reason, let_go=True)

    def _group(
        self, taken: Mapping[str, Taken], now_ms: float, *, ended: str | None = None, let_go: bool = False
    ) -> list[Utterance]:
        """Turn what was closed into utterances that wait for inference together."""
        utterances: list[Utterance] = []
        unheard: list[Unheard] = []
        for name, brought in taken.items():
            stream = self._streams[name]
            utterances.extend(self._utterance(name, stream, closed) for closed in brought.spans)
            unheard.extend(brought.unheard)
            if let_go:
                stream.let_go()
            else:
                stream.forget_covered()
        if utterances or unheard or ended:
            group = _Group(utterances, unheard, ended, self._snapshot(), now_ms)
            group.answers.update({u.id: (None, now_ms) for u in utterances if not u.wants_emotion})
            self._groups.append(group)
        return [u for u in utterances if u.wants_emotion]

    def _utterance(self, name: str, stream: Stream, closed: ClosedSpan) -> Utterance:
        span, audio = closed.span, stream.format
        sources = stream.sources(span)
        last = sources[-1]
        role = audio.layout[closed.channel]
        pcm = g711.to_s16(audio.encoding, span.audio)
        return Utterance(
            id=f"{self.id}:{name}:{closed.channel}:{span.start_sample}",
            call_id=self.id,
            stream=name,
            channel=closed.channel,
            role=role,
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
            withheld=policy.withheld(role, self._notice, self._settings.policy),
            traceparent=last.traceparent,
        )

    # -- results in, outputs out

    def settle(self, utterance_id: str, prediction: Prediction, now_ms: float) -> None:
        """The model answered."""
        for group in self._groups:
            if any(u.id == utterance_id for u in group.utterances):
                group.answers[utterance_id] = (prediction, now_ms)
                return

    def release(self) -> list[Released]:
        """Fold and return the results that are due, in the order in which their utterances closed."""
        released = []
        while self._groups and self._groups[0].is_complete:
            group = self._groups.popleft()
            for utterance in group.utterances:
                prediction, known_ms = group.answers[utterance.id]
                result = Result(utterance, prediction)
                released.append(Released(result, self.fold.add(result), group.decided_ms, known_ms))
            for stretch in group.unheard:
                self.fold.add_unheard(stretch)
            if group.ended:
                self.fold.finish(group.ended, max(s.time.call_position_ms for s in self._streams.values()))
            self._cut = group.cut
        return released

    @property
    def is_finished(self) -> bool:
        """Whether the call is over and everything of it has been released."""
        return self.is_over and not self._groups

    # -- durability

    def save(self) -> Saved | None:
        """The newest state that may be stored now, or None while the first results are awaited."""
        if not self._groups:
            self._cut = self._snapshot()
        if self._cut is None:
            return None
        state = {"v": STATE_VERSION, "cut": self._cut, "fold": self.fold.save(), "last_offset": self.last_offset}
        return Saved(msgpack.packb(state), {name: stream["seq"] for name, stream in self._cut["streams"].items()})

    def forget_before(self, resume: Mapping[str, int]) -> list[int]:
        """A saved state will be stored: the offsets that nobody needs again."""
        done = [offset for name, seq, offset in self._unsettled if seq < resume.get(name, 0)]
        self._unsettled = [entry for entry in self._unsettled if entry[1] >= resume.get(entry[0], 0)]
        return done

    def forget_all(self) -> list[int]:
        """The call is finished: all its offsets."""
        done = [offset for _, _, offset in self._unsettled]
        self._unsettled = []
        return done

    @property
    def has_unsettled(self) -> bool:
        """Whether records since the stored state would be needed again."""
        return bool(self._unsettled)

    def _snapshot(self) -> dict[str, Any]:
        return {
            "streams": {name: stream.snapshot() for name, stream in self._streams.items()},
            "origin_ms": self._origin_ms,
            "notice": self._notice.value if self._notice else None,
            "seen_at_ms": self.seen_at_ms,
        }

    @classmethod
    def restore(cls, call_id: str, blob: bytes, settings: Settings, rules: Sequence[Rule]) -> "Call":
        """The call as it was saved; its records from `resume` on follow.

        Raises:
            ConfigurationError: the blob is of another version.
        """
        state = msgpack.unpackb(blob)
        if state["v"] != STATE_VERSION:
            raise ConfigurationError(f"call state version {state['v']}, this build has {STATE_VERSION}")
        call, cut = cls(call_id, settings, rules), state["cut"]
        call.fold.load(state["fold"])
        call.seen_at_ms, call.last_offset = cut["seen_at_ms"], state["last_offset"]
        call._origin_ms = cut["origin_ms"]
        call._notice = Notice(cut["notice"]) if cut["notice"] else None
        call._streams = {
            name: Stream.restore(stream, settings.segment, settings.input) for name, stream in cut["streams"].items()
        }
        call._cut = cut
        return call
