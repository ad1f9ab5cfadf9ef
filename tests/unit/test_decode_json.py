"""Records of producers that cannot set headers."""

import base64
import json

import pytest

from callmood.schemas.common import Event
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.intake.decode import decode
from callmood.worker.records import Position, Record

AUDIO = b"\x7f\xff" * 80
HEADERS = {"schema": "callmood.audio/1", "seq": "3", "encoding": "pcmu", "rate": "8000", "layout": "customer,agent"}
LEGAL = {**HEADERS, "audio": base64.b64encode(AUDIO).decode()}


def read(value, key=b"call-1"):
    if not isinstance(value, bytes):
        value = json.dumps(value).encode()
    return decode(Record(Position("audio", 0, 0), key, value, (), 1_000), input_format="json", max_record_ms=5_000)


def reason_of(value, key=b"call-1"):
    with pytest.raises(BadRecord) as caught:
        read(value, key)
    return caught.value.reason


def test_the_same_fields_give_the_same_chunk_as_headers():
    """JSON and headers are two spellings of one record."""
    headers = tuple((name, text.encode()) for name, text in HEADERS.items())
    record = Record(Position("audio", 0, 0), b"call-1", AUDIO, headers, 1_000)
    assert read(LEGAL) == decode(record, input_format="headers", max_record_ms=5_000)


def test_numbers_may_be_numbers():
    """seq, rate and times may stand as JSON numbers."""
    chunk = read({**LEGAL, "seq": 3, "rate": 8000, "media_ms": 1.5})
    assert (chunk.seq, chunk.format.rate_hz, chunk.media_ms) == (3, 8000, 1.5)


def test_an_event_needs_no_audio_field():
    """An `end` is complete without audio."""
    assert read({"schema": "callmood.audio/1", "seq": 9, "event": "end"}).event is Event.END


def test_the_call_id_may_stand_in_the_object():
    """`call_id` names the call where the record has no key."""
    assert read({**LEGAL, "call_id": "call-2"}, key=None).call_id == "call-2"
    assert read({**LEGAL, "call_id": "call-1"}).call_id == "call-1"


def test_unknown_fields_are_ignored():
    """A producer may send more than the contract knows, of any kind."""
    assert read({**LEGAL, "vendor": {"nested": [1, None]}}) == read(LEGAL)


@pytest.mark.parametrize(
    ("reason", "value", "key"),
    [
        (Reason.EMPTY, b"", b"call-1"),
        (Reason.BAD_PAYLOAD, b"RIFF\x00\xff", b"call-1"),
        (Reason.BAD_PAYLOAD, b"[]", b"call-1"),
        (Reason.BAD_PAYLOAD, b'{"seq": ', b"call-1"),
        (Reason.BAD_PAYLOAD, b"[" * 100_000, b"call-1"),
        (Reason.TOO_LONG, b" " * 10_000_000, b"call-1"),
        (Reason.BAD_HEADER, {**LEGAL, "seq": None}, b"call-1"),
        (Reason.BAD_HEADER, {**LEGAL, "seq": True}, b"call-1"),
        (Reason.BAD_HEADER, {**LEGAL, "seq": 1e300}, b"call-1"),
        (Reason.BAD_HEADER, b'{"schema": "callmood.audio/1", "seq": NaN}', b"call-1"),
        (Reason.BAD_HEADER, {**LEGAL, "layout": ["customer"]}, b"call-1"),
        (Reason.BAD_HEADER, {**LEGAL, "attr.queue": "\ud800"}, b"call-1"),
        (Reason.BAD_HEADER, {**LEGAL, "call_id": "call-2"}, b"call-1"),
        (Reason.BAD_HEADER, {**LEGAL, "call_id": 7.0, "seq": []}, None),
        (Reason.BAD_HEADER, {**LEGAL, "call_id": "\ud800"}, None),
        (Reason.NO_KEY, {**LEGAL, "call_id": ""}, None),
        (Reason.NO_KEY, LEGAL, None),
        (Reason.NO_SCHEMA, {"seq": 1}, b"call-1"),
        (Reason.BAD_PAYLOAD, {**LEGAL, "audio": "not base64!"}, b"call-1"),
        (Reason.BAD_PAYLOAD, {**LEGAL, "audio": "äöü"}, b"call-1"),
        (Reason.BAD_PAYLOAD, {**LEGAL, "audio": [1, 2]}, b"call-1"),
        (Reason.EMPTY, {**LEGAL, "audio": ""}, b"call-1"),
        (Reason.EMPTY, HEADERS, b"call-1"),
        (Reason.TRUNCATED, {**LEGAL, "audio": "/w=="}, b"call-1"),
        (Reason.TOO_LONG, {**LEGAL, "audio": base64.b64encode(bytes(80_002)).decode()}, b"call-1"),
    ],
)
def test_an_illegal_object_has_its_reason(reason, value, key):
    """Whatever breaks the contract is refused under its stable reason."""
    assert reason_of(value, key) is reason


def test_a_name_of_the_producer_is_not_repeated():
    """The name of an attribute may be a number, or no text at all: the detail does not have it."""
    with pytest.raises(BadRecord) as caught:
        read(rb'{"schema":"callmood.audio/1","attr.\ud800":null}')
    assert caught.value.detail == "an attribute is neither text nor a number"


def test_times_in_other_units_are_converted():
    """A producer that stamps microseconds gives the same capture time as one that stamps milliseconds."""
    for stamp in (1_700_000_000_000, 1_700_000_000_000_000):
        record = Record(Position("audio", 0, 0), b"call-1", json.dumps(LEGAL).encode(), (), stamp)
        assert decode(record, input_format="json", max_record_ms=5_000).capture_ms == 1_700_000_000_000
