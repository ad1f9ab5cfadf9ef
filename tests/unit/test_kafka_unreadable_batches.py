"""If kafka-python cannot parse a record or a batch, only that is lost, and the partition continues."""

from types import SimpleNamespace

import pytest
from kafka import TopicPartition as KafkaPartition
from kafka.record import MemoryRecords
from kafka.record.memory_records import MemoryRecordsBuilder

from callmood.worker.adapters.kafka_batches import Skipped
from callmood.worker.adapters.kafka_workarounds import install, skip_unreadable_batches
from callmood.worker.commits import TopicPartition

SOURCE = TopicPartition("audio", 3)
GZIP = 1


def batch(first, *headers, compression=0):
    """A record batch as a broker stores it (format 2): one record for each list of headers, from this offset on."""
    builder = MemoryRecordsBuilder(magic=2, compression_type=compression, batch_size=1 << 20)
    for number, header in enumerate(headers):
        builder.append(1_700_000_000_000 + number, b"call", b"audio", header)
    builder.close()
    made = bytearray(builder.buffer())
    made[:8] = first.to_bytes(8, "big")  # the broker's part; the checksum does not cover it
    return bytes(made)


class Name(str):
    """The name of a header that is sent as bytes of another encoding."""

    __slots__ = ()

    def encode(self, *_):  # noqa: D102 - as of str
        return b"stra\xdfe"


def fetched(data, *, fetch_offset=0, **options):
    """What was fetched from a partition, and the list of what is skipped."""
    install()
    consumer = SimpleNamespace(_fetcher=SimpleNamespace())
    skipped = skip_unreadable_batches(consumer)
    make = consumer._fetcher.PartitionRecords
    return make(fetch_offset, KafkaPartition(*SOURCE), MemoryRecords(data), **options), skipped


def read(data, *, fetch_offset=0, at_once=100):
    """Offsets and headers that the client returns, the position after them, and what it skipped."""
    part, skipped = fetched(data, fetch_offset=fetch_offset)
    records = []
    while part:
        records += part.take(at_once)
    return {record.position.offset: list(record.headers) for record in records}, part.next_fetch_offset, skipped


PLAIN = [("seq", b"0")]


def damaged(data):
    """The same batch with a bit turned over in its middle."""
    changed = bytearray(data)
    changed[len(changed) // 2 + 20] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_what_is_whole_is_read_as_ever(at_once):
    """Batches without fault, compressed or not, come out record by record, and nothing is skipped."""
    data = batch(0, PLAIN, PLAIN) + batch(2, PLAIN, [("note", None)], compression=GZIP)
    found, position, skipped = read(data, at_once=at_once)
    assert found == {0: PLAIN, 1: PLAIN, 2: PLAIN, 3: [("note", None)]}
    assert (position, skipped) == (4, [])


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 4])
def test_a_partition_that_was_revoked_has_no_more_records(taken):
    """The client drops what is left in a fetch, also in the middle of a batch; else its poll would never end."""
    drained = []
    part, _ = fetched(batch(0, PLAIN, PLAIN, PLAIN) + batch(3, PLAIN, PLAIN), on_drain=drained.append)
    assert len(part.take(taken)) == taken
    part.drain()
    assert not part
    assert [(one is part, one.bytes_read > 0) for one in drained] == [(True, taken > 0)]


@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize("compression", [0, GZIP])
def test_a_header_name_in_another_encoding_costs_nothing(at_once, compression):
    """The record is read, its name with a surrogate for each odd byte, and so are the records around it."""
    data = batch(0, PLAIN, [(Name("x"), b"1"), *PLAIN], PLAIN, compression=compression) + batch(3, PLAIN)
    found, position, skipped = read(data, at_once=at_once)
    assert found == {0: PLAIN, 1: [("stra\udcdfe", b"1"), *PLAIN], 2: PLAIN, 3: PLAIN}
    assert (position, skipped) == (4, [])


@pytest.mark.parametrize("at_once", [1, 100])
def test_a_codec_that_is_missing_costs_its_batch(at_once, monkeypatch):
    """Its offsets are skipped and named, and the batches before and after it are read."""
    data = batch(0, PLAIN) + batch(1, PLAIN, PLAIN, PLAIN, compression=GZIP) + batch(4, PLAIN)
    monkeypatch.setattr("kafka.codec.has_gzip", lambda: False)
    found, position, skipped = read(data, at_once=at_once)
    assert list(found) == [0, 4]
    assert position == 5
    [(source, first, next_offset, reason, is_deleted)] = skipped
    assert (source, first, next_offset, is_deleted) == (SOURCE, 1, 4, False)
    assert reason == "UnsupportedCodecError: Libraries for gzip compression codec not found"


def test_a_damaged_batch_costs_its_offsets():
    """A batch with a wrong checksum is skipped up to the next one."""
    data = batch(0, PLAIN) + damaged(batch(1, PLAIN, PLAIN)) + batch(3, PLAIN)
    found, position, skipped = read(data)
    assert list(found) == [0, 3]
    assert position == 4
    assert [(one.first, one.next_offset) for one in skipped] == [(1, 3)]


def test_a_damaged_batch_at_the_end_is_left_offset_by_offset():
    """Where no batch follows, how long the damaged one is cannot be known: the next fetch begins one offset later."""
    data = damaged(batch(5, PLAIN, PLAIN))
    assert read(data, fetch_offset=5)[1:] == (6, [Skipped(SOURCE, 5, 6, read(data, fetch_offset=5)[2][0].reason)])
    assert [(one.first, one.next_offset) for one in read(data, fetch_offset=6)[2]] == [(6, 7)]


def test_a_fetch_from_the_middle_of_a_batch_skips_only_the_rest(monkeypatch):
    """Records before the position were read already and are not counted as skipped."""
    data = batch(0, PLAIN, PLAIN, PLAIN, compression=GZIP)
    monkeypatch.setattr("kafka.codec.has_gzip", lambda: False)
    _, position, skipped = read(data, fetch_offset=2)
    assert position == 3
    assert [(one.first, one.next_offset) for one in skipped] == [(2, 3)]


def test_an_offset_that_no_checksum_covers_is_not_trusted():
    """After a damaged batch, one whose first offset is absurd moves the position by one, not for ever."""
    data = damaged(batch(5, PLAIN, PLAIN)) + damaged(batch(1 << 60, PLAIN))
    _, position, skipped = read(data, fetch_offset=5)
    assert position <= 7
    assert all(one.next_offset - one.first == 1 for one in skipped)
