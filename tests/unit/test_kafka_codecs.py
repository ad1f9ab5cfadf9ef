"""A batch that is small on the wire and huge in memory."""

import gzip
import random

import lz4.frame
import pytest
import snappy
import zstandard
from kafka import codec
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from callmood.worker.adapters import kafka_codecs

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
XERIAL = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
HEADER_BYTES = DefaultRecordBatch.HEADER_STRUCT.size
ANYTHING = r".*"  # some errors have no text


@pytest.fixture(autouse=True)
def _limited(monkeypatch):
    monkeypatch.setattr(kafka_codecs, "MAX_BYTES", 1 << 20)
    kafka_codecs.install()


def batch_of(codec, value):
    """A batch with one record, as a broker sends it."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], False, -1, -1, -1, 1 << 20)
    builder.append(0, 1, b"call", value, [])
    return bytes(builder.build())


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_grows_without_bounds_is_refused(codec):
    """The client raises what costs this batch alone, and has read no more than the limit."""
    sent = batch_of(codec, bytes(8 << 20))
    assert len(sent) < 1 << 19
    with pytest.raises(CorruptRecordError, match="larger than 1 MB after decompression"):
        list(DefaultRecordBatch(sent))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [0, 1, 1 << 10, (1 << 20) - 100])
def test_a_batch_below_the_limit_is_read(codec, size):
    """Byte for byte, whatever the codec."""
    value = bytes(range(256)) * (size // 256 + 1)
    (record,) = DefaultRecordBatch(batch_of(codec, value[:size]))
    assert record.value == value[:size]


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_is_cut_short_is_refused(codec):
    """The rest of it is not taken for all of it."""
    sent = batch_of(codec, random.Random(1).randbytes(1 << 14))
    with pytest.raises(Exception, match=ANYTHING):
        list(DefaultRecordBatch(sent[: HEADER_BYTES + (len(sent) - HEADER_BYTES) // 2]))


def compressed_by_others(value):
    """Payloads of clients in other languages."""
    zstd = zstandard.ZstdCompressor(write_content_size=False)
    return {
        "lz4 without content size": ("lz4", lz4.frame.compress(value, store_size=False)),
        "lz4 with content size": ("lz4", lz4.frame.compress(value, store_size=True)),
        "zstd without content size": ("zstd", zstd.compress(value)),
        "zstd in two frames": ("zstd", zstd.compress(value[:99]) + zstd.compress(value[99:])),
        "gzip in two members": ("gzip", gzip.compress(value[:99]) + gzip.compress(value[99:])),
        "snappy in one block": ("snappy", snappy.compress(value)),
        "snappy in blocks": ("snappy", XERIAL + framed(snappy.compress(value))),
    }


def framed(block):
    """A block as Java's clients write it."""
    return len(block).to_bytes(4, "big") + block


def records_of(codec, payload):
    """A batch with this payload, whatever it is."""
    header = bytearray(batch_of(codec, bytes(1000))[:HEADER_BYTES])
    return list(DefaultRecordBatch(bytes(header) + payload))


def uncompressed(value):
    """The records of a batch, not compressed."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 25)
    builder.append(0, 1, b"call", value, [])
    return bytes(builder.build())[HEADER_BYTES:]


@pytest.mark.parametrize("form", compressed_by_others(b""))
def test_every_form_of_a_codec_is_read(form):
    """Frames may leave out the size of their content, and a payload may have several."""
    (record,) = records_of(*compressed_by_others(uncompressed(bytes(5000)))[form])
    assert record.value == bytes(5000)


@pytest.mark.parametrize("form", compressed_by_others(b""))
def test_every_form_of_a_codec_is_limited(form):
    """Also where no size is in front."""
    with pytest.raises(CorruptRecordError, match="larger than 1 MB after decompression"):
        records_of(*compressed_by_others(uncompressed(bytes(8 << 20)))[form])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff" * 5,
        XERIAL + framed(b""),
        XERIAL + (2**32 - 4).to_bytes(4, "big") + snappy.compress(bytes(9)),
        XERIAL + (2**31).to_bytes(4, "big") + snappy.compress(bytes(9)),
        XERIAL + framed(snappy.compress(bytes(9))) + b"\x00\x00",
    ],
    ids=range(6),
)
def test_damaged_snappy_ends(payload):
    """Lengths that point backwards, are absurd or are missing cost the batch, not the time of the worker."""
    with pytest.raises(Exception, match=ANYTHING):
        records_of("snappy", payload)


@pytest.mark.parametrize("claimed", [b"\xff\xff\xff\xff\x0f", b"\x81\x80\x40"])
def test_snappy_that_claims_to_be_long_is_not_decompressed(claimed):
    """No memory is taken for what its first bytes say."""
    with pytest.raises(CorruptRecordError, match="larger than 1 MB"):
        records_of("snappy", claimed + b"\x00a")


def test_many_snappy_blocks_are_limited_together():
    """Each is small."""
    blocks = framed(snappy.compress(bytes(32 << 10))) * 64
    with pytest.raises(CorruptRecordError, match="larger than 1 MB"):
        records_of("snappy", XERIAL + blocks)


def test_lz4_of_old_brokers_is_limited_too():
    """The client decodes it through its own module, after a repair of the checksum."""
    with pytest.raises(CorruptRecordError, match="larger than 1 MB"):
        codec.lz4_decode(lz4.frame.compress(bytes(8 << 20)))
