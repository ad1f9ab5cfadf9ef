"""The recent audio of one channel: as much as a later utterance can need. Pure."""

from callmood.schemas.common import Encoding
from callmood.worker.g711 import Samples, to_s16
from callmood.worker.speech import conceal

_SILENCE = {Encoding.PCMU: b"\xff", Encoding.PCMA: b"\xd5", Encoding.S16LE: b"\0\0"}


class RecentAudio:
    """Audio in its native encoding, from the sample `base` on.

    Args:
        encoding: PCMU, PCMA or S16LE.
        frame_samples: samples of a frame; frames begin at multiples of it.
    """

    def __init__(self, encoding: Encoding, frame_samples: int) -> None:
        self.base = 0
        self.concealed: list[tuple[int, int]] = []
        """Where audio is lost, from one sample to another."""
        self.silent: list[tuple[int, int]] = []
        """Where nothing was sent, because nobody spoke."""
        self._encoding = encoding
        self._width = encoding.bytes_per_sample
        self._frame_samples = frame_samples
        self._audio = bytearray()

    @property
    def known(self) -> int:
        """The sample after the last one."""
        return self.base + len(self._audio) // self._width

    def samples(self, audio: bytes) -> int:
        """How many samples these bytes are."""
        return len(audio) // self._width

    def silence(self, samples: int) -> bytes:
        """Digital silence."""
        return _SILENCE[self._encoding] * samples

    def add(self, first_sample: int, audio: bytes) -> None:
        """Take audio that begins at a known sample, or right after the last; what is known stays as it is."""
        known = self.known
        self._audio += audio[(known - first_sample) * self._width :] if first_sample < known else audio

    def native(self, start: int, end: int) -> bytes:
        """The audio from one sample to another."""
        return bytes(self._audio[(start - self.base) * self._width : (end - self.base) * self._width])

    def filled(self, start: int, end: int, rate_hz: int) -> tuple[bytes, int]:
        """The same, with what is lost filled; and how many samples that is."""
        clipped = [(max(start, first) - start, min(end, last) - start) for first, last in self.concealed]
        lost = [(first, last) for first, last in clipped if first < last]
        missing = sum(last - first for first, last in lost)
        return conceal.fill(self._encoding, rate_hz, self.native(start, end), lost), missing

    def pcm(self, first_frame: int, end_frame: int) -> Samples:
        """Frames as samples of 16 bits."""
        length = self._frame_samples
        return to_s16(self._encoding, self.native(first_frame * length, end_frame * length))

    def frames(self, first_frame: int, end_frame: int | None = None) -> tuple[Samples, list[int]]:
        """Frames [frames, samples] (by default all whole ones), and the indices of those that hold lost samples."""
        length = self._frame_samples
        end = self.known // length if end_frame is None else end_frame
        frames = self.pcm(first_frame, end).reshape(-1, length)
        if not self.concealed:
            return frames, []
        lost = conceal.frames_without_sound([self.concealed, []], length, first_frame, end)
        return frames, [frame - first_frame for frame in lost]

    def bridge(self, sample: int) -> None:
        """Take silence up to a sample, where the log has lost the audio that a restore needs."""
        missing = max(0, sample - self.known)
        self.concealed.append((sample - missing, sample))
        self._audio += self.silence(missing)

    def forget(self, keep: int) -> None:
        """Drop what is before a sample."""
        if keep > self.base:
            del self._audio[: (keep - self.base) * self._width]
            self.base = keep
            self.concealed = [(first, last) for first, last in self.concealed if last > keep]
            self.silent = [(first, last) for first, last in self.silent if last > keep]

    def restart(self, base: int, floor: int) -> None:
        """Forget all; there is silence from `base` to `floor`."""
        self.base = base
        self._audio = bytearray(self.silence(floor - base))
        self.concealed.clear()
        self.silent.clear()
