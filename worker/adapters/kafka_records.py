"""Reads one record of a fetched batch as kafka-python's `_read_msg` does, but in two thirds of the time.

kafka-python calls a function for every length of every header, and a record of audio has eight headers. Here a length
below 64 is one byte, and a name is decoded once. The client reads all other records: a control record, a damaged one, a
name that is not UTF-8.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint

_LONG_OR_NULL = 0x81  # bits of a length's first byte: more bytes follow, or the length is negative


def with_short_way(read: Callable[..., Any]) -> Callable[..., Any]:
    """The client's method with the short way before it."""

    @wraps(read)
    def read_record(batch: Any, *args: Any) -> Any:
        try:
            record = read_short(batch)
        except (IndexError, ValueError):
            record = None
        return read(batch, *args) if record is None else record

    return read_record


def read_short(batch: Any) -> Any:
    """The next record of a batch; None if the client has to read it, and then the batch is as it was.

    Raises:
        IndexError: the batch ends too early.
        ValueError: a header name is not UTF-8.
    """
    if type(batch._buffer) is bytearray:  # noqa: SLF001 - slices of bytes need no second copy
        batch._buffer = bytes(batch._buffer)  # noqa: SLF001 - as above
    buffer, facts = batch._buffer, batch._header_data  # noqa: SLF001 - as above
    if type(buffer) is not bytes or facts[5] & DefaultRecordBatch.CONTROL_MASK:
        return None
    length, start = decode_varint(buffer, batch._pos)  # noqa: SLF001 - as above
    since_ms, pos = decode_varint(buffer, start + 1)  # after one byte of attributes, which Kafka does not use
    offset_delta, pos = decode_varint(buffer, pos)
    key, pos = _bytes(buffer, pos)
    value, pos = _bytes(buffer, pos)
    count, pos = decode_varint(buffer, pos)
    headers = []
    for _ in range(count):
        size = buffer[pos]
        if size & _LONG_OR_NULL:
            return None
        end = pos + 1 + (size >> 1)
        name = _name(buffer[pos + 1 : end])
        size = buffer[end]
        if size & _LONG_OR_NULL:
            content, pos = _bytes(buffer, end)
        else:
            pos = end + 1 + (size >> 1)
            content = buffer[end + 1 : pos]
        headers.append((name, content))
    if buffer[start] or count < 0 or pos - start != length or pos > len(buffer):
        return None
    batch._pos = pos  # noqa: SLF001 - as above
    has_append_time = facts[5] & DefaultRecordBatch.TIMESTAMP_TYPE_MASK
    timestamp_ms = facts[8] if has_append_time else facts[7] + since_ms
    return DefaultRecord(length, facts[0] + offset_delta, timestamp_ms, int(bool(has_append_time)), key, value, headers)


@lru_cache(maxsize=1_024)
def _name(name: bytes) -> str:
    return name.decode()


def _bytes(buffer: bytes, pos: int) -> tuple[bytes | None, int]:
    size, pos = decode_varint(buffer, pos)
    return (None, pos) if size < 0 else (buffer[pos : pos + size], pos + size)
