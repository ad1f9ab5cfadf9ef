"""Audio of an utterance: used in place, or cut from a recording, converted and resampled."""

import math
import shutil
import struct
import subprocess
import wave
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from callmood.schemas.common import RATES_HZ
from callmood.training import wav
from callmood.training.corpora.found import WHOLE, Cut
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.audio import RATE_HZ

Pcm = NDArray[np.int16]
_LOUDEST: Final = 8.0  # beyond full scale; floats that clip a little are usual, floats scaled as integers are not
_FILMS: Final = (".mp4", ".m4a", ".webm", ".mkv")
ENDINGS: Final = (*_FILMS, ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
"""Of files that may be recordings."""
_LOWEST_HZ: Final = 4000  # half a telephone's: below, a header is wrong, and resampling could fill the memory
_MISSING_S: Final = 0.1  # by which an utterance may be longer than its recording
_Samples = NDArray[np.float64]


class DroppedError(Exception):
    """This utterance cannot be used; the message is the reason."""


def is_file(path: Path) -> bool:
    """Whether this is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:  # too long
        return False


def identity(path: Path) -> tuple[int, int] | Path:
    """What all paths of one file have in common, also links; of no file, the path itself."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return path
    return found.st_dev, found.st_ino


def seconds_in_place(path: Path) -> float | None:
    """The length of a file that training reads as it is: mono 16-bit WAV at a rate of the worker; None of others.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        sound = wav.measure(path)
    except (wave.Error, EOFError):  # not plain WAV: libsndfile and ffmpeg read more formats
        return None
    is_usable = sound.channels == 1 and sound.sample_bytes == wav.SAMPLE_BYTES and sound.rate_hz in RATES_HZ
    return sound.frames / sound.rate_hz if is_usable else None


def pcm(path: Path, cut: Cut = WHOLE, *, mix: bool = False) -> tuple[Pcm, int]:
    """Mono samples of a recording's part, and their rate, which is one of the worker's.

    Args:
        path: any file that libsndfile or ffmpeg reads.
        cut: the part.
        mix: mix several channels where `cut` names none; they are refused otherwise.

    Raises:
        DroppedError: the part cannot be used.
        ConfigurationError: ffmpeg is needed and not installed.
    """
    if not is_file(path):
        raise DroppedError("audio missing")
    if path.suffix.lower() in _FILMS:
        samples, rate_hz = _by_ffmpeg(path, cut, mix=mix)
    else:
        samples, rate_hz = _by_libsndfile(path, cut)
    mono = _one_channel(samples, cut.channel, mix=mix)
    if cut.end_s < math.inf and mono.size / rate_hz < cut.end_s - cut.start_s - _MISSING_S:
        raise DroppedError("recording ends before the utterance")
    if not np.isfinite(mono).all():
        raise DroppedError("samples are not finite numbers")
    if np.abs(mono).max(initial=0.0) > _LOUDEST:
        raise DroppedError(f"samples beyond {_LOUDEST:g} times full scale: floats must be scaled to 1")
    if rate_hz < _LOWEST_HZ:
        raise DroppedError(f"{rate_hz} samples per second: speech needs {_LOWEST_HZ}")
    if rate_hz not in RATES_HZ:
        import soxr  # noqa: PLC0415 - training images may lack it

        mono, rate_hz = soxr.resample(mono, rate_hz, RATE_HZ), RATE_HZ
    return np.clip(mono * 32768, -32768, 32767).astype("<i2"), rate_hz


def _one_channel(samples: _Samples, channel: int | None, *, mix: bool) -> _Samples:
    channels = samples.shape[1]
    if channel is not None:
        if channel >= channels:
            raise DroppedError(f"no channel {channel} in a recording of {channels}; the first one is 0")
        chosen: _Samples = samples[:, channel]
        return chosen
    if channels > 1 and not mix:
        raise DroppedError(f"{channels} channels: give one speaker's channel alone")
    mixed: _Samples = samples.mean(axis=1)
    return mixed


def _by_libsndfile(path: Path, cut: Cut) -> tuple[_Samples, int]:
    """Samples [frames, channels] and their rate."""
    import soundfile  # noqa: PLC0415 - training images may lack it

    try:
        with soundfile.SoundFile(path) as file:
            rate_hz = int(file.samplerate)
            if file.frames == 0:  # so libsndfile says of a file that a killed recorder has left
                raise DroppedError("no samples found: the recording is empty or was not closed")
            first = round(cut.start_s * rate_hz)
            if first > file.frames:
                raise DroppedError("recording ends before the utterance")
            file.seek(first)
            frames = round(cut.end_s * rate_hz) - first if cut.end_s < math.inf else -1
            samples: _Samples = file.read(frames, always_2d=True)
            return samples, rate_hz
    except (soundfile.LibsndfileError, OSError, TypeError) as error:  # TypeError: a raw file, whose rate nobody knows
        raise DroppedError("audio cannot be read") from error


def _by_ffmpeg(path: Path, cut: Cut, *, mix: bool) -> tuple[_Samples, int]:
    """Samples [frames, channels] at 16 kHz; of one channel if they may be mixed."""
    if shutil.which("ffmpeg") is None:
        raise ConfigurationError(f"{path}: needs ffmpeg, which is not installed")
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-ss", f"{cut.start_s:.6f}"]
    if cut.end_s < math.inf:
        command += ["-to", f"{cut.end_s:.6f}"]
    mono = ["-ac", "1"] if mix and cut.channel is None else []
    command += [*mono, "-ar", str(RATE_HZ), "-c:a", "pcm_s16be", "-f", "au", "-"]  # its header has the channels
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - a list, no shell
    if done.returncode or not done.stdout.startswith(b".snd"):
        raise DroppedError("audio cannot be read")
    _, start, _, _, rate_hz, channels = struct.unpack_from(">4s5I", done.stdout)
    frames = (len(done.stdout) - start) // (2 * channels)
    samples = np.frombuffer(done.stdout, ">i2", frames * channels, start).reshape(frames, channels)
    return samples / 32768, rate_hz
