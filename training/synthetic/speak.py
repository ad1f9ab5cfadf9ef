"""Text to speech by espeak-ng: one process per sentence, so that a sentence does not depend on those before it."""

import dataclasses
import functools
import shutil
import subprocess
from html import escape

import numpy as np

from callmood.training.synthetic.arrays import Samples
from callmood.worker.errors import ConfigurationError

RATE_HZ = 22050
_WAV_HEADER_BYTES = 44  # espeak-ng cannot seek on a pipe, so the header's length field is wrong; its size is not
_SILENCE = 0.01  # of the peak; quieter samples at both ends are espeak-ng's own pause


@dataclasses.dataclass(frozen=True, slots=True)
class Voice:
    """An espeak-ng language (its file name: an alias such as `en-gb` silently drops the variant) and a variant."""

    language: str
    variant: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pitch:
    """Deviation from the voice's own way of speaking, each in percent."""

    level: float = 0.0
    range: float = 0.0
    rate: float = 0.0


@functools.cache
def _program() -> str:
    program = shutil.which("espeak-ng")
    if program is None:
        raise ConfigurationError(
            "espeak-ng is not installed: `apt-get install espeak-ng` (Debian, Ubuntu), `brew install espeak-ng` (macOS)"
        )
    return program


@functools.cache
def version() -> str:
    """Version of the installed espeak-ng; versions differ slightly in sound.

    Raises:
        ConfigurationError: it is not installed; the message says what to install.
    """
    return _run("--version").decode().split("Data at")[0].strip().rsplit(" ", 1)[-1]


@functools.cache
def variants() -> frozenset[str]:
    """Names of the installed variants."""
    listing = _run("--voices=variant").decode(errors="replace")
    return frozenset(word[3:] for line in listing.splitlines() for word in line.split() if word.startswith("!v/"))


def speak(text: str, voice: Voice, pitch: Pitch) -> Samples:
    """Speak one sentence.

    Returns:
        Float samples in -1..1 at `RATE_HZ`, without the silence around them.

    Raises:
        ConfigurationError: espeak-ng, or the variant, is not installed (espeak-ng would quietly take another voice).
    """
    if voice.variant not in variants():
        raise ConfigurationError(f"espeak-ng {version()} has no variant {voice.variant!r}")
    prosody = f'pitch="{pitch.level:+.0f}%" range="{pitch.range:+.0f}%" rate="{pitch.rate:+.0f}%"'
    markup = f"<speak><prosody {prosody}>{escape(text)}</prosody></speak>"
    wav = _run("-v", f"{voice.language}+{voice.variant}", "-m", "-z", "--stdout", markup)
    samples = np.frombuffer(wav[_WAV_HEADER_BYTES:], dtype="<i2").astype(np.float64) / 32768
    loud = np.flatnonzero(np.abs(samples) > _SILENCE * np.abs(samples).max(initial=0))
    return samples[loud[0] : loud[-1] + 1] if loud.size else samples[:0]


def _run(*arguments: str) -> bytes:
    return subprocess.run([_program(), *arguments], capture_output=True, check=True).stdout  # noqa: S603 - fixed program, no shell
