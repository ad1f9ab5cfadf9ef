"""One live call: its streams, the utterances that wait for the model, its aggregate, and its stored state. Pure.

One rule makes restarts exact: whatever one record closes is published together with the call's state right after that
record, its checkpoint, never before and never without it. A successor that restores the checkpoint and takes the
records again from each stream's `seq` on does exactly what this process would have done.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from callmood.schemas.common import Event, Notice
from callmood.worker.call import streams
from callmood.worker.call.checkpoint import Checkpoint, Stored
from callmood.worker.call.ending import LATE_MS, End, Ending
from callmood.worker.call.fold import Fold, Folded
from callmood.worker.call.group import Group, Groups
from callmood.worker.call.hold import Hold
from callmood.worker.call.outputs import Due, Outcome, Released, Saved
from callmood.worker.call.places import Places
from callmood.worker.call.rule import Rule
from callmood.worker.call.series import Series
from callmood.worker.call.streams import Forgotten
from callmood.worker.call.told import Told
from callmood.worker.call.utterance import Facts, utterance_of
from callmood.worker.records import Chunk, Cut, Prediction, Unheard, Utterance
from callmood.worker.settings import Settings
from callmood.worker.speech.media_time import MediaTime
from callmood.worker.speech.stream import Stream
from callmood.worker.speech.taken import Taken

_FORGOTTEN = ""  # no name of a stream


class Call:
    """One call of one partition. Records before `first_offset` that name it are of an earlier call."""

    def __init__(self, call_id: str, settings: Settings, rules: Sequence[Rule], *, first_offset: int = 0) -> None:
        self.id = call_id
        self.first_offset = first_offset
        self.seen_at_ms = 0
        """The partition's clock at the call's last record, or at its end."""
        self.fold = Fold(call_id, rules)
        self.last_offset = -1
        """Newest record of the call that this worker or an earlier one has read."""
        self.is_over = False
        """Whether no record can change the call any more; answers may still be missing."""
        self.has_end = False
        """Whether one of its streams has ended."""
        self._hold = Hold()
        self._has_reopened = False
        """Whether it was over, and what it does next will say that it is not."""
        self.ending = Ending()
        """Which record it goes on with although it is over, or is about to be."""
        self._paused_at_ms: int | None = None
        """The start of the pause on the call's time line; stays as it is at the call's end."""
        self._settings = settings
        self._streams: dict[str, Stream] = {}
        self._forgotten = Forgotten()
        self.taken_offset = -1
        """Newest record that this state contains; behind `last_offset` while a successor reads records again."""
        self._restored_offset = -1
        """`taken_offset` of the checkpoint that this call was restored from."""
        self._places = Places()
        self._told = Told()
        self._groups = Groups()
        self._released: list[Released] = []
        self._alerts: list[Mapping[str, Any]] = []
        self._checkpoint: Checkpoint | None = None  # that of the newest released group
        self._unsettled: dict[int, tuple[str, int]] = {}  # stream and seq of each open offset
        self.published: Folded | None = None
        """The call as the newest confirmed commit tells it."""

    # -- records in

    def take(self, chunk: Chunk, *, elapsed_ms: int, now_ms: float) -> Outcome:
        """Take one record; `now_ms` only feeds the latency figures.

        Raises:
            BadRecord: the record does not fit its call, which continues without it.
        """
        self.last_offset = max(self.last_offset, chunk.position.offset)
        self.taken_offset = max(self.taken_offset, chunk.position.offset)
        is_of_forgotten = chunk.stream not in self._streams and chunk.position.offset <= self._restored_offset
        if is_of_forgotten or chunk.position.offset < self.first_offset:
            return Outcome([], is_duplicate=True)  # read again: of a forgotten stream, or of the call before this one
        is_ordinary = self._goes_on(chunk)
        stream = self._stream(chunk)
        next_seq = stream.next_seq
        was_begun = stream.is_begun
        taken, is_duplicate = stream.push(chunk)
        if not is_ordinary:
            self._streams.setdefault(chunk.stream, stream)
            self._place(chunk, taken, was_begun=was_begun, elapsed_ms=elapsed_ms)
        if is_duplicate:
            return Outcome([], is_duplicate=True)
        if self.is_over:
            self.is_over, self._has_reopened = False, True
        stream.mark_active(elapsed_ms)
        self.seen_at_ms = max(self.seen_at_ms, elapsed_ms)
        self._unsettled[chunk.position.offset] = (chunk.stream, max(chunk.seq, next_seq))
        all_taken, is_plain = {chunk.stream: taken}, is_ordinary and taken.is_plain
        if not is_plain:
            self._learn(chunk, all_taken)
        elif not taken.spans:
            stream.forget_covered()
            return Outcome([], is_plain=True)
        early = streams.early_end(chunk, self._streams)
        if early is not None:
            is_new = chunk.position.offset > self._restored_offset
            return Outcome(self._group(all_taken, now_ms, end=early) if is_new else [])
        return Outcome(self._close(all_taken, now_ms), is_plain=is_plain)

    def series(self, chunk: Chunk, elapsed_ms: int) -> Series | None:
        """A series that begins with this record; None if it has to be taken alone."""
        is_ordinary = not self.ending.is_said and self._goes_on(chunk)
        return Series.begin(self._streams[chunk.stream], chunk, elapsed_ms, self._told) if is_ordinary else None

    def take_series(self, series: Series) -> None:
        """Take the records of a series, which close nothing."""
        series.take()
        self.last_offset = max(self.last_offset, series.last_offset)
        self.taken_offset = max(self.taken_offset, series.last_offset)
        self.seen_at_ms = max(self.seen_at_ms, series.elapsed_ms)
        self._unsettled.update({chunk.position.offset: (chunk.stream, chunk.seq) for chunk in series.chunks})

    def _goes_on(self, chunk: Chunk) -> bool:
        """Whether the record can bring nothing but the audio with which a known stream goes on."""
        is_new = chunk.position.offset > self._restored_offset and not self._told.is_news(chunk)
        is_live = not (self.is_over or self._has_reopened) and self._paused_at_ms is None
        return is_new and is_live and streams.goes_on(chunk, self._streams)

    def _learn(self, chunk: Chunk, taken: dict[str, Taken]) -> None:
        """What a record brings of the call: its notice and attributes, a pause, a hold."""
        self._told.take(chunk, self.fold)
        self._paused_at_ms = streams.follow_pause(chunk.stream, self._streams, taken, self._paused_at_ms)
        if chunk.position.offset > self._restored_offset:
            self._hold.follow(taken[chunk.stream])

    def pause(self, offset: int, capture_ms: int, elapsed_ms: int, now_ms: float) -> tuple[list[Utterance], bool]:
        """The record at this offset asks for a pause and is refused for something else: the call pauses all the same.

        Returns the utterances that this closes, and whether the call settles the offset with its state.
        """
        self.last_offset = max(self.last_offset, offset)
        if offset <= self._restored_offset or (self.is_over and elapsed_ms >= self.ending.until_ms):
            return [], False
        self.is_over, self._has_reopened = False, self._has_reopened or self.is_over
        self.taken_offset = max(self.taken_offset, offset)
        self.seen_at_ms = max(self.seen_at_ms, elapsed_ms)
        if self._places.begin(capture_ms):
            self.fold.start(max(0, capture_ms))
        taken = {name: stream.pause() for name, stream in self._streams.items()}
        if self._paused_at_ms is None:
            self._paused_at_ms = max((s.time.call_position_ms for s in self._streams.values()), default=0)
        self._unsettled[offset] = (_FORGOTTEN, 0)
        return self._close(taken, now_ms), True

    def refuse(self, offset: int) -> None:
        """The record at this offset was taken in part and has failed: it is no record of the call any more."""
        self._unsettled.pop(offset, None)

    def stall(self, quiet_since_ms: int, now_ms: float) -> list[Utterance]:
        """Close what is open in the streams without a record since then, so that they do not hold the watermark."""
        stalled = streams.quiet_since(quiet_since_ms, self._streams)
        taken = {name: self._streams[name].close(Cut.GAP) for name in stalled}
        streams.hear_one_copy({name: stream for name, stream in self._streams.items() if name not in stalled})
        for name in stalled:
            self._paused_at_ms = streams.follow_pause(name, self._streams, taken, self._paused_at_ms)
            self._streams[name] = self._streams.pop(name)  # the newest to stall comes last
        return self._close(taken, now_ms, let_go=stalled)

    @property
    def active_at_ms(self) -> int | None:
        """The partition's clock at the newest record of the stream that stalls next; None if all have stalled."""
        return min((s.active_at_ms for s in self._streams.values() if s.active_at_ms is not None), default=None)

    def end(self, reason: str, *, elapsed_ms: int, now_ms: float) -> list[Utterance]:
        """The clock ends the call; without an end of its own, it goes on with any record."""
        self.seen_at_ms = elapsed_ms
        until_ms = elapsed_ms + self._settings.call.resume_s * 1000
        self.ending = Ending() if self.ending.is_said else Ending(until_ms)
        return self._end(reason, {}, now_ms)

    @property
    def is_paused(self) -> bool:
        """Whether the producer has paused the call, or had at its end."""
        return self._paused_at_ms is not None

    @property
    def idle_ms(self) -> int:
        """Time without a record after which the call is over."""
        settings = self._settings.call
        if self.ending.is_said:
            return LATE_MS
        left_s = min(settings.leave_s, settings.idle_s) if self.has_end else settings.idle_s
        return 1000 * (left_s if self._hold.from_ms is None else settings.hold_s)

    @property
    def fresh_detectors(self) -> int:
        """Number of channels that could not be restored exactly and continue with a new voice detector."""
        return sum(stream.fresh_detectors for stream in self._streams.values())

    @property
    def has_news(self) -> bool:
        """Whether there is something to publish."""
        return self._groups.has_complete or bool(self._released) or not self.fold.is_told(self.published)

    def _stream(self, chunk: Chunk) -> Stream:
        stream = self._streams.get(chunk.stream)
        if stream is not None:
            return stream
        streams.require_room(self._streams)
        if self._places.begin(chunk.capture_ms):
            self.fold.start(max(0, chunk.capture_ms))
        time = MediaTime(max(0, chunk.capture_ms - (self._places.origin_ms or 0)))
        stream = Stream(time, self._settings.segment, self._settings.input)
        streams.join_track(chunk, stream, self._streams)
        if self._paused_at_ms is not None:
            stream.paused.begin(min(self._paused_at_ms, stream.time.offset_ms))
        return stream

    def _place(self, chunk: Chunk, taken: Taken, *, was_begun: bool, elapsed_ms: int) -> None:
        """Put a new stream on the call's time line, or see where a known one goes on."""
        if chunk.position.offset <= self._restored_offset:
            return
        stream, origin_ms = self._streams[chunk.stream], self._places.origin_ms
        others = [other for other in self._streams.values() if other is not stream and other.is_begun]
        if was_begun:
            self._places.compare(stream, others, chunk)
        elif stream.time.zero_ms is not None:
            self._places.place(stream, others, chunk, taken, elapsed_ms=elapsed_ms)
        if self._places.origin_ms is not None and self._places.origin_ms != origin_ms:
            self.fold.start(self._places.origin_ms)

    def _close(self, taken: dict[str, Taken], now_ms: float, let_go: Sequence[str] = ()) -> list[Utterance]:
        """Group what was closed. If a stream has ended, so has the call, if none is left or the record says so."""
        gone = [*let_go]
        while (ended := streams.next_end(taken)) is not None:
            (name, end), self.has_end = ended, True
            gone += streams.end(name, self._streams, taken)
            if streams.ends_call(end, self._streams):
                awaited = streams.sending(self._streams)
                self.ending = Ending(self.seen_at_ms + LATE_MS, end.capture_ms, awaited) if awaited else Ending()
                return self._end(Event.END.value, taken, now_ms)
            gone += streams.reach(self._streams[name], self._streams, taken)
        return self._group(taken, now_ms, let_go=gone)

    def _forget_streams(self) -> None:
        """Bound the state of a call with many reconnects."""
        forgotten = streams.stalled_first(self._streams)
        for name in forgotten:
            self._forgotten = self._forgotten.adding(self._streams.pop(name))
        if forgotten:  # their name may come again, as a new stream
            names = dict.fromkeys(forgotten, _FORGOTTEN)
            self._unsettled = {at: (names.get(name, name), seq) for at, (name, seq) in self._unsettled.items()}

    def _end(self, reason: str, taken: dict[str, Taken], now_ms: float) -> list[Utterance]:
        known = self._forgotten
        for name, stream in self._streams.items():
            taken.setdefault(name, Taken()).extend(stream.close(Cut.END))
            known = known.adding(stream)
            if self._paused_at_ms is not None:  # if the call goes on, so does its pause
                stream.paused.begin(stream.time.call_position_ms)
        self.is_over = True
        end = End(reason if known.had_audio else "no_audio", known.end_ms, self.ending.is_open)
        return self._group(taken, now_ms, end=end, let_go=self._streams)

    def _group(
        self, taken: Mapping[str, Taken], now_ms: float, *, end: End | None = None, let_go: Collection[str] = ()
    ) -> list[Utterance]:
        """Turn what was closed into utterances that wait for the model together; forget what these streams held."""
        utterances: list[Utterance] = []
        unheard: list[Unheard] = []
        facts = Facts(self._places.origin_ms or 0, self._told.names, self._told.notice, self._settings.policy)
        for name, brought in taken.items():
            stream = self._streams[name]
            stream.is_tentative &= not (brought.spans or brought.unheard)
            utterances.extend(utterance_of(self.id, name, stream, closed, facts) for closed in brought.spans)
            unheard.extend(brought.unheard)
            if name in let_go:
                stream.let_go()
            else:
                stream.forget_covered()
        if let_go:
            self._forget_streams()
        asked = [u for u in utterances if u.wants_emotion or (self._settings.model.speech_check and not u.is_echo)]
        goes_on = self._has_reopened and self.taken_offset > self._restored_offset  # not by a record read again
        if utterances or unheard or end or goes_on:
            self._hold.tell(max((s.time.call_position_ms for s in self._streams.values()), default=0), unheard)
            self._places.is_settled = True
            group = Group(utterances, unheard, end, self._checkpoint_now(), now_ms)
            group.has_reopened = self._has_reopened
            self._has_reopened = end is not None and end.is_open and not self.is_over
            self._groups.add(group, asked)
        return asked

    # -- answers in

    def answer(self, utterance_id: str, prediction: Prediction, now_ms: float) -> None:
        """Take the inference process's answer; one that this call does not wait for is ignored."""
        self._groups.answer(utterance_id, prediction, now_ms)

    def release(self) -> None:
        """Fold the results of complete groups, in the order in which their utterances closed."""
        for group in self._groups.complete():
            self._released += group.fold_into(self.fold)
            self._alerts += self.fold.take_alerts()
            self._checkpoint = group.checkpoint

    @property
    def is_finished(self) -> bool:
        """Whether the call is over and all its results are released."""
        return self.is_over and not self._groups

    # -- commits

    def due(self) -> Due | None:
        """All that the next commit must hold, or None while the first results are missing."""
        self.release()
        saved = self._save()
        if saved is None:
            assert not self._released
            return None
        return Due(
            results=tuple(self._released),
            alerts=tuple(self._alerts),
            saved=saved,
            folded=self.fold.folded,
            is_changed=not self.fold.is_told(self.published),
            is_first=self.published is None,
        )

    def confirm(self, due: Due) -> None:
        """Drop what the store now has."""
        del self._released[: len(due.results)]
        del self._alerts[: len(due.alerts)]
        for offset in due.saved.settled_offsets:
            del self._unsettled[offset]
        self.published = due.folded

    @property
    def open_offsets(self) -> Collection[int]:
        """The records of the call that a new owner would have to read again."""
        return self._unsettled.keys()

    def _save(self) -> Saved | None:
        if self.is_finished and not self.ending.is_open:
            return Saved(b"", list(self._unsettled))
        if not self._groups:
            self._checkpoint = self._checkpoint_now()
        if self._checkpoint is None:
            return None
        settled = list(self._unsettled) if self.is_finished else self._checkpoint.covered(self._unsettled)
        return Saved(Stored(self._checkpoint, self.fold.save(), self.last_offset).pack(), settled)

    def _checkpoint_now(self) -> Checkpoint:
        return Checkpoint(
            streams={name: stream.snapshot() for name, stream in self._streams.items()},
            origin_ms=self._places.origin_ms,
            notice=self._told.notice and self._told.notice.value,
            seen_at_ms=self.seen_at_ms,
            taken_offset=self.taken_offset,
            paused_at_ms=self._paused_at_ms,
            forgotten=self._forgotten,
            is_settled=self._places.is_settled,
            has_end=self.has_end,
            hold_from_ms=self._hold.from_ms,
            reserved=self._told.names,
            ending=self.ending,
            is_over=self.is_over,
            first_offset=self.first_offset,
        )

    @classmethod
    def restore(cls, call_id: str, blob: bytes, settings: Settings, rules: Sequence[Rule]) -> "Call":
        """The call in its stored state; its records from each stream's `seq` on must follow.

        Raises:
            ConfigurationError: another version of the worker wrote the state.
        """
        stored = Stored.unpack(blob)
        checkpoint = stored.checkpoint
        call = cls(call_id, settings, rules, first_offset=checkpoint.first_offset)
        call.fold.load(stored.fold)
        call.seen_at_ms = checkpoint.seen_at_ms
        call.last_offset = stored.last_offset
        call._places = Places(checkpoint.origin_ms, is_settled=checkpoint.is_settled)
        call._told = Told(Notice(checkpoint.notice) if checkpoint.notice else None, checkpoint.reserved)
        call._streams = streams.restored(checkpoint.streams, settings, checkpoint.taken_offset)
        call._paused_at_ms = checkpoint.paused_at_ms
        call.has_end = checkpoint.has_end
        call.ending = checkpoint.ending
        call.is_over = checkpoint.is_over
        call._hold = Hold(checkpoint.hold_from_ms)
        call._forgotten = Forgotten(*checkpoint.forgotten)
        call.taken_offset = call._restored_offset = checkpoint.taken_offset
        call._has_reopened = call.fold.may_go_on and not call.is_over
        call._checkpoint = checkpoint
        call.published = call.fold.folded
        return call
