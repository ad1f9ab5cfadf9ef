"""One media session of a call: records in order -> closed spans on the call's time line. Pure.

The session owns the order of its records, the position on its media time line and one segmenter per channel. All of
it is a function of the records alone: chunk sizes, arrival times and restarts change nothing.
"""

from collections.abc import Callable, Sequence

from callmood.schemas.common import Encoding, Event, Role
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.records import AudioFormat, Chunk, Cut, Span, Unheard
from callmood.worker.settings import InputSettings, SegmentSettings, Settings
from callmood.worker.speech.beside import closed_span, may_echo
from callmood.worker.speech.copies import TakenNumbers
from callmood.worker.speech.doubt import Doubt
from callmood.worker.speech.heard import Heard
from callmood.worker.speech.heard_records import HeardRecords
from callmood.worker.speech.media_time import MediaTime, Step
from callmood.worker.speech.order import Ready, StreamOrder
from callmood.worker.speech.pause import Pause
from callmood.worker.speech.segment import Segmenter
from callmood.worker.speech.stream_state import StreamState
from callmood.worker.speech.taken import ClosedSpan, Taken


class Stream:
    """One media session.

    Args:
        time: its position, also on the call's time line.
        segment: the rules of cutting.
        input_settings: how much disorder and loss is bridged.
    """

    def __init__(self, time: MediaTime, segment: SegmentSettings, input_settings: InputSettings) -> None:
        self.time = time
        self.ended = False
        self.active_at_ms: int | None = None
        """The partition's clock at its newest record; None once it has been let go."""
        self._segment = segment
        self._input = input_settings
        self._order = StreamOrder.of(input_settings, None)
        self._numbers = TakenNumbers(input_settings.reorder_records)
        self._doubt = Doubt()
        self.is_copy = False
        """Whether another stream brings the same audio: this one only keeps its position."""
        self.is_tentative = False
        """Whether its place on the call's time line can still change."""
        self._format: AudioFormat | None = None
        self._channels: list[Segmenter] = []
        self.paused = Pause()
        self._heard = HeardRecords()
        self._heard_from = time.save()
        self._has_skipped = False
        self._newest_capture_ms = 0

    # -- records in

    def push(self, chunk: Chunk) -> tuple[Taken, bool]:
        """Take one record; returns what it (and records that waited for it) brought, and whether it was a duplicate.

        Raises:
            BadRecord: the format changed within the stream, or its numbers began again or are absurd.
        """
        if self.is_next(chunk):
            return Taken(self.take_next((chunk,))), False
        if self._format and chunk.format and not self._format.is_like(chunk.format):
            raise BadRecord(Reason.FORMAT_CHANGED, "a new encoding, rate or number of channels needs a new stream")
        self._order.refuse_jump(chunk)
        self._doubt.judge(chunk, self.time, chunk.seq - self._order.next_seq)
        pushed = self._order.push(chunk)
        if not pushed.duplicate:
            self._format = self._format or chunk.format
            self._numbers.add(chunk)
        elif chunk.capture_ms >= self._newest_capture_ms and not self._numbers.is_copy(chunk):
            raise BadRecord(Reason.SEQ_BACKWARDS, "seq started again: a reconnect needs a new stream")
        taken = self._apply_all(pushed.ready)
        if self.time.is_nearly_at(chunk, self._order.next_seq):
            taken.extend(self._apply_all(self._order.flush()))
        return taken, pushed.duplicate

    def close(self, cut: Cut) -> Taken:
        """Close what is open: the stream has stalled or its call has ended. Records that waited are released first."""
        taken = self._apply_all(self._order.flush())
        taken.spans += self._close_channels(cut)
        if cut is Cut.END:
            taken.unheard += self._end_pause()
        return taken

    @property
    def is_begun(self) -> bool:
        """Whether a record was released."""
        return self._newest_capture_ms > 0

    def stop_copying(self) -> None:
        """The stream that this one copies is over: from here on this one is heard."""
        self.is_copy = False
        self._skip_to_position()

    def mark_active(self, elapsed_ms: int) -> None:
        """A record has come at this time of the partition's clock."""
        self.active_at_ms = max(self.active_at_ms or 0, elapsed_ms)

    def let_go(self) -> None:
        """After `close`: go on with new channels, so that no record is needed again."""
        self._open_channels() if self._channels else self._skip_to_position()
        self._heard.clear()
        self.active_at_ms = None

    # -- pauses

    @property
    def is_paused(self) -> bool:
        """Whether the producer has paused the call."""
        return self.paused.goes_on

    def pause(self) -> Taken:
        """Another stream has brought a `pause`. Records that waited were sent before it and are released."""
        taken = self._apply_all(self._order.flush())
        self._begin_pause(taken)
        return taken

    def resume(self, paused_ms: int) -> Taken:
        """Another stream has ended a pause of this length. Records that waited are part of it, and are released."""
        taken = self._apply_all(self._order.flush())
        self.paused.end_elsewhere(paused_ms)
        return taken

    def _begin_pause(self, taken: Taken) -> None:
        if self.paused.at_ms is None:
            taken.spans += self._close_channels(Cut.PAUSE)
        self.paused.begin(self.time.call_position_ms)

    def _end_pause(self, lost_ms: float = 0.0) -> list[Unheard]:
        return self.paused.end(self.time.call_position_ms, lost_ms, self._input.conceal_ms)

    def _go_on(self, lost_ms: float, taken: Taken) -> None:
        """The first record after another stream has ended the pause: the stream is heard again."""
        if self.paused.left_ms is not None:
            taken.unheard += self._end_pause(lost_ms)
            self._skip_to_position()

    def is_next(self, chunk: Chunk) -> bool:
        """Whether the record is as nearly all are: the next audio of a stream that is heard."""
        return (
            chunk.event is Event.MEDIA
            and (chunk.format is self._format or chunk.format == self._format)
            and self._is_heard
            and not self.ended
            and self._order.is_next(chunk)
            and self._doubt.is_clear(chunk)
            and self.time.goes_on(chunk)
        )

    @property
    def room(self) -> int:
        """Samples that can follow and, whatever they hold, close nothing."""
        return min((channel.room for channel in self._channels), default=0)

    def take_next(self, chunks: Sequence[Chunk]) -> list[ClosedSpan]:
        """Take records each of which is the next; several must fit into `room`, and are heard as one."""
        first, channel_of = self.time.sample, self.format.channel
        before = self.time.save()
        for chunk in chunks:
            self._numbers.add(chunk)
            self._heard.add_next(chunk, before, self.time)
            if self.time.follow(chunk):
                before = self.time.save()
            self.time.advance(chunk.samples)
        self._newest_capture_ms = max(self._newest_capture_ms, *[chunk.capture_ms for chunk in chunks])
        self._order.pass_next(chunks[-1])
        self._doubt.believe(chunks[-1])
        audio = chunks[0].audio if len(chunks) == 1 else b"".join([chunk.audio for chunk in chunks])
        return self._closed(lambda index, channel: channel.feed(first, channel_of(audio, index)))

    def _apply_all(self, ready: tuple[Ready, ...]) -> Taken:
        taken = Taken()
        for item in ready:
            self._apply(item, taken)
        taken.ends += [item.chunk for item in ready if item.chunk.event is Event.END]
        return taken

    def _apply(self, ready: Ready, taken: Taken) -> None:
        chunk = ready.chunk
        is_of_call = chunk.event in (Event.PAUSE, Event.RESUME)  # and the call may go on
        if self.ended and not (is_of_call or chunk.has_track):  # after Twilio's `stop` comes only what it has overtaken
            return
        self._heard_from, self._has_skipped = self.time.save(), False
        match chunk.event:
            case Event.MEDIA:
                self._media(ready, taken)
            case Event.PAUSE:
                self._go_on(self._move_to(ready, taken), taken)
                self._begin_pause(taken)
                taken.has_paused = True
            case Event.RESUME:
                self._resume(ready, taken)
            case Event.END:
                taken.spans += self._close_channels(Cut.END)
                self._move_to(ready, taken)
                self.ended = True
            case _:
                self._go_on(self._move_to(ready, taken), taken)
                self._note(chunk, taken)
        self._newest_capture_ms = max(self._newest_capture_ms, chunk.capture_ms)
        if ready.is_late:
            return  # it holds no audio, and a successor must not begin at its number
        end_sample = self.time.sample
        is_concealed = self._heard_from.sample < end_sample - chunk.samples and not self._has_skipped
        concealed_seqs = ready.missing_seqs if is_concealed else 0
        self._heard.add(chunk, self._heard_from, end_sample, concealed_seqs)

    def _note(self, chunk: Chunk, taken: Taken) -> None:
        """An event that changes nothing but where the stream is, or what the time line tells."""
        match chunk.event:
            case Event.GAP:
                self._gap(chunk.discarded_ms, taken)
            case Event.SILENCE:
                self._silence(chunk.discarded_ms, taken)
            case Event.HOLD | Event.UNHOLD:
                taken.holds.append((chunk.event is Event.HOLD, self.time.call_position_ms))

    def _media(self, ready: Ready, taken: Taken) -> None:
        chunk = ready.chunk
        if not self._channels:
            ready = self._begin(ready, taken)
        self._go_on(self._move_to(ready, taken), taken)
        self.time.follow(chunk)
        if chunk.format and chunk.format != self._format:  # other roles from here on
            taken.spans += self._close_channels(Cut.END)
            self._format = chunk.format
        if self._is_heard:
            first, channel_of = self.time.sample, self.format.channel
            taken.spans += self._closed(lambda index, channel: channel.feed(first, channel_of(chunk.audio, index)))
        self.time.advance(chunk.samples)

    def _begin(self, ready: Ready, taken: Taken) -> Ready:
        """The first audio: from here on the position counts samples. What was before it, if joined late, is missing."""
        self.time.begin(self.format.rate_hz)
        is_first = not self._newest_capture_ms
        if is_first and ready.chunk.media_ms is not None and self._is_heard:
            start_ms = self.time.call_position_ms
            self.time.skip(self.time.step_to(ready.chunk, ready.chunk.seq).lost_ms)
            if self.time.call_position_ms > start_ms:
                taken.unheard.append(Unheard(start_ms, self.time.call_position_ms, is_pause=False))
        self._open_channels()
        self._has_skipped = is_first
        return ready._replace(missing_seqs=0) if is_first else ready

    def _open_channels(self) -> None:
        audio = self.format
        self._channels = [Segmenter(audio.encoding, audio.rate_hz, self._segment) for _ in audio.layout]
        may_echo(self._channels)
        self._skip_to_position()

    @property
    def _is_heard(self) -> bool:
        return self.paused.at_ms is None and not self.is_copy

    # -- media time

    def _move_to(self, ready: Ready, taken: Taken) -> float:
        """Go to where the record is, unless the stream is past it; returns how much was lost before it, in ms."""
        step = Step(0.0, 0.0) if ready.is_late else self.time.step_to(ready.chunk, ready.missing_seqs)
        self._gap(step.lost_ms, taken)
        self._silence(step.silent_ms, taken)
        return step.lost_ms

    def _gap(self, missing_ms: float, taken: Taken) -> None:
        """Audio is missing: a short gap is concealed, a longer one ends what is open."""
        if not missing_ms:
            return
        first, start_ms = self.time.sample, self.time.call_position_ms
        samples = self.time.skip(missing_ms)
        if not self._is_heard:
            return
        if self._channels and missing_ms <= self._input.conceal_ms:
            taken.spans += self._closed(lambda _, channel: channel.conceal(samples, first))
        else:
            taken.spans += self._close_channels(Cut.GAP)
            taken.unheard.append(Unheard(start_ms, self.time.call_position_ms, is_pause=False))
            self._skip_to_position()

    def _silence(self, silent_ms: float, taken: Taken) -> None:
        """Nobody spoke, so nothing was sent."""
        if not silent_ms:
            return
        first, samples = self.time.sample, self.time.skip(silent_ms)
        has_begun = self._has_skipped and all(channel.keep_from == first for channel in self._channels)
        if self._is_heard and has_begun:  # a successor begins at this record: it must find nothing before it
            self._skip_to_position()
        elif self._is_heard:
            taken.spans += self._closed(lambda _, channel: channel.silence(samples, first))
            for channel in self._channels:
                channel.move_on(self.time.sample)

    def _resume(self, ready: Ready, taken: Taken) -> None:
        chunk = ready.chunk
        if chunk.media_ms is None and chunk.discarded_ms and not ready.is_late:
            self._gap(chunk.discarded_ms, taken)
        else:
            self._move_to(ready, taken)
        if self.paused.at_ms is not None:
            taken.unheard += self._end_pause()
            self._skip_to_position()

    def _close_channels(self, cut: Cut) -> list[ClosedSpan]:
        return self._closed(lambda _, channel: channel.close(cut))

    def _closed(self, hear: Callable[[int, Segmenter], list[Span]]) -> list[ClosedSpan]:
        """What each channel closes when all do the same, in an order that does not depend on the chunking."""
        spans = [(index, span) for index, channel in enumerate(self._channels) for span in hear(index, channel)]
        spans.sort(key=lambda closed: (closed[1].decided_sample, closed[0]))
        return [closed_span(self._channels, index, self.format.layout[index], span) for index, span in spans]

    def _skip_to_position(self) -> None:
        self._heard_from, self._has_skipped = self.time.save(), True
        for channel in self._channels:
            channel.skip_to(self.time.sample)

    # -- facts about spans

    @property
    def fresh_detectors(self) -> int:
        """Channels that could not be restored exactly and go on with a fresh detector."""
        return sum(not channel.restored_exactly for channel in self._channels)

    @property
    def next_seq(self) -> int:
        """The first record that was not released."""
        return self._order.next_seq

    @property
    def format(self) -> AudioFormat:
        """The format of the audio; valid once there is some."""
        assert self._format is not None
        return self._format

    def sources(self, span: Span) -> list[Heard]:
        """The records that hold the span, in media order; their order on the topic may differ."""
        return self._heard.sources(span)

    # -- durability

    def forget_covered(self) -> None:
        """Drop records whose audio no later span can need; call it after `sources` of the closed spans."""
        heard = self._channels if self._is_heard else []
        self._heard.forget(min((channel.keep_from for channel in heard), default=self.time.sample))

    @property
    def resume_seq(self) -> int:
        """The first record that a successor must take again."""
        return self._heard.oldest.seq if self._heard.oldest else self._order.next_seq

    def snapshot(self) -> StreamState:
        """The state to go on from at `resume_seq`."""
        audio, oldest = self._format, self._heard.oldest
        are_new = self.active_at_ms is None and all(c.next_sample == self.time.sample for c in self._channels)
        return StreamState(
            time=(oldest.position_before if oldest else self.time.save())._replace(offset_ms=self.time.offset_ms),
            seq=self.resume_seq,
            paused_at_ms=self.paused.at_ms,
            pause_left_ms=self.paused.left_ms,
            active_at_ms=self.active_at_ms,
            newest_capture_ms=self._newest_capture_ms,
            switch_seq=self._order.switch_seq,
            checksums=self._numbers.save(),
            ended=self.ended,
            started_again=self._numbers.started_again,
            format=(audio.encoding.value, audio.rate_hz, [role.value for role in audio.layout]) if audio else None,
            doubt=self._doubt.save(),
            is_copy=self.is_copy,
            is_tentative=self.is_tentative,
            channels=[] if are_new else [channel.snapshot() for channel in self._channels],
        )

    @classmethod
    def restore(cls, snapshot: StreamState, settings: Settings, taken_offset: int) -> "Stream":
        """The stream as it was after the record at this offset; the records from `resume_seq` on follow."""
        stream = cls(MediaTime.load(snapshot.time), settings.segment, settings.input)
        stream._order = StreamOrder.of(settings.input, snapshot.seq, snapshot.switch_seq)
        stream._numbers.restore(snapshot.checksums, taken_offset, started_again=snapshot.started_again)
        stream._doubt = Doubt(snapshot.doubt)
        stream.is_tentative = snapshot.is_tentative
        stream.ended = snapshot.ended
        stream.is_copy = snapshot.is_copy
        stream.paused = Pause(snapshot.paused_at_ms, snapshot.pause_left_ms)
        stream.active_at_ms = snapshot.active_at_ms
        stream._newest_capture_ms = snapshot.newest_capture_ms
        if snapshot.format:
            encoding, rate_hz, layout = snapshot.format
            stream._format = AudioFormat(Encoding(encoding), rate_hz, tuple(Role(role) for role in layout))
            stream._channels = [
                Segmenter.restore(Encoding(encoding), rate_hz, settings.segment, one) for one in snapshot.channels
            ]
            may_echo(stream._channels)
            if stream.time.rate_hz and not stream._channels:
                stream._open_channels()
        return stream
