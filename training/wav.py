"""Plain WAV files: the audio is all bytes in the file, even if the header states another length."""

import os
import wave
from pathlib import Path
from typing import Final, NamedTuple

SAMPLE_BYTES: Final = 2


class Sound(NamedTuple):
    """A file's format, and how many whole frames it holds."""

    rate_hz: int
    channels: int
    sample_bytes: int
    frames: int


def measure(path: Path) -> Sound:
    """Measure a file.

    Its header may claim too much: a program that could not seek back wrote 0xFFFFFFFF, or the file was cut off. Or it
    claims nothing: a recorder that was killed left the 0 with which it had begun.

    Raises:
        OSError, EOFError, wave.Error: the file cannot be read, or is no plain WAV.
    """
    return _opened(path)[0]


def read(path: Path) -> tuple[Sound, bytes]:
    """Measure a file, and read its frames.

    Raises:
        OSError, EOFError, wave.Error: the file cannot be read, or is no plain WAV.
    """
    sound, start = _opened(path)
    with path.open("rb") as file:
        file.seek(start)
        return sound, file.read(sound.frames * sound.channels * sound.sample_bytes)


def write(path: Path, rate_hz: int, samples: bytes, *, channels: int = 1) -> None:
    """Write s16le samples; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(rate_hz)
        file.writeframes(samples)


def _opened(path: Path) -> tuple[Sound, int]:
    """The measures, and where the sound starts, in bytes."""
    with path.open("rb") as file, wave.open(file, "rb") as header:
        start = file.tell()  # `wave` stops at the data chunk
        size = header.getnchannels() * header.getsampwidth()
        held = (os.fstat(file.fileno()).st_size - start) // size
        frames = min(header.getnframes() or held, held)
        return Sound(header.getframerate(), header.getnchannels(), header.getsampwidth(), frames), start
