"""Batches are decompressed up to a limit.

kafka-python decompresses a whole batch at once, and no setting of Kafka limits the decompressed size: a megabyte of
gzip can contain a gigabyte of zeros. The kernel would kill each worker that reads the batch. The client's snappy reader
also follows lengths that point backwards, and then never ends.
"""

import gzip
import io
from collections.abc import Callable, Iterator
from typing import Any, Final

from kafka import codec
from kafka.errors import CorruptRecordError
from kafka.record import default_records, legacy_records

MAX_BYTES: Final = 128 << 20
"""Of a batch; a client's batch is a thousandth of that, unless it is made to harm."""
_PIECE_BYTES: Final = 1 << 20
_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16
_LENGTH_BYTES: Final = 5  # of a varint of 32 bits


def install() -> None:
    """Make kafka-python's readers of batches use these decoders."""
    default_records.zstd_decode = _zstd
    for module in (default_records, legacy_records):
        module.gzip_decode = _gzip
        module.lz4_decode = _lz4
        module.snappy_decode = _snappy
    codec.lz4_decode = _lz4  # for batches of Kafka 0.8 and 0.9


def _gzip(payload: Any) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(payload)) as stream:
        return _read(stream.read)


def _lz4(payload: bytes) -> bytes:
    import lz4.frame  # noqa: PLC0415 - a codec may be missing; the client looks before it decodes

    with lz4.frame.LZ4FrameFile(io.BytesIO(payload)) as stream:
        return _read(stream.read)


def _zstd(payload: bytes) -> bytes:
    import zstandard  # noqa: PLC0415 - as above

    with zstandard.ZstdDecompressor().stream_reader(payload, read_across_frames=True) as stream:
        return _read(stream.read)


def _snappy(payload: bytes) -> bytes:
    import snappy  # noqa: PLC0415 - as above

    content = bytearray()
    for block in _snappy_blocks(payload):
        _refuse_too_long(len(content) + _declared_bytes(block))
        content += snappy.decompress(block)
    return bytes(content)


def _snappy_blocks(payload: bytes) -> Iterator[bytes]:
    """The payload; or, as Java's clients write it, blocks that each have their length in front."""
    if not payload.startswith(_XERIAL):
        yield payload
        return
    stream = io.BytesIO(payload[_XERIAL_HEADER_BYTES:])
    while length := stream.read(4):
        yield stream.read(int.from_bytes(length, "big"))


def _declared_bytes(block: bytes) -> int:
    """The length with which a snappy block begins, of its content."""
    length = 0
    for index, byte in enumerate(block[:_LENGTH_BYTES]):
        length |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return length
    raise CorruptRecordError("a snappy block has no length")


def _read(read: Callable[[int], bytes]) -> bytes:
    """All of a stream.

    Raises:
        CorruptRecordError: it is too long.
    """
    content = bytearray()
    while piece := read(_PIECE_BYTES):
        content += piece
        _refuse_too_long(len(content))
    return bytes(content)


def _refuse_too_long(content_bytes: int) -> None:
    if content_bytes > MAX_BYTES:
        raise CorruptRecordError(f"the batch is larger than {MAX_BYTES >> 20} MB after decompression")
