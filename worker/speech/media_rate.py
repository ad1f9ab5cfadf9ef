"""Media time that runs faster than the audio: counted in samples, or by the clock of another rate. Pure.

Each record is then ahead of the audio before it, as if nobody had spoken for a moment. The capture times tell this from
silence that was not sent: they keep step with the audio. From there on, the stream's media time is not used.
"""

from typing import NamedTuple

from callmood.worker.records import Chunk

_ENOUGH_MS = 1_000  # of audio that shows it
_FASTER = 0.2  # so much more media time than audio
_IN_STEP = 0.15  # capture times and audio differ by at most this share
_ROUNDED_MS = 20


class MediaRate(NamedTuple):
    """What is known of a stream's media clock.

    `jumps_from`: capture time, media time and audio in ms, where each few records began to be ahead; `jumped_ms` is the
    audio at the newest that was, `silent_ms` all silence that was not sent.
    """

    is_wrong: bool = False
    silent_ms: float = 0.0
    jumps_from: tuple[float, float, float] | None = None
    jumped_ms: float = 0.0

    def after_jump(self, chunk: Chunk, position_ms: float, record_ms: float, silent_ms: float) -> "MediaRate":
        """This record with audio is ahead of the position; `record_ms` is the length of the one before it."""
        assert chunk.media_ms is not None
        heard_ms = position_ms - self.silent_ms
        here = float(chunk.capture_ms), chunk.media_ms, heard_ms
        first = self.jumps_from
        if first is None or heard_ms - self.jumped_ms > 2 * record_ms + _ROUNDED_MS:
            first = here
        captured_ms, media_ms, audio_ms = (now - then for now, then in zip(here, first, strict=True))
        is_wrong = (
            audio_ms >= _ENOUGH_MS
            and media_ms >= (1 + _FASTER) * audio_ms
            and abs(captured_ms - audio_ms) <= _IN_STEP * audio_ms
        )
        return MediaRate(is_wrong, self.silent_ms + silent_ms, first, heard_ms)
