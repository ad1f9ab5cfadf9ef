"""G.711 in both directions, by tables. Pure.

Source: ITU-T G.711 (11/88), tables 1a to 2b, scaled to 16 bits as in ITU-T G.191: mu-law codes 14-bit values (shifted
left by 2), A-law 13-bit values (shifted left by 3). Where a value is on the border of two codes, the
recommendation leaves the choice open; this module chooses as libsndfile does.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from callmood.schemas.common import Encoding

Samples = npt.NDArray[np.int16]

_IN_RANGE: Final = "clip"
"""The mode of a look-up that checks no index: each code is in the table. It takes half the time."""

_MU_BIAS = 33  # moves the segment borders of mu-law to powers of two
_MU_MAX = 0x1FFF  # 13-bit magnitude
_A_MAX = 0x7FF  # 11-bit magnitude, in steps of the finest segment
_A_EVEN_BITS = 0x55  # A-law inverts every other bit on the line


def _pcmu_values() -> Samples:
    code = ~np.arange(256) & 0xFF
    exponent, mantissa = code >> 4 & 7, code & 15
    magnitude = ((2 * mantissa + _MU_BIAS << exponent) - _MU_BIAS) * 4
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _pcma_values() -> Samples:
    code = np.arange(256) ^ _A_EVEN_BITS
    exponent, mantissa = code >> 4 & 7, code & 15
    step = np.where(exponent == 0, 2 * mantissa + 1, 2 * mantissa + 33 << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, step * 8, -step * 8).astype(np.int16)


PCMU_TO_S16: Final[Samples] = _pcmu_values()
"""The 16-bit value of each mu-law code."""
PCMA_TO_S16: Final[Samples] = _pcma_values()
"""The 16-bit value of each A-law code."""
_TO_S16: Final = {Encoding.PCMU: PCMU_TO_S16, Encoding.PCMA: PCMA_TO_S16}


def _pcmu_codes() -> npt.NDArray[np.uint8]:
    """The code of each 16-bit value, indexed by the value as uint16."""
    value = np.arange(65_536).astype(np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(value) // 4 + _MU_BIAS, _MU_MAX)
    exponent = np.frexp(magnitude)[1] - 6
    code = exponent << 4 | magnitude >> exponent + 1 & 15
    codes: npt.NDArray[np.uint8] = (~np.where(value < 0, code | 0x80, code) & 0xFF).astype(np.uint8)
    return codes


def _pcma_codes() -> npt.NDArray[np.uint8]:
    """The code of each 16-bit value, indexed by the value as uint16."""
    value = np.arange(65_536).astype(np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(value) // 16, _A_MAX)
    exponent = np.maximum(np.frexp(magnitude)[1] - 4, 0)
    code = exponent << 4 | magnitude >> np.maximum(exponent - 1, 0) & 15
    codes: npt.NDArray[np.uint8] = (np.where(value < 0, code, code | 0x80) ^ _A_EVEN_BITS).astype(np.uint8)
    return codes


_S16_TO_PCMU: Final = _pcmu_codes()
_S16_TO_PCMA: Final = _pcma_codes()

for _table in (PCMU_TO_S16, PCMA_TO_S16, _S16_TO_PCMU, _S16_TO_PCMA):
    _table.setflags(write=False)


def encode_pcmu(samples: Samples) -> bytes:
    """Samples (int16, any shape, C order) as mu-law."""
    return _S16_TO_PCMU.take(samples.view(np.uint16), mode=_IN_RANGE).tobytes()


def encode_pcma(samples: Samples) -> bytes:
    """Samples (int16, any shape, C order) as A-law."""
    return _S16_TO_PCMA.take(samples.view(np.uint16), mode=_IN_RANGE).tobytes()


def to_s16(encoding: Encoding, data: bytes) -> Samples:
    """Bytes of one channel as int16 samples, shape [samples].

    Raises:
        ValueError: two-byte samples, and the last byte is missing.
    """
    table = _TO_S16.get(encoding)
    if table is not None:
        return table.take(np.frombuffer(data, np.uint8), mode=_IN_RANGE)
    if encoding is Encoding.S16LE:
        return np.frombuffer(data, "<i2").astype(np.int16, copy=False)
    return np.frombuffer(data, ">i2").astype(np.int16)
