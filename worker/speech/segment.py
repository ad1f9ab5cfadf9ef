"""Speech of one channel -> utterances. Pure: the spans are a function of the samples alone.

20 ms frames are cut at absolute sample indices and classified by the voice detector. A short window of votes opens an
utterance, a longer one closes it; it runs from padding before its first voiced frame to padding after its last, so
the time that the decision to close took is no part of it. Speech longer than the limit is split at its quietest
point and goes on as the next utterance. How the audio was chunked, when snapshots were taken and what the time was
changes nothing.

The detector follows the noise of the line. Frames that hold no sound of the line never reach it, or it would take them
for a quieter room and the noise after them for speech: a frame with lost samples votes as the frame before it, and a
frame of one constant value (digital silence, which gateways fill in for lost packets and mute) votes against speech.
"""

from collections.abc import Sequence

from callmood.schemas.common import Encoding
from callmood.worker.g711 import Samples, to_s16
from callmood.worker.records import Cut, Span
from callmood.worker.settings import SegmentSettings
from callmood.worker.speech import conceal, echo
from callmood.worker.speech.quietest import quietest
from callmood.worker.speech.rules import Rules
from callmood.worker.speech.segment_state import SegmenterState
from callmood.worker.speech.vad import FRAME_MS, Vad, Vote

