"""Lost audio in an utterance, filled as ITU-T G.711 Appendix I proposes: the sound before it, repeated and faded. Pure.

The model and the acoustics hear the filled audio. A hole of digital silence in a word would be a level and a spectrum
that nobody produced. The repeated sound lies in the utterance itself, so the result does not depend on what else is
in memory.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from callmood.schemas.common import Encoding
from callmood.worker.g711 import Samples, encode_pcma, encode_pcmu, to_s16

_REPEATED_MS: Final = 20
_FADE_MS: Final = 60
"""Where the repeated sound has faded to silence."""


def fill(encoding: Encoding, rate_hz: int, audio: bytes, lost: Sequence[tuple[int, int]]) -> bytes:
    """The audio of an utterance with its lost stretches filled; one at its very beginning stays silent.

    Args:
        encoding: PCMU, PCMA or S16LE.
        rate_hz: of the samples.
        audio: one channel.
        lost: first sample and the sample after the last, in order.
    """
    filled, width = bytearray(audio), encoding.bytes_per_sample
    longest = rate_hz * _REPEATED_MS // 1000
    for first, end in lost:
        source = to_s16(encoding, bytes(filled[max(0, first - longest) * width : first * width]))
        if source.size:
            filled[first * width : end * width] = _encoded(encoding, _faded(source, end - first, rate_hz))
    return bytes(filled)


def _faded(source: Samples, samples: int, rate_hz: int) -> Samples:
    repeated = np.resize(source, samples).astype(np.float32)
    gain = 1 - np.arange(samples, dtype=np.float32) / np.float32(rate_hz * _FADE_MS / 1000)
    faded: Samples = np.round(repeated * np.maximum(gain, 0)).astype(np.int16)
    return faded


def _encoded(encoding: Encoding, samples: Samples) -> bytes:
    match encoding:
        case Encoding.PCMU:
            return encode_pcmu(samples)
        case Encoding.PCMA:
            return encode_pcma(samples)
        case _:
            return samples.astype("<i2").tobytes()


def frames_without_sound(
    known: Sequence[Sequence[tuple[int, int]]], length: int, first_frame: int, end_frame: int
) -> set[int]:
    """Which of these frames hold lost samples, or are silent in part; `known`: what is lost, and what is silent."""
    concealed, silent = known
    frames = set[int]()
    for first, end in concealed:
        frames.update(range(max(first_frame, first // length), min(end_frame, -(-end // length))))
    for first, end in silent:
        frames.update({first // length} if first % length else ())
        frames.update({end // length} if end % length else ())
    return frames
