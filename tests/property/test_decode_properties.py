"""Decoding, for every record there can be."""

import base64
import json
import string
from unittest.mock import patch

import numpy as np
import pydantic
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from callmood.schemas.audio import AudioHeaders
from callmood.schemas.common import RATES_HZ, Encoding, Event, Role
from callmood.worker.errors import BadRecord
from callmood.worker.intake.decode import decode
from callmood.worker.records import AudioFormat, Position, Record

MAX_RECORD_MS = 1_000
NAMES = tuple(field.alias or name for name, field in AudioHeaders.model_fields.items())

odd_text = st.text(max_size=8) | st.sampled_from(["-1", "+1", "1e3", "nan", "0.0", " 1", "01", "1.", ".5", "٣", ""])
legal = {
    "schema": st.just("callmood.audio/1"),
    "event": st.sampled_from([event.value for event in Event]),
    "stream": st.text(string.ascii_letters + string.digits + "-._~/+=", min_size=1, max_size=64),
    "seq": st.integers(0, 10**15 - 1).map(str),
    "media_ms": st.floats(0, 999_999_999).map(lambda number: f"{number:.3f}"),
    "encoding": st.sampled_from([encoding.value for encoding in Encoding]),
    "rate": st.sampled_from([str(rate_hz) for rate_hz in RATES_HZ]),
    "layout": st.lists(st.sampled_from(Role), min_size=1, max_size=9).map(",".join),
    "discarded_ms": st.integers(0, 10_000).map(str),
    "notice": st.sampled_from(["given", "not_given"]),
    "scope": st.sampled_from(["stream", "call"]),
    "attr.queue": st.text(max_size=8),
    "attr.": st.just("unnamed"),
    "traceparent": st.text(max_size=60),
    "x-other": st.text(max_size=8),
}
required = ("schema", "seq", "encoding", "rate", "layout")
mostly_legal_headers = st.builds(
    dict.__or__,
    st.fixed_dictionaries(
        {name: legal[name] for name in required},
        optional={name: strategy for name, strategy in legal.items() if name not in required},
    ),
    st.dictionaries(st.sampled_from(list(legal)), odd_text, max_size=1),
)
ordinary_headers = st.fixed_dictionaries(
    {name: legal[name] for name in required},
    optional={name: legal[name] for name in legal if name not in (*required, "event", "discarded_ms", "traceparent")},
)

formats = st.builds(
    AudioFormat,
    st.sampled_from(Encoding),
    st.sampled_from(RATES_HZ),
    st.lists(st.sampled_from(Role), min_size=1, max_size=8).map(tuple),
)
any_headers = st.lists(
    st.tuples(st.sampled_from([*NAMES, "attr.x", "role_inbound"]) | st.text(max_size=5), st.binary()),
    max_size=12,
).map(tuple)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, "audio", "call_id", "media", "start", "track"]), inner, max_size=6)
    ),
    max_leaves=12,
)


def record(headers=(), value=b"", key=b"call", timestamp_ms=0):
    return Record(Position("audio", 0, 0), key, value, tuple(headers), timestamp_ms)


@given(
    key=st.none() | st.binary(max_size=12),
    headers=any_headers,
    value=st.none() | st.binary(max_size=64) | any_json.map(lambda body: json.dumps(body).encode()),
    timestamp_ms=st.integers(-1, 2**63 - 1),
    input_format=st.sampled_from(["headers", "json", "twilio"]),
)
def test_nothing_but_a_bad_record_is_ever_raised(key, headers, value, timestamp_ms, input_format):
    """Arbitrary bytes are read or refused; they never crash the worker."""
    try:
        decode(record(headers, value, key, timestamp_ms), input_format=input_format, max_record_ms=MAX_RECORD_MS)
    except BadRecord as refusal:
        assert refusal.detail  # noqa: PT017 - most examples raise, some must not


def test_every_header_of_the_contract_is_drawn():
    """A header that is new in the model needs a strategy in `legal`, so that the next test compares it."""
    assert set(NAMES) <= set(legal)


@given(headers=mostly_legal_headers)
def test_decode_accepts_what_the_contract_accepts(headers):
    """The fast reader and the published model agree on every set of headers."""
    is_media = headers.get("event", "media") == "media"
    value = bytes(48_000 * 2 // 1000 * len(headers.get("layout", "").split(","))) if is_media else b""
    pairs = [(name, text.encode()) for name, text in headers.items()]
    try:
        AudioHeaders.model_validate(headers)
    except pydantic.ValidationError:
        with pytest.raises(BadRecord):
            decode(record(pairs, value), input_format="headers", max_record_ms=MAX_RECORD_MS)
    else:
        assert decode(record(pairs, value), input_format="headers", max_record_ms=MAX_RECORD_MS) is not None


@given(headers=ordinary_headers)
def test_a_media_record_is_the_same_by_either_way(headers):
    """A media record decoded by the shape that its headers share with others equals the one read in full."""
    value = bytes(48_000 * 2 // 1000 * len(headers["layout"].split(",")))
    sent = record([(name, text.encode()) for name, text in headers.items()], value)
    with patch("callmood.worker.intake.decode._decode_known", return_value=None):
        try:
            in_full = decode(sent, input_format="headers", max_record_ms=MAX_RECORD_MS)
        except BadRecord:
            assume(False)
    assert decode(sent, input_format="headers", max_record_ms=MAX_RECORD_MS) == in_full


@given(wire=formats, frames=st.integers(1, 400), seq=st.integers(0, 10**15 - 1), as_json=st.booleans(), data=st.data())
def test_every_format_makes_the_round_trip(wire, frames, seq, as_json, data):
    """Whatever a producer writes by the contract arrives sample for sample."""
    samples = data.draw(st.binary(min_size=frames * wire.frame_bytes, max_size=frames * wire.frame_bytes))
    headers = AudioHeaders(
        schema_="callmood.audio/1",
        seq=str(seq),
        encoding=wire.encoding,
        rate=str(wire.rate_hz),
        layout=",".join(wire.layout),
    )
    if as_json:
        body = {**headers.model_dump(mode="json", exclude_none=True), "audio": base64.b64encode(samples).decode()}
        sent = record(value=json.dumps(body).encode())
    else:
        sent = record(headers.to_kafka(), samples)
    chunk = decode(sent, input_format="json" if as_json else "headers", max_record_ms=MAX_RECORD_MS)
    assert (chunk.seq, chunk.samples) == (seq, frames)
    assert (chunk.format.rate_hz, chunk.format.layout) == (wire.rate_hz, wire.layout)
    if wire.encoding is Encoding.S16BE:
        assert np.array_equal(np.frombuffer(chunk.audio, "<i2"), np.frombuffer(samples, ">i2"))
    else:
        assert (chunk.format.encoding, chunk.audio) == (wire.encoding, samples)