_SILENCE = {Encoding.PCMU: b"\xff", Encoding.PCMA: b"\xd5", Encoding.S16LE: b"\0\0"}
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
        self._width = encoding.bytes_per_sample
        self._silence = _SILENCE[encoding]
        self._vad = self._fresh_vad()
        self.restored_exactly = True
        # Decided: frames below `_frame`, the votes of the latest of them (bit 0 is the newest) in two lengths, and
        # the utterance that is open, if `_start` is not None.
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
        # Audio: native bytes from `_base` on, and the caller's position; behind `next_sample` while it refills.
        self._base = 0
        self._audio = bytearray()
        self._cursor = 0
        self._concealed: list[tuple[int, int]] = []
        self._silent: list[tuple[int, int]] = []

    # -- audio in

    def feed(self, first_sample: int, audio: bytes) -> list[Span]:
        """Take this channel's next audio in its native encoding, from the absolute `first_sample` on.

        Samples that were decided before a restore only refill the buffer.

        Returns:
            The spans that closed, in order.

        Raises:
            ValueError: samples are missing before `first_sample`; declare them by `conceal`, or `close` and `skip_to`.
        """
        known, length = self._known, self._rules.frame_samples
        if first_sample > known:
            raise ValueError(f"samples {known} to {first_sample} are missing")
        samples = len(audio) // self._width
        self._audio += audio[(known - first_sample) * self._width :] if first_sample < known else audio
        self._cursor = first_sample + samples
        is_whole = first_sample == known == self._frame * length and not samples % length
        if is_whole and samples <= _BLOCK_FRAMES * length and not self._concealed and not self._silent:
            votes = self._vad.votes(to_s16(self._encoding, audio).tobytes())
            spans = [] if self._is_pause(votes) else self._count(votes)
        else:
            spans = self._decide()
        self._forget()
        return spans

    def conceal(self, samples: int, first_sample: int | None = None) -> list[Span]:
        """Bridge a short gap: the detector does not hear it; a span counts how much of it is in there.

        `first_sample` (by default right after the last audio) must be given while refilling after a restore.
        """
        first = self._cursor if first_sample is None else first_sample
        self._concealed.append((first, first + samples))
        return self.feed(first, self._silence * samples)

    def silence(self, samples: int, first_sample: int) -> list[Span]:
        """Nobody speaks, and nothing is sent; the detector is left alone. If it is long, `move_on` goes to its end."""
        undecided = max(0, self.next_sample - first_sample)  # after a restore, if the log has lost what was there
        heard = min(samples, undecided + self._rules.silent_samples)
        self._silent.append((first_sample, first_sample + heard))
        return self.feed(first_sample, self._silence * heard)

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
            self._bridge(sample)
            return
        if self._refilling:
            self._start = None  # the log has lost the audio of what was open
        if self._start is not None or sample < self.next_sample:
            raise ValueError("close first, and skip forward only")
        frame = sample // self._rules.frame_samples
        self._history = self._history << min(frame - self._frame, self._rules.history_frames)
        self._history &= self._rules.history_mask
        self._frame, self._floor, self._cursor, self._window = frame, sample, sample, 0
        self._restart()

    def _bridge(self, sample: int) -> None:
        """Refill with silence where the log has lost the audio that a restore needs."""
        missing = max(0, sample - self._known)
        self._concealed.append((sample - missing, sample))
        self._audio += self._silence * missing
        self._cursor = sample

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
        rules, is_open = self._rules, self._start is not None
        frames = rules.frames_before_close(self._frame, self._window, self.keep_from, is_open=is_open)
        return (self._frame + frames + 1) * rules.frame_samples - 1 - self._known

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
        open_now = [] if self._start is None else [self._stretch(self._start)]
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
        channel._cursor = channel._base = channel.keep_from
        if channel._floor > channel._frame * channel._rules.frame_samples:
            channel._restart()
        return channel

    # -- inside

    @property
    def _known(self) -> int:
        return self._base + len(self._audio) // self._width

    @property
    def _refilling(self) -> bool:
        return self._cursor < self.next_sample

    def _fresh_vad(self) -> Vad:
        return Vad(self._rules.settings.vad_mode, self._rules.rate_hz)

    def _restart(self) -> None:
        """Forget the audio below `_floor`; the frame that the floor cuts begins with silence."""
        self._base = self._frame * self._rules.frame_samples
        self._audio = bytearray(self._silence * (self._floor - self._base))
        self._concealed.clear()
        self._silent.clear()

    def _decide(self) -> list[Span]:
        """Judge all whole frames that are there."""
        length, known, spans = self._rules.frame_samples, self._known, []
        for frame in range(self._frame, known // length, _BLOCK_FRAMES):
            end = min(frame + _BLOCK_FRAMES, known // length)
            spans += self._count(self._votes(frame, end))
        return spans

    def _votes(self, first_frame: int, end_frame: int) -> Sequence[Vote | None]:
        """The vote of each frame; None for one that the detector must not hear."""
        pcm = self._pcm(first_frame, end_frame).tobytes()
        if not self._concealed and not self._silent:
            return self._vad.votes(pcm)
        known = [[one for one in some if one[1] > max(one[0], self._floor)] for some in (self._concealed, self._silent)]
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
        rules, spans, bits, voiced = self._rules, list[Span](), 0, bool(self._history & 1)
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
                spans += self._close(Cut.SILENCE, frame * rules.frame_samples)
            elif (frame + 1) * rules.frame_samples - self._start > rules.max_samples:
                spans.append(self._split(self._start))
        self._history = (self._history << len(votes) | bits) & rules.history_mask
        return spans

    def _open(self) -> None:
        votes = self._window & self._rules.open_mask
        self._known_frame = self._frame
        self._first_voiced = self._frame - votes.bit_length()
        first = self._first_voiced * self._rules.frame_samples
        self._start = max(self._floor, first - self._rules.padding_samples)
        self._window = self._rules.window_mask  # the closing window starts full of speech

    def _close(self, cut: Cut, decided_sample: int) -> list[Span]:
        assert self._start is not None
        rules, start = self._rules, self._start
        self._keep_levels(start)
        self._start = None
        self._window = 0
        voiced_frames = self._last_voiced + 1 - self._first_voiced
        if voiced_frames * FRAME_MS < rules.settings.min_utterance_ms:
            return []
        end = (self._last_voiced + 1) * rules.frame_samples + rules.padding_samples
        self._floor = min(end, decided_sample)
        heard_end = (self._last_heard + 1) * rules.frame_samples
        return [self._span((start, self._floor), heard_end, decided_sample, cut)]

    def _stretch(self, start: int) -> echo.Stretch:
        first = -(-start // self._rules.frame_samples)
        frames = self._pcm(first, self._frame).reshape(-1, self._rules.frame_samples)
        lost = conceal.frames_without_sound([self._concealed, []], self._rules.frame_samples, first, self._frame)
        return echo.Stretch(self._known_frame, first, echo.levels_of(frames, [frame - first for frame in lost]))

    def _keep_levels(self, start: int) -> None:
        if self.keeps_levels:
            self._stretches.add(self._stretch(start), oldest_frame=self._frame - self._rules.history_frames)

    def _split(self, start: int) -> Span:
        split = self._quietest(start)
        self._keep_levels(start)
        span = self._span((start, split), split, self._frame * self._rules.frame_samples, Cut.FORCED)
        self._start = self._floor = split
        self._first_voiced = split // self._rules.frame_samples
        return span

    def _quietest(self, start: int) -> int:
        """Where to split: the frame border in the middle of the quietest 100 ms of the search range."""
        rules, length = self._rules, self._rules.frame_samples
        limit = start + rules.max_samples
        low, high = -(-max(limit - rules.search_samples, start + rules.min_samples) // length), limit // length
        return (low + quietest(self._pcm(low, high).reshape(-1, length))) * length

    def _pcm(self, first_frame: int, end_frame: int) -> Samples:
        length = self._rules.frame_samples
        return to_s16(self._encoding, self._native(first_frame * length, end_frame * length))

    def _native(self, start: int, end: int) -> bytes:
        return bytes(self._audio[(start - self._base) * self._width : (end - self._base) * self._width])

    def _span(self, bounds: tuple[int, int], heard_end: int, decided_sample: int, cut: Cut) -> Span:
        start, end = bounds
        length = self._rules.frame_samples
        voiced_start = max(start, self._first_voiced * length)
        voiced_end = min(end, max(heard_end, voiced_start + length))
        clipped = [(max(start, first) - start, min(end, last) - start) for first, last in self._concealed]
        lost = [(first, last) for first, last in clipped if first < last]
        audio = conceal.fill(self._encoding, self._rules.rate_hz, self._native(start, end), lost)
        missing = sum(last - first for first, last in lost)
        return Span(start, end, voiced_start, voiced_end, decided_sample, cut, missing, audio)

    def _forget(self) -> None:
        keep = min(self.keep_from, self._frame * self._rules.frame_samples)
        if keep > self._base:
            del self._audio[: (keep - self._base) * self._width]
            self._base = keep
            self._concealed = [(first, last) for first, last in self._concealed if last > keep]
            self._silent = [(first, last) for first, last in self._silent if last > keep]
