"""WebRTC voice activity detection whose memory can be saved and restored exactly.

A detector adapts to all audio that it has heard, and does not converge again after a restart: a fresh one gives other
utterances for minutes. The library has no call for its state, but its C structure (`VadInstT` in libfvad's ancestor,
`common_audio/vad/vad_core.h`) is plain data without pointers, so a copy of its bytes is the whole state. The copy is
only made with the one release whose layout is known, and `self_test` proves it before a worker starts.

The detector is called in C, by the function that the library's own class calls: that class costs a third as much again.
"""

import ctypes
import sys
from enum import IntEnum
from random import Random
from typing import Final

import _webrtcvad
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


class Vote(IntEnum):
    """What a frame counts as. The detector prolongs speech by up to 140 ms, so that a word's end is not cut."""

    SILENT = 0
    PROLONGED = 1
    """Speech without a voice: the detector only prolongs what was."""
    VOICED = 2


_SILENT, _PROLONGED, _VOICED = Vote  # an enum's attributes are slow to look up


class Vad:
    """One channel's detector.

    Args:
        mode: aggressiveness, 0 (calls most things speech) to 3.
        rate_hz: 8000, 16000 or 48000.
    """

    __slots__ = ("_address", "_frame_samples", "_rate_hz", "_speech_run", "_vad")

    def __init__(self, mode: int, rate_hz: int) -> None:
        self._vad = _webrtcvad.create()
        _webrtcvad.init(self._vad)
        _webrtcvad.set_mode(self._vad, mode)
        self._rate_hz = rate_hz
        self._frame_samples = rate_hz * FRAME_MS // 1000
        self._address: int = _pointer(self._vad, b"WebRtcVadPtr")
        is_known = webrtcvad.__version__ == _KNOWN_RELEASE
        self._speech_run = ctypes.c_int16.from_address(self._address + _SPEECH_RUN_OFFSET) if is_known else None

    def is_speech(self, frame: bytes) -> bool:
        """Judge the next 20 ms of S16LE."""
        return bool(_webrtcvad.process(self._vad, self._rate_hz, frame, len(frame) // 2))

    def votes(self, pcm: bytes) -> list[Vote]:
        """Judge the next frames: whole ones of 20 ms, S16LE.

        A frame of one constant value holds no sound of the line: it is silent, and the detector does not hear it. With
        an unknown release, no speech counts as prolonged.
        """
        votes: list[Vote] = []
        process, vad, rate_hz = _webrtcvad.process, self._vad, self._rate_hz
        length, run = self._frame_samples, self._speech_run
        for first in range(0, len(pcm), 2 * length):
            frame = pcm[first : first + 2 * length]
            is_constant = frame[0] == frame[2] and frame == frame[:2] * length
            if is_constant or not process(vad, rate_hz, frame, length):
                votes.append(_SILENT)
            else:
                votes.append(_VOICED if run is None or run.value > 0 else _PROLONGED)
        return votes

    def dump(self) -> bytes:
        """Everything the detector remembers, 736 bytes; nothing where the library is not the known release."""
        if webrtcvad.__version__ != _KNOWN_RELEASE:
            return b""
        return ctypes.string_at(self._address, _STATE_BYTES)

    @classmethod
    def load(cls, mode: int, rate_hz: int, blob: bytes) -> "Vad":
        """A detector that continues exactly where `dump` was taken.

        Raises:
            ValueError: the blob is no dump of this release.
        """
        if not _is_dump(blob):
            raise ValueError(f"not a state of {VAD_VERSION}")
        vad = cls(mode, rate_hz)
        ctypes.memmove(vad._address, blob, _STATE_BYTES)
        return vad


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
