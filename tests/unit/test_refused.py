"""What a record that breaks the contract still says."""

import json

import pytest

from callmood.worker.intake.refused import named_calls, paused_calls
from callmood.worker.records import Position, Record


def refused(*headers, key=b"call-1", value=None):
    """A record that has these headers."""
    return Record(Position("audio", 0, 0), key, value, headers, 1)


def in_json(key=b"call-1", **fields):
    """A record in JSON."""
    return refused(key=key, value=json.dumps(fields).encode())


@pytest.mark.parametrize(
    "headers",
    [
        [("event", b"pause")],
        [("event", b"PAUSE")],
        [("event", b' "pause"\n')],
        [("event", b"paused")],
        [("event", "pause".encode("utf-16"))],
        [("event", b"pause\0\0")],
        [("Event ", b"pause")],
        [("event", b"pause"), ("event", b"media")],
        [("event", b"pause"), ("event", None)],
        [("event", None), ("event", b"\xffpause")],
    ],
)
def test_a_pause_is_understood_in_every_spelling(headers):
    """A call whose producer may have asked for a pause is paused."""
    assert paused_calls(refused(*headers), input_format="headers") == {"call-1"}


@pytest.mark.parametrize("event", [b"resume", b"media", b"unpause", b"", b"\xff", None, b"x" * 1_000_000 + b"pause"])
def test_other_events_are_no_pause(event):
    """Nor is a header of another name."""
    assert not paused_calls(refused(("event", event), ("state", b"pause")), input_format="headers")


@pytest.mark.parametrize(
    ("value", "is_pause"),
    [
        (b'{"event": "pause", "seq": ', True),
        (b'{"event" : " Pause"}', True),
        (b'{"event": "pause", "event": "media"}', True),
        (b'{"event": "pause", "x": "\xff"}', True),
        (b'{"event": "media", "attr.note": "pause"}', False),
        (b'{"event": ["pause"]}', True),
        (b"{'event': 'pause'}", True),
        (b'{event: "pause"}', True),
        (b'{"event": "\\u0070ause"}', True),
        ('{"event": "pause"}'.encode("utf-16"), True),
        ('{"event": "pause", "seq": '.encode("utf-16"), True),
        (b'{"audio": "' + b"A" * 500_000 + b'", "event": "pause"}', True),
        (b'{" Event": "pause"}', True),
        (b'{"event": "media", "ivr": {"event": "pause_menu"}}', False),
        (b'{"event": "media", "last_event": "pause", ', False),
        (b'{"event": {"type": "pause"}}', False),
        (b'["event", "pause"]', False),
        (b"[" * 100_000, False),
        (b'{"event": ' + b'{"a":' * 600 + b"1" + b"}" * 601, False),
        (b'{"event": ' + b'["pause", {"a":' * 400 + b"1" + b"}]" * 400 + b"}", True),
        (b"7", False),
        (b"", False),
        (None, False),
    ],
)
def test_a_pause_in_json_is_understood_though_the_rest_is_illegible(value, is_pause):
    """The call is that of the key; a header says nothing in this format."""
    record = refused(("event", b"pause"), value=value)
    assert paused_calls(record, input_format="json") == ({"call-1"} if is_pause else set())


@pytest.mark.parametrize(
    ("record", "paused", "named"),
    [
        (in_json(event="pause", call_id="call-2"), {"call-1", "call-2"}, {"call-1", "call-2"}),
        (in_json(event="pause", call_id=["call-2"]), {"call-1"}, None),
        (in_json(b"\xff", event="pause", call_id="call-2"), {"call-2"}, None),
        (in_json(b"", event="pause", call_id="call-2"), {"call-2"}, {"call-2"}),
        (in_json(None, event="pause"), set(), None),
        (in_json(b"line\nfeed", event="pause"), set(), None),
    ],
)
def test_each_call_id_is_read_alone(record, paused, named):
    """A call is paused if its id can be read anywhere; if one is illegible, the record may be that of any call."""
    assert paused_calls(record, input_format="json") == paused
    assert named_calls(record, input_format="json") == named


def test_a_twilio_message_asks_for_no_pause():
    """Its format has none, whatever its headers say."""
    assert not paused_calls(refused(("event", b"pause")), input_format="twilio")
