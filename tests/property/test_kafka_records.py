"""Records of a batch are read by a shorter way: what comes out is what kafka-python reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from callmood.worker.adapters import kafka_records
from callmood.worker.adapters.kafka_workarounds import install

NAMES = st.sampled_from(["seq", "media_ms", "", "schema"]) | st.text(max_size=90)
CONTENTS = st.none() | st.binary(max_size=80) | st.integers(100, 9_000).map(bytes)
RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2**40),
        CONTENTS,
        CONTENTS,
        st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=90)), max_size=10),
    ),
    min_size=1,
    max_size=5,
)
install()


def batch_of(records, *, is_transactional=False):
    """A batch as a broker sends it."""
    producer = (5, 0) if is_transactional else (-1, -1)
    builder = DefaultRecordBatchBuilder(2, 0, is_transactional, *producer, -1, 1 << 20)
    for offset, (timestamp, key, value, headers) in enumerate(records):
        builder.append(offset, timestamp, key, value, headers)
    return bytes(builder.build())


def facts_of(batch):
    """All that the consumer reads of each record of a batch, or that it is corrupt."""
    try:
        return [(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, r.headers, r.size_in_bytes) for r in batch]
    except CorruptRecordError:
        return "corrupt"


def by_the_client(sent):
    """The same without the shorter way."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kafka_records, "read_short", lambda _: None)
        return facts_of(DefaultRecordBatch(sent))


@given(records=RECORDS, is_transactional=st.booleans())
def test_any_batch_is_read_as_the_client_reads_it(records, is_transactional):
    """Offsets, timestamps, keys, values and headers of any records are the same, null ones and long ones too."""
    sent = batch_of(records, is_transactional=is_transactional)
    assert facts_of(DefaultRecordBatch(sent)) == by_the_client(sent)


@given(records=RECORDS, place=st.integers(0, 2**16), byte=st.integers(0, 255))
def test_a_damaged_batch_is_refused_as_the_client_refuses_it(records, place, byte):
    """With any byte changed, the same records or the same error come out."""
    sent = bytearray(batch_of(records))
    first = DefaultRecordBatch.HEADER_STRUCT.size
    sent[first + place % (len(sent) - first)] = byte
    assert facts_of(DefaultRecordBatch(sent)) == by_the_client(sent)


def test_ordinary_records_take_the_shorter_way():
    """A record of audio is not read by the client: the tests above compare two ways."""
    headers = [("schema", b"callmood.audio/1"), ("seq", b"7"), ("traceparent", bytes(55))]
    batch = DefaultRecordBatch(batch_of([(5, b"call", bytes(1_600), headers)]))
    record = kafka_records.read_short(iter(batch))
    assert (record.offset, record.timestamp, record.key, record.headers) == (0, 5, b"call", headers)
