"""Batches are decompressed up to a limit.

kafka-python decompresses a batch whole, and no setting of Kafka bounds its size then: a megabyte of zeros in gzip is a
gigabyte. The kernel would end each worker that reads it, one after the other.
"""

import gzip
import io
from collections.abc import Callable
from typing import Any, Final

from kafka.errors import CorruptRecordError
from kafka.record import default_records, legacy_records

MAX_BYTES: Final = 128 << 20
"""Of a batch; a client's batch is a thousandth of that, unless it is made to harm. Snappy cannot get far beyond it."""
_PIECE_BYTES: Final = 1 << 20


def install() -> None:
    """Make kafka-python's readers of batches use these decoders."""
    default_records.zstd_decode = _zstd
    for module in (default_records, legacy_records):
        module.gzip_decode = _gzip
        module.lz4_decode = _lz4


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


def _read(read: Callable[[int], bytes]) -> bytes:
    """All of a stream.

    Raises:
        CorruptRecordError: it is too long.
    """
    content = bytearray()
    while piece := read(_PIECE_BYTES):
        content += piece
        if len(content) > MAX_BYTES:
            raise CorruptRecordError(f"the batch has more than {MAX_BYTES >> 20} MB once it is decompressed")
    return bytes(content)
