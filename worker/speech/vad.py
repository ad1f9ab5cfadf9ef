"""WebRTC voice activity detection whose memory can be saved and restored exactly.

A detector adapts to all audio that it has heard, and does not converge again after a restart: a fresh one gives other
utterances for minutes. The library has no call for its state, but its C structure (`VadInstT` in libfvad's ancestor,
`common_audio/vad/vad_core.h`) is plain data without pointers, so a copy of its bytes is the whole state. The copy is
only made with the one release whose layout is known, and `self_test` proves it before a worker starts.
"""

import ctypes
import sys
from random import Random
from typing import Final

import webrtcvad

FRAME_MS: Final = 20
_KNOWN_RELEASE: Final = "2.0.14.post1"
_STATE_BYTES: Final = 736
_SPEECH_RUN_OFFSET: Final = 282
"""Of `num_of_speech` in the structure: frames of speech in a row; 0 while the detector only prolongs speech."""
_INITIALISED: Final = (42).to_bytes(4, sys.byteorder)  # `kInitCheck`, the last field of the structure
_TEST_FRAMES: Final = 2000

VAD_VERSION: Final = f"webrtcvad-wheels/{webrtcvad.__version__}/{_STATE_BYTES}/{sys.byteorder}"
"""Release and memory layout; a dump is only meaningful to the same one."""

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


class Vad:
    """One channel's detector.

    Args:
        mode: aggressiveness, 0 (calls most things speech) to 3.
        rate_hz: 8000, 16000 or 48000.
    """

    __slots__ = ("_rate_hz", "_speech_run", "_vad")

    def __init__(self, mode: int, rate_hz: int) -> None:
        self._vad = webrtcvad.Vad(mode)
        self._rate_hz = rate_hz
        is_known = webrtcvad.__version__ == _KNOWN_RELEASE
        self._speech_run = ctypes.c_int16.from_address(self._address() + _SPEECH_RUN_OFFSET) if is_known else None

    def is_speech(self, frame: bytes) -> bool:
        """Judge the next 20 ms of S16LE."""
        speech: bool = self._vad.is_speech(frame, self._rate_hz)
        return speech

    @property
    def heard_voice(self) -> bool:
        """Whether the newest frame that was classified as speech had a voice; false while speech is only prolonged.

        The detector prolongs speech by up to 140 ms, so that a word's end is not cut. With an unknown release: true.
        """
        return self._speech_run is None or self._speech_run.value > 0

    def dump(self) -> bytes:
        """Everything the detector remembers, 736 bytes; nothing where the library is not the known release."""
        if webrtcvad.__version__ != _KNOWN_RELEASE:
            return b""
        return ctypes.string_at(self._address(), _STATE_BYTES)

    @classmethod
    def load(cls, mode: int, rate_hz: int, blob: bytes) -> "Vad":
        """A detector that continues exactly where `dump` was taken.

        Raises:
            ValueError: the blob is no dump of this release.
        """
        if not _is_dump(blob):
            raise ValueError(f"not a state of {VAD_VERSION}")
        vad = cls(mode, rate_hz)
        ctypes.memmove(vad._address(), blob, _STATE_BYTES)
        return vad

    def _address(self) -> int:
        address: int = _pointer(self._vad._vad, b"WebRtcVadPtr")  # noqa: SLF001 - the library has no public access
        return address


def self_test() -> bool:
    """Whether a dump continues as the original does, over 2000 frames of fixed noise; about 10 ms of work."""
    noise = Random(1)  # noqa: S311 - a fixed signal, not a secret
    signal = [bytes(320), noise.randbytes(320), noise.randbytes(320)]
    frames = [noise.choice(signal) for _ in range(_TEST_FRAMES)]
    original = Vad(2, 8000)
    half = _TEST_FRAMES // 2
    first = [original.is_speech(frame) for frame in frames[:half]]
    dump = original.dump()
    if not _is_dump(dump):
        return False
    copy = Vad.load(2, 8000, dump)
    rest = [original.is_speech(frame) for frame in frames[half:]]
    same = rest == [copy.is_speech(frame) for frame in frames[half:]] and original.dump() == copy.dump()
    return same and len(set(first + rest)) == 2  # noqa: PLR2004 - both answers occurred, so equality says something


def _is_dump(blob: bytes) -> bool:
    return webrtcvad.__version__ == _KNOWN_RELEASE and len(blob) == _STATE_BYTES and blob.endswith(_INITIALISED)
