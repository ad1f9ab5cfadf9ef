"""A batch that is small on the wire and huge in memory."""

import pytest
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from callmood.worker.adapters import kafka_codecs

CODECS = {"gzip": 1, "lz4": 3, "zstd": 4}


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
    assert len(sent) < 1 << 16
    with pytest.raises(CorruptRecordError, match="more than 1 MB once it is decompressed"):
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
    header = DefaultRecordBatch.HEADER_STRUCT.size
    sent = batch_of(codec, bytes(range(256)) * 64)
    with pytest.raises(Exception, match=r"."):
        list(DefaultRecordBatch(sent[: header + (len(sent) - header) // 2]))
