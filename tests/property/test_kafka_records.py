"""Records of a batch are read by a shorter way: what comes out is what kafka-python reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecordsBuilder

from callmood.worker.adapters import kafka_records
from callmood.worker.adapters.kafka_workarounds import install
from callmood.worker.records import Position, Record

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


def read(sent):
    """The records of a batch up to one that is corrupt, and whether there is one."""
    found = []
    try:
        for record in kafka_records.records_in(DefaultRecordBatch(sent), "audio", 3):
            found.append(record)  # noqa: PERF402 - those before an error count
    except CorruptRecordError:
        return found, "corrupt"
    return found, "whole"


def by_the_client(sent):
    """The same as kafka-python reads it."""
    found = []
    try:
        for one in DefaultRecordBatch(sent):
            position = Position("audio", 3, one.offset)
            found.append(Record(position, one.key, one.value, tuple(one.headers), one.timestamp))
    except CorruptRecordError:
        return found, "corrupt"
    return found, "whole"


@given(records=RECORDS, is_transactional=st.booleans())
def test_any_batch_is_read_as_the_client_reads_it(records, is_transactional):
    """Offsets, timestamps, keys, values and headers of any records are the same, null ones and long ones too."""
    sent = batch_of(records, is_transactional=is_transactional)
    assert read(sent) == by_the_client(sent)


@given(records=RECORDS, place=st.integers(0, 2**16), byte=st.integers(0, 255))
def test_a_damaged_batch_is_refused_as_the_client_refuses_it(records, place, byte):
    """With any byte changed, the same records or the same error come out."""
    sent = bytearray(batch_of(records))
    first = DefaultRecordBatch.HEADER_STRUCT.size
    sent[first + place % (len(sent) - first)] = byte
    assert read(bytes(sent)) == by_the_client(bytes(sent))


def test_ordinary_records_take_the_shorter_way():
    """A record of audio is not read by the client: the tests above compare two ways."""
    headers = [("schema", b"callmood.audio/1"), ("seq", b"7"), ("traceparent", bytes(55))]
    sent = batch_of([(5, b"call", bytes(1_600), headers), (6, b"call", b"", [])])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(DefaultRecordBatch, "_read_msg", None)
        records, found = read(sent)
    assert found == "whole"
    assert [(one.position.offset, one.timestamp_ms, one.headers) for one in records] == [
        (0, 5, tuple(headers)),
        (1, 6, ()),
    ]


def test_a_record_of_the_oldest_format_has_no_timestamp():
    """Kafka's formats 0 and 1 are read by the client; where a record has no timestamp, -1 says so."""
    for magic, timestamp_ms in ((0, -1), (1, 5)):
        builder = MemoryRecordsBuilder(magic=magic, compression_type=0, batch_size=1 << 16)
        builder.append(5, b"call", b"audio", [])
        builder.close()
        batch = MemoryRecords(builder.buffer()).next_batch()
        (record,) = kafka_records.records_in(batch, "audio", 3)
        assert record == Record(Position("audio", 3, 0), b"call", b"audio", (), timestamp_ms)
