"""Reads what was fetched from one partition, batch by batch: section 7 of `kafka_workarounds`."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, KafkaError

from callmood.worker.adapters.kafka_records import records_in
from callmood.worker.commits import TopicPartition
from callmood.worker.records import Record

_MAX_BATCH_RECORDS: Final = 1 << 20


class Skipped(NamedTuple):
    """Offsets from `first` to before `next_offset` that are not read, and why: the client cannot parse them.

    Or, with `is_deleted`, Kafka had deleted them.
    """

    source: TopicPartition
    first: int
    next_offset: int
    reason: str
    is_deleted: bool = False


class _OneBatch:
    """A batch as kafka-python's loop over batches expects it, which checks it and gets no record.

    Attributes:
        is_wanted: whether that loop asked for records: the batch is intact, and not part of an aborted transaction.
    """

    def __init__(self, batch: Any) -> None:
        self.is_wanted = False
        self._batch = batch
        self._is_due = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        self.is_wanted = True
        return iter(())

    def __next__(self) -> Any:
        return next(self._batch)

    def next_batch(self) -> Any:
        """The batch, once."""
        is_due, self._is_due = self._is_due, False
        return self if is_due else None


class PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    """What was fetched from one partition, parsed batch by batch."""

    fetch_offset: int
    next_fetch_offset: int

    def __init__(self, skipped: list[Skipped], *fetched: Any, **options: Any) -> None:
        self._skipped = skipped
        self._is_in_batch = False
        super().__init__(*fetched, **options)

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
        damaged: str | None = None
        while (batch := records.next_batch()) is not None:
            if damaged is not None:  # no checksum covers a batch's first offset
                is_near = 0 < batch.base_offset - self.next_fetch_offset <= _MAX_BATCH_RECORDS
                self._skip(tp, batch.base_offset if is_near else self.next_fetch_offset + 1, damaged)
            damaged = None
            try:
                yield from self._records_of(tp, batch, *deserializers)
            except Exception as error:  # noqa: BLE001 - whatever a batch makes the client raise must cost that batch alone
                reason = str(error) if isinstance(error, KafkaError) else f"{type(error).__name__}: {error}"
                if _is_intact(batch, error):
                    self._skip(tp, batch.next_offset, reason)
                else:
                    damaged = reason
        if damaged is not None:
            self._skip(tp, self.next_fetch_offset + 1, damaged)
        self.drain()

    def _records_of(self, tp: Any, batch: Any, *deserializers: Any) -> Iterator[Record]:
        first, checked = self.next_fetch_offset, _OneBatch(batch)
        self._is_in_batch = True
        try:
            yield from super()._unpack_records(tp, checked, *deserializers)  # yields nothing
        finally:
            self._is_in_batch = False
        if not checked.is_wanted:
            return
        self.next_fetch_offset = first
        self.bytes_read += 1  # if there were any, the client lets another partition be the first of the next fetch
        for record in records_in(batch, tp.topic, tp.partition):
            self.next_fetch_offset = record.position.offset + 1
            yield record
        if batch.magic >= 2:  # noqa: PLR2004 - Kafka's format version
            self.next_fetch_offset = batch.next_offset  # compaction may have removed the last records

    def _maybe_skip_record(self, record: Record) -> bool:
        return record.position.offset < self.fetch_offset

    def _skip(self, tp: Any, next_offset: int, reason: str) -> None:
        first = self.next_fetch_offset
        self.next_fetch_offset = max(next_offset, first)
        if next_offset > first:
            self._skipped.append(Skipped(TopicPartition(tp.topic, tp.partition), first, next_offset, reason))

    def drain(self) -> None:
        """No more records are wanted: there is none, or the partition was revoked.

        The client's loop over batches ends with each batch here, and that is not the end.
        """
        if not self._is_in_batch:
            super().drain()


def _is_intact(batch: Any, error: Exception) -> bool:
    """Whether the batch's own offsets can be trusted."""
    has_wrong_checksum = isinstance(error, CorruptRecordError) and "crc" in str(error)
    return not has_wrong_checksum and batch.magic >= 2  # noqa: PLR2004 - Kafka's format version
