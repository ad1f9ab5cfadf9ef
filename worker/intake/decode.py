"""Kafka record -> chunk, the one value that every later stage reads. Pure.

Each record is read alone, so a worker that joins in the middle of a call understands its first record. The records of
a call differ in few headers, so what the others say is read once (`_shape`).
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Final, NamedTuple

from callmood.schemas.audio import DECIMAL_MS_PATTERN, SEQ_PATTERN, STREAM_PATTERN
from callmood.schemas.common import Event
from callmood.worker.errors import BadRecord, ConfigurationError, Reason
from callmood.worker.intake.fields import check_schema, chunk, is_known, key_text, text_of
from callmood.worker.intake.json_records import decode_json
from callmood.worker.intake.twilio import decode_twilio
from callmood.worker.records import Chunk, Position, Record
from callmood.worker.stream_time import in_ms

_SEQ: Final = re.compile(SEQ_PATTERN.encode())
_DECIMAL_MS: Final = re.compile(DECIMAL_MS_PATTERN.encode())
_STREAM: Final = re.compile(STREAM_PATTERN.encode())
_ANY_FORMAT_BYTES: Final = 1_680
"""A whole number of samples of one to eight channels, of one or two bytes."""
_NO_TIME: Final = b"000"
_NEEDED: Final = frozenset(("schema", "seq", "encoding", "rate", "layout"))
_DIFFER: Final = frozenset(("seq", "stream", "media_ms"))
_SHAPES: Final = 4_096
_STREAMS: Final = 16_384
_KEPT_BYTES: Final = 1_024
"""Of what is remembered: there are thousands, and a header may have a megabyte."""


class _TooLarge(Exception):  # noqa: N818 - no error: such a record is read in full, and its headers are not remembered
    """A cache does not keep what raises."""


def decode(record: Record, *, input_format: str, max_record_ms: int) -> Chunk | None:
    """Read one record of the audio topic.

    Args:
        record: as Kafka gave it.
        input_format: `headers`, `json` or `twilio` (`CALLMOOD_INPUT__FORMAT`).
        max_record_ms: longest audio that one record may hold.

    Returns:
        The chunk, or None for a legal record that does not concern the call's audio (a Twilio `mark`).

    Raises:
        BadRecord: the record breaks the contract; the detail has fields and lengths, never content.
        ConfigurationError: unknown input format.
    """
    if input_format == "headers" and (known := _decode_known(record, max_record_ms=max_record_ms)) is not None:
        return known
    if not all(_is_utf8(name) for name, _ in record.headers):
        raise BadRecord(Reason.BAD_HEADER, "the name of a header is not UTF-8")
    match input_format:
        case "headers":
            return _decode_headers(record, max_record_ms=max_record_ms)
        case "json":
            return decode_json(record, max_record_ms=max_record_ms)
        case "twilio":
            return decode_twilio(record, max_record_ms=max_record_ms)
        case _:
            raise ConfigurationError(f"unknown input format {input_format!r}: use headers, json or twilio")


def _is_utf8(name: str) -> bool:
    """The consumer turns each byte of a name that is not UTF-8 into a lone surrogate."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decode_headers(record: Record, *, max_record_ms: int) -> Chunk:
    fields: dict[str, str] = {}
    for name, value in record.headers:
        # Other headers belong to middleware and may be binary.
        if is_known(name):
            fields[name] = text_of(value)
    call = key_text(record.key)
    check_schema(fields)
    return chunk(record, call, fields, record.value or b"", max_record_ms=max_record_ms)


def _decode_known(record: Record, *, max_record_ms: int) -> Chunk | None:
    """A media record by the shape that its headers share with others; None if it has to be read in full."""
    audio = record.value
    if not audio or not record.headers or record.timestamp_ms < 0:
        return None
    names, values = zip(*record.headers, strict=True)
    try:
        columns = _columns(names)
        shape = columns and _shape(columns.same, columns.values_of(values))
        if columns is None or shape is None:
            return None
        seq, stream = values[columns.seq], "0" if columns.stream is None else _stream(values[columns.stream])
    except _TooLarge:
        return None
    media_ms = _NO_TIME if columns.media_ms is None else values[columns.media_ms]
    if not (stream and seq and media_ms and _SEQ.fullmatch(seq) and _DECIMAL_MS.fullmatch(media_ms)):
        return None
    assert shape.format is not None
    frame_bytes = shape.format.frame_bytes
    if len(audio) % frame_bytes or len(audio) * 1000 > max_record_ms * shape.format.rate_hz * frame_bytes:
        return None
    return Chunk(
        key_text(record.key),
        stream,
        int(seq),
        shape.event,
        record.position,
        in_ms(record.timestamp_ms),
        None if media_ms is _NO_TIME else float(media_ms),
        shape.format,
        audio,
        notice=shape.notice,
        scope=shape.scope,
        attributes=shape.attributes,
    )


class _Columns(NamedTuple):
    """Where in the headers of media records the values are that differ from record to record, and the others."""

    seq: int
    stream: int | None
    media_ms: int | None
    same: tuple[str, ...]
    """Names of the other headers that the worker reads."""
    values_of: Callable[[tuple[bytes | None, ...]], tuple[bytes | None, ...]]
    """Picks the values of `same`."""


@lru_cache(maxsize=_SHAPES)
def _columns(names: tuple[str, ...]) -> _Columns | None:
    """The columns of headers with these names; None if records with these have to be read in full."""
    _refuse_large(names)
    at = {name: number for number, name in enumerate(names)}
    is_plain = len(at) == len(names) and all(map(_is_utf8, names))
    if not is_plain or not at.keys() >= _NEEDED or "traceparent" in at:
        return None
    same = tuple(name for name in names if is_known(name) and name not in _DIFFER)
    return _Columns(at["seq"], at.get("stream"), at.get("media_ms"), same, itemgetter(*(at[name] for name in same)))


@lru_cache(maxsize=_STREAMS)
def _stream(name: bytes | None) -> str | None:
    """The name of a stream; None if it is not a legal name."""
    _refuse_large((name or b"",))
    return name.decode() if name and _STREAM.fullmatch(name) else None


@lru_cache(maxsize=_SHAPES)
def _shape(names: tuple[str, ...], values: tuple[bytes | None, ...]) -> Chunk | None:
    """A media record with these headers beside those that differ; None if such records have to be read in full."""
    _refuse_large([value or b"" for value in values])
    headers = (("seq", b"0"), *zip(names, values, strict=True))
    sample = Record(Position("", 0, 0), b"0", bytes(_ANY_FORMAT_BYTES), headers, 0)
    try:
        chunk = _decode_headers(sample, max_record_ms=_ANY_FORMAT_BYTES)
    except BadRecord:
        return None
    return chunk if chunk.event is Event.MEDIA and chunk.audio is sample.value else None


def _refuse_large(parts: Sequence[str | bytes]) -> None:
    if sum(map(len, parts)) > _KEPT_BYTES:
        raise _TooLarge
