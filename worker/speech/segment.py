"""Speech of one channel -> utterances. Pure: the spans are a function of the samples alone.

20 ms frames are cut at absolute sample indices and classified by the voice detector. A short window of votes opens an
utterance, a longer one closes it; it runs from padding before its first voiced frame to padding after its last, so
the time that the decision to close took is no part of it. Speech longer than the limit is split at its quietest
point and goes on as the next utterance; so does speech in the background, where the voice in front of it begins or
ends. How the audio was chunked, when snapshots were taken and what the time was changes nothing.

The detector follows the noise of the line. Frames that hold no sound of the line never reach it, or it would take them
for a quieter room and the noise after them for speech: a frame with lost samples votes as the frame before it, and a
frame of one constant value (digital silence, which gateways fill in for lost packets and mute) votes against speech.
"""

from collections.abc import Sequence

from callmood.schemas.common import Encoding
from callmood.worker.g711 import to_s16
from callmood.worker.records import Cut, Span
from callmood.worker.settings import SegmentSettings
from callmood.worker.speech import conceal, echo
from callmood.worker.speech.foreground import CHECK_FRAMES, LEAST_FRAMES, Loudness
from callmood.worker.speech.quietest import quietest
from callmood.worker.speech.recent import RecentAudio
from callmood.worker.speech.rules import Rules
from callmood.worker.speech.segment_state import SegmenterState
from callmood.worker.speech.vad import FRAME_MS, Vad, Vote

_VOICED = Vote.VOICED
_BLOCK_FRAMES = 500  # bounds the copies when a whole file is fed at once


