"""G.711 against libsndfile, which is an implementation of its own."""

import io

import numpy as np
import pytest
import soundfile

from callmood.schemas.common import Encoding
from callmood.worker import g711

EVERY_VALUE = np.arange(-32_768, 32_768).astype(np.int16)
EVERY_CODE = bytes(range(256))


def libsndfile_encode(samples, subtype):
    raw = io.BytesIO()
    soundfile.write(raw, samples, 8000, subtype=subtype, format="RAW")
    return raw.getvalue()


def libsndfile_decode(data, subtype):
    return soundfile.read(io.BytesIO(data), samplerate=8000, channels=1, subtype=subtype, format="RAW", dtype="int16")[
        0
    ]


@pytest.mark.parametrize(("encoding", "subtype"), [(Encoding.PCMU, "ULAW"), (Encoding.PCMA, "ALAW")])
def test_every_code_decodes_as_in_libsndfile(encoding, subtype):
    """All 256 codes of both laws have libsndfile's value."""
    assert np.array_equal(g711.to_s16(encoding, EVERY_CODE), libsndfile_decode(EVERY_CODE, subtype))


@pytest.mark.parametrize(("encode", "subtype"), [(g711.encode_pcmu, "ULAW"), (g711.encode_pcma, "ALAW")])
def test_every_value_encodes_as_in_libsndfile(encode, subtype):
    """All 65,536 values of both laws have libsndfile's code."""
    assert encode(EVERY_VALUE) == libsndfile_encode(EVERY_VALUE, subtype)


@pytest.mark.parametrize(
    ("encoding", "encode", "silence"),
    [(Encoding.PCMU, g711.encode_pcmu, b"\xff"), (Encoding.PCMA, g711.encode_pcma, b"\xd5")],
)
def test_silence_is_the_code_that_lines_carry(encoding, encode, silence):
    """Zero becomes 0xFF in mu-law and 0xD5 in A-law, and comes back as next to nothing."""
    assert encode(np.zeros(3, np.int16)) == silence * 3
    assert abs(int(g711.to_s16(encoding, silence)[0])) <= 8


def test_sixteen_bit_samples_keep_their_value_in_both_byte_orders():
    """S16LE and S16BE bytes give the samples they were made of."""
    samples = np.array([0, 1, -1, 256, 32_767, -32_768], np.int16)
    assert np.array_equal(g711.to_s16(Encoding.S16LE, samples.astype("<i2").tobytes()), samples)
    assert np.array_equal(g711.to_s16(Encoding.S16BE, samples.astype(">i2").tobytes()), samples)


def test_half_a_sample_is_refused():
    """An odd number of bytes cannot be 16-bit samples."""
    with pytest.raises(ValueError, match="buffer size"):
        g711.to_s16(Encoding.S16LE, b"\x00\x01\x02")


def test_the_tables_cannot_be_changed():
    """The shared tables are read-only."""
    with pytest.raises(ValueError, match="read-only"):
        g711.PCMU_TO_S16[0] = 0
