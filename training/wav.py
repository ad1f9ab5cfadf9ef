"""Plain WAV files, also those whose header states a wrong length."""

import io
import os
import wave
from pathlib import Path
from typing import Final, NamedTuple

SAMPLE_BYTES: Final = 2
_RIFF_BYTES: Final = 8  # of "RIFF" and of the size, which counts what follows
_UNKNOWN: Final = (0, 0xFFFFFFFF)  # sizes that a recorder writes first, and replaces when it closes the file
_HEADER_BYTES: Final = 4096  # of such a file, before its sound


class Sound(NamedTuple):
    """A file's format, and how many whole frames it holds."""

    rate_hz: int
    channels: int
    sample_bytes: int
    frames: int


def measure(path: Path) -> Sound:
    """Measure a file.

    Its header may claim too much: a program that could not seek back wrote 0xFFFFFFFF, or the file was cut off. Or it
    claims nothing: a recorder that was killed left a sound of 0 bytes, and a RIFF size that ends there or is not known.
    In both cases, the sound ends with the file. If the RIFF size goes on, the file was closed without sound: other
    chunks follow.

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
    with path.open("rb") as file:
        begin = file.read(_HEADER_BYTES)
        riff = int.from_bytes(begin[4:_RIFF_BYTES], "little")
        file.seek(0)
        # Of a size of 0, `wave` would read no chunk.
        source = file if riff else io.BytesIO(begin[:4] + bytes([0xFF] * 4) + begin[_RIFF_BYTES:])
        with wave.open(source, "rb") as header:
            start = source.tell()  # `wave` stops at the data chunk
            size = header.getnchannels() * header.getsampwidth()
            held = (os.fstat(file.fileno()).st_size - start) // size
            frames = min(header.getnframes(), held)
            if frames == 0 and (riff in _UNKNOWN or riff + _RIFF_BYTES <= start):
                frames = held
            return Sound(header.getframerate(), header.getnchannels(), header.getsampwidth(), frames), start