class Segmenter:
    """One channel. `feed` it, or `conceal`, `close` and `skip_to` where audio is missing.

    Args:
        encoding: of this channel's audio: PCMU, PCMA or S16LE.
        rate_hz: 8000, 16000 or 48000.
        settings: the rules of cutting.
    """

    def __init__(self, encoding: Encoding, rate_hz: int, settings: SegmentSettings) -> None:
        self._encoding = encoding
        self._rules = Rules.of(encoding, rate_hz, settings)
        self._vad = self._fresh_vad()
        self.restored_exactly = True
        # Decided: frames below `_frame`; the votes of the latest, bit 0 is the newest; what is open since `_start`.
        self._frame = 0
        self._window = 0
        self._history = 0
        self._start: int | None = None
        self._first_voiced = 0
        self._last_voiced = 0
        self._last_heard = -1  # the newest frame with a voice: the detector votes for speech a while after it
        self._known_frame = 0  # when the open utterance became known
        self._stretches = echo.Stretches()
        self.keeps_levels = True
        self._floor = 0  # no later span may begin below: the last one's end, or a discontinuity
        self._recent = RecentAudio(encoding, self._rules.frame_samples)
        self._loudness = Loudness(self._recent.frames)
        self._cursor = 0  # the caller's position; behind `next_sample` while the audio refills

    # -- audio in

    def feed(self, first_sample: int, audio: bytes) -> list[Span]:
        """Take this channel's next audio in its native encoding, from the absolute `first_sample` on.

        Samples that were decided before a restore only refill the buffer.

        Returns:
            The spans that closed, in order.

        Raises:
            ValueError: samples are missing before `first_sample`; declare them by `conceal`, or `close` and `skip_to`.
        """
        recent, length = self._recent, self._rules.frame_samples
        known, samples = recent.known, recent.samples(audio)
        if first_sample > known:
            raise ValueError(f"samples {known} to {first_sample} are missing")
        recent.add(first_sample, audio)
        self._cursor = first_sample + samples
        is_whole = first_sample == known == self._frame * length and not samples % length
        if is_whole and samples <= _BLOCK_FRAMES * length and not recent.concealed and not recent.silent:
            votes = self._vad.votes(to_s16(self._encoding, audio).tobytes())
            spans = [] if self._is_pause(votes) else self._count(votes)
        else:
            spans = self._decide()
        recent.forget(min(self.keep_from, self._frame * length))
        return spans

    def conceal(self, samples: int, first_sample: int | None = None) -> list[Span]:
        """Bridge a short gap: the detector does not hear it; a span counts how much of it is in there.

        `first_sample` (by default right after the last audio) must be given while refilling after a restore.
        """
        first = self._cursor if first_sample is None else first_sample
        self._recent.concealed.append((first, first + samples))
        return self.feed(first, self._recent.silence(samples))

    def silence(self, samples: int, first_sample: int) -> list[Span]:
        """Nobody speaks, and nothing is sent; the detector is left alone. If it is long, `move_on` goes to its end."""
        undecided = max(0, self.next_sample - first_sample)  # after a restore, if the log has lost what was there
        heard = min(samples, undecided + self._rules.silent_samples)
        self._recent.silent.append((first_sample, first_sample + heard))
        return self.feed(first_sample, self._recent.silence(heard))

    def move_on(self, sample: int) -> None:
        """After `silence`, which has closed what was open: continue at an absolute sample with the same detector."""
        if sample > self._cursor:
            self._move_to(sample)

    def close(self, cut: Cut) -> list[Span]:
        """End the open utterance here; what follows will not be joined to what was."""
        if self._refilling:
            return []  # decided before the restore
        spans = self._close(cut, self._cursor) if self._start is not None else []
        self._floor = max(self._floor, self._cursor)
        self._window = 0
        self._restart()
        return spans

    def skip_to(self, sample: int) -> None:
        """Continue at an absolute sample with a fresh detector; nothing may be open.

        Raises:
            ValueError: an utterance is open, or the sample lies in audio already decided.
        """
        is_known = self._refilling and sample <= self.next_sample
        self._move_to(sample)
        if not is_known:
            self._vad = self._fresh_vad()

    def _move_to(self, sample: int) -> None:
        if self._refilling and sample <= self.next_sample:
            self._recent.bridge(sample)
            self._cursor = sample
            return
        if self._refilling:
            self._start = None  # the log has lost the audio of what was open
        if self._start is not None or sample < self.next_sample:
            raise ValueError("close first, and skip forward only")
        frame = sample // self._rules.frame_samples
        moved = self._history << min(frame - self._frame, self._rules.history_frames)
        self._history = moved & self._rules.history_mask
        self._frame, self._floor, self._cursor, self._window = frame, sample, sample, 0
        self._restart()

    # -- facts

    @property
    def next_sample(self) -> int:
        """The first sample that no decision has seen."""
        return max(self._frame * self._rules.frame_samples, self._floor)

    @property
    def keep_from(self) -> int:
        """The first sample whose audio a later span may still need; never decreases."""
        if self._start is not None:
            return self._start
        rules = self._rules
        candidates = self._window & (rules.open_mask >> 1)
        first = (self._frame - candidates.bit_length()) * rules.frame_samples - rules.padding_samples
        return max(self._floor, first)

    @property
    def room(self) -> int:
        """Samples that can follow and, whatever they hold, close nothing."""
        rules, start, is_open = self._rules, self.keep_from, self._start is not None
        frames = rules.frames_before_close(self._frame, self._window, start, is_open=is_open)
        fade = self._loudness.next_fade(self._frame) if is_open else start // rules.frame_samples + LEAST_FRAMES
        return min(self._frame + frames + 1, fade) * rules.frame_samples - 1 - self._recent.known

    def voiced_ms(self, start_sample: int, end_sample: int) -> int:
        """Voiced time among the decided frames that begin within the samples; forgets after the longest utterance."""
        length = self._rules.frame_samples
        oldest = self._frame - self._rules.history_frames
        start = max(-(-start_sample // length), oldest)
        end = min(-(-end_sample // length), self._frame)
        if start >= end:
            return 0
        votes = self._history >> (self._frame - end) & ((1 << end - start) - 1)
        return votes.bit_count() * FRAME_MS

    @property
    def frame_samples(self) -> int:
        """Samples of a frame."""
        return self._rules.frame_samples

    def levels(self, first_frame: int, end_frame: int, *, known_by: int) -> echo.Levels:
        """The levels [frames] of what was speech, as known at a frame; see `echo.Stretches`."""
        open_now = [] if self._start is None else [self._stretch(self._start, self._frame)]
        return self._stretches.levels(first_frame, end_frame, known_by=known_by, more=open_now)

    # -- durability

    def snapshot(self) -> SegmenterState:
        """The state to restore from."""
        rules = self._rules
        return SegmenterState(
            version=rules.version,
            frame=self._frame,
            window=self._window.to_bytes(-(-rules.window_mask.bit_length() // 8)),
            history=self._history.to_bytes(-(-rules.history_frames // 8)),
            start=self._start,
            first_voiced=self._first_voiced,
            last_voiced=self._last_voiced,
            floor=self._floor,
            keep_from=self.keep_from,
            vad=self._vad.dump(),
            last_heard=self._last_heard,
            known_frame=self._known_frame,
            stretches=self._stretches.save(),
        )

    @classmethod
    def restore(
        cls, encoding: Encoding, rate_hz: int, settings: SegmentSettings, snapshot: SegmenterState
    ) -> "Segmenter":
        """The channel as it was. With another detector or other settings it starts a fresh detector at `next_sample`.

        `restored_exactly` says which.
        """
        channel = cls(encoding, rate_hz, settings)
        channel._frame = snapshot.frame
        channel._window = int.from_bytes(snapshot.window)
        channel._history = int.from_bytes(snapshot.history)
        channel._start = snapshot.start
        channel._first_voiced = snapshot.first_voiced
        channel._last_voiced = snapshot.last_voiced
        channel._last_heard = snapshot.last_heard
        channel._known_frame = snapshot.known_frame
        channel._stretches = echo.Stretches(snapshot.stretches)
        channel._floor = snapshot.floor
        channel.restored_exactly = snapshot.version == channel._rules.version and bool(snapshot.vad)
        if channel.restored_exactly:
            channel._vad = Vad.load(settings.vad_mode, rate_hz, snapshot.vad)
        else:  # these settings may reach further back than the audio that was kept
            channel._floor = max(channel._floor, snapshot.keep_from)
        channel._cursor = channel._recent.base = channel.keep_from
        channel._loudness.begin(max(snapshot.first_voiced, -(-channel.keep_from // channel.frame_samples)))
        if channel._floor > channel._frame * channel._rules.frame_samples:
            channel._restart()
        return channel

    # -- inside

    @property
    def _refilling(self) -> bool:
        return self._cursor < self.next_sample

    def _fresh_vad(self) -> Vad:
        return Vad(self._rules.settings.vad_mode, self._rules.rate_hz)

    def _restart(self) -> None:
        """Forget the audio below `_floor`; the frame that the floor cuts begins with silence."""
        self._recent.restart(self._frame * self._rules.frame_samples, self._floor)

    def _decide(self) -> list[Span]:
        """Judge all whole frames that are there."""
        length, known, spans = self._rules.frame_samples, self._recent.known, []
        for frame in range(self._frame, known // length, _BLOCK_FRAMES):
            end = min(frame + _BLOCK_FRAMES, known // length)
            spans += self._count(self._votes(frame, end))
        return spans

    def _votes(self, first_frame: int, end_frame: int) -> Sequence[Vote | None]:
        """The vote of each frame; None for one that the detector must not hear."""
        pcm, unheard = self._recent.pcm(first_frame, end_frame).tobytes(), (self._recent.concealed, self._recent.silent)
        if not any(unheard):
            return self._vad.votes(pcm)
        known = [[one for one in some if one[1] > max(one[0], self._floor)] for some in unheard]
        length = self._rules.frame_samples
        size, lost = 2 * length, conceal.frames_without_sound(known, length, first_frame, end_frame)
        votes: list[Vote | None] = []
        for number, frame in enumerate(range(first_frame, end_frame)):
            heard = pcm[number * size : (number + 1) * size]
            votes += [None] if frame in lost else self._vad.votes(heard)
        return votes

    def _is_pause(self, votes: list[Vote]) -> bool:
        """Count votes of silence where nothing is open or can open; returns whether they are that."""
        if self._start is not None or self._window or any(votes):
            return False
        self._frame += len(votes)
        self._history = self._history << len(votes) & self._rules.history_mask
        return True

    def _count(self, votes: Sequence[Vote | None]) -> list[Span]:
        """The hot loop: votes into windows, windows into transitions."""
        rules, spans, bits, voiced, noted = self._rules, list[Span](), 0, bool(self._history & 1), self._frame
        for vote in votes:
            frame = self._frame
            if vote is not None:
                voiced = vote > 0
                if vote == _VOICED:
                    self._last_heard = frame
            elif self._last_heard == frame - 1:
                self._last_heard = frame
            bits = bits << 1 | voiced
            self._window = window = (self._window << 1 | voiced) & rules.window_mask
            if voiced:
                self._last_voiced = frame
            self._frame = frame = frame + 1
            if self._start is None:
                if window and (window & rules.open_mask).bit_count() >= rules.open_votes:
                    self._open()
            elif (window & rules.close_mask).bit_count() <= rules.close_votes:
                self._note(bits, frame - noted)
                bits, noted = 0, frame
                spans += self._close(Cut.SILENCE, frame * rules.frame_samples)
            elif not frame % CHECK_FRAMES or (frame + 1) * rules.frame_samples - self._start > rules.max_samples:
                self._note(bits, frame - noted)
                bits, noted = 0, frame
                spans += self._divide(self._start, frame)
        self._note(bits, self._frame - noted)
        return spans

    def _note(self, votes: int, frames: int) -> None:
        """Add the newest votes to the history."""
        self._history = (self._history << frames | votes) & self._rules.history_mask

    def _open(self) -> None:
        votes = self._window & self._rules.open_mask
        self._known_frame = self._frame
        self._first_voiced = self._frame - votes.bit_length()
        first = self._first_voiced * self._rules.frame_samples
        self._start = max(self._floor, first - self._rules.padding_samples)
        self._loudness.begin(max(self._first_voiced, -(-self._start // self._rules.frame_samples)))
        self._window = self._rules.window_mask  # the closing window starts full of speech

    def _close(self, cut: Cut, decided_sample: int) -> list[Span]:
        rules, end_frame = self._rules, self._last_voiced + 1
        spans = self._tell_background(end_frame, decided_sample)
        start = self._keep_levels(self._frame)
        self._start = None
        self._window = 0
        if not rules.is_long(self._first_voiced, end_frame):
            return spans
        self._floor = min(end_frame * rules.frame_samples + rules.padding_samples, decided_sample)
        heard_end = (self._last_heard + 1) * rules.frame_samples
        return [*spans, self._span((start, self._floor), heard_end, decided_sample, cut)]

    def _divide(self, start: int, frame: int) -> list[Span]:
        """Split the open utterance where only background has followed for a while, or if it is as long as it may be."""
        length, fade = self._rules.frame_samples, None if frame % CHECK_FRAMES else self._loudness.fade(frame)
        if fade is not None and self._rules.is_long(self._first_voiced, fade) and self._is_voiced(fade, frame):
            return self._split(fade * length, Cut.SILENCE)
        if (frame + 1) * length - start <= self._rules.max_samples:
            return []
        low, high = self._rules.split_range(start)
        quiet = (low + quietest(self._recent.frames(low, high)[0])) * length
        return self._tell_background(frame, frame * length) or self._split(quiet, Cut.FORCED)

    def _split(self, split: int, cut: Cut) -> list[Span]:
        """The open utterance goes on as the next one from a border of frames on."""
        decided = self._frame * self._rules.frame_samples
        spans = self._tell_background(split // self._rules.frame_samples, decided)
        return [*spans, self._go_on(split, decided, cut)]

    def _tell_background(self, end_frame: int, decided_sample: int) -> list[Span]:
        """Split off the background before the voice in front, if both are long enough for an utterance."""
        first, onset = self._first_voiced, self._loudness.onset(end_frame)
        if onset is None or not (self._rules.is_long(first, onset) and self._rules.is_long(onset, end_frame)):
            return []
        border = onset * self._rules.frame_samples
        return [self._go_on(border, decided_sample, Cut.SILENCE)] if self._is_voiced(first, onset) else []

    def _go_on(self, sample: int, decided_sample: int, cut: Cut) -> Span:
        """The open utterance begins here, at a border of frames; returns what was before it."""
        frame = sample // self._rules.frame_samples
        span = self._span((self._keep_levels(frame), sample), sample, decided_sample, cut)
        self._start = self._floor = sample
        self._first_voiced = frame
        self._loudness.begin(frame)
        return span

    def _is_voiced(self, first_frame: int, end_frame: int) -> bool:
        """Whether there is speech, and not the noise of a long pause."""
        length = self._rules.frame_samples
        return 2 * self.voiced_ms(first_frame * length, end_frame * length) >= (end_frame - first_frame) * FRAME_MS

    def _stretch(self, start: int, end_frame: int) -> echo.Stretch:
        first = -(-start // self._rules.frame_samples)
        return echo.Stretch(self._known_frame, first, echo.levels_of(*self._recent.frames(first, end_frame)))

    def _keep_levels(self, end_frame: int) -> int:
        """Keep those of the open utterance up to a frame; returns where it begins."""
        assert self._start is not None
        if self.keeps_levels:
            stretch = self._stretch(self._start, end_frame)
            self._stretches.add(stretch, oldest_frame=self._frame - self._rules.history_frames)
        return self._start

    def _span(self, bounds: tuple[int, int], heard_end: int, decided_sample: int, cut: Cut) -> Span:
        start, end = bounds
        length = self._rules.frame_samples
        voiced_start = max(start, min(self._first_voiced * length, end - length))
        voiced_end = min(end, max(heard_end, voiced_start + length))
        audio, missing = self._recent.filled(start, end, self._rules.rate_hz)
        return Span(start, end, voiced_start, voiced_end, decided_sample, cut, missing, audio)
