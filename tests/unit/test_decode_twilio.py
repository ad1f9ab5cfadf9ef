"""Twilio Media Streams messages, forwarded word for word."""

import base64
import json

import pytest

from callmood.schemas.common import Encoding, Event, Notice, Role
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.intake.decode import decode
from callmood.worker.records import AudioFormat, Position, Record

CALL = b"CA" + b"c" * 32
STREAM = "MZ" + "5" * 32
AUDIO = b"\xff" * 160
FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


def media(track="inbound", chunk="1", **change):
    body = {"track": track, "chunk": chunk, "timestamp": "20", "payload": base64.b64encode(AUDIO).decode(), **change}
    return {"event": "media", "sequenceNumber": "4", "streamSid": STREAM, "media": body}


def start(**change):
    body = {"streamSid": STREAM, "callSid": CALL.decode(), "tracks": ["inbound"], "mediaFormat": FORMAT, **change}
    return {"event": "start", "sequenceNumber": "1", "streamSid": STREAM, "start": body}


def read(message, key=CALL, headers=()):
    record = Record(Position("audio", 0, 0), key, json.dumps(message).encode(), headers, 1_000)
    return decode(record, input_format="twilio", max_record_ms=5_000)


def test_media_becomes_a_chunk_of_its_track():
    """Each track is a stream of its own: numbered by `chunk`, placed by `timestamp`."""
    chunk = read(media(track="outbound", chunk="12"))
    assert (chunk.call_id, chunk.stream) == (CALL.decode(), f"{STREAM}/outbound")
    assert (chunk.event, chunk.seq, chunk.media_ms, chunk.audio) == (Event.MEDIA, 11, 20.0, AUDIO)
    assert chunk.format == AudioFormat(Encoding.PCMU, 8000, (Role.UNKNOWN,))


def test_the_forwarder_says_who_speaks():
    """The roles of the tracks are Kafka headers, because no message of Twilio's has them."""
    headers = (("role_inbound", b"customer"), ("role_outbound", b"agent"))
    assert read(media(), headers=headers).format.layout == (Role.CUSTOMER,)
    assert read(media(track="outbound"), headers=headers).format.layout == (Role.AGENT,)


def test_start_carries_the_custom_parameters():
    """Custom parameters become attributes; `notice` is the caller's notice."""
    chunk = read(start(customParameters={"queue": "billing", "notice": "given"}))
    assert (chunk.event, chunk.stream, chunk.seq) == (Event.START, STREAM, 0)
    assert (chunk.attributes, chunk.notice) == ({"queue": "billing"}, Notice.GIVEN)


@pytest.mark.parametrize(
    "spelling",
    [
        {"customParameters": None},
        {"mediaFormat": {**FORMAT, "encoding": "audio/x-MULAW"}},
        {"mediaFormat": {**FORMAT, "bitDepth": 8, "channels": "1"}},
    ],
)
def test_another_spelling_of_a_start_costs_nothing(spelling):
    """Programs that send Twilio's messages leave parameters empty, and write more about the same format."""
    assert read(start(**spelling)).event is Event.START


def test_stop_ends_the_call():
    """Stop follows start in the stream of the two."""
    chunk = read({"event": "stop", "sequenceNumber": "9", "streamSid": STREAM, "stop": {"callSid": CALL.decode()}})
    assert (chunk.event, chunk.stream, chunk.seq) == (Event.END, STREAM, 1)


@pytest.mark.parametrize("event", ["connected", "mark", "dtmf"])
def test_messages_without_audio_say_nothing(event):
    """Connected, mark and dtmf are legal and come to nothing; connected has no call yet."""
    assert read({"event": event, "protocol": "Call", "version": "1.0.0"}, key=None) is None


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (Reason.BAD_PAYLOAD, {}),
        (Reason.BAD_PAYLOAD, {"event": ["media"]}),
        (Reason.BAD_PAYLOAD, {"event": "error"}),
        (Reason.BAD_PAYLOAD, {"event": "media", "streamSid": STREAM}),
        (Reason.BAD_PAYLOAD, {**media(), "streamSid": None}),
        (Reason.BAD_HEADER, {**media(), "streamSid": "a:b"}),
        (Reason.BAD_PAYLOAD, media(track="both")),
        (Reason.BAD_PAYLOAD, media(chunk="0")),
        (Reason.BAD_PAYLOAD, media(chunk="-1")),
        (Reason.BAD_PAYLOAD, media(chunk="²")),
        (Reason.BAD_PAYLOAD, media(chunk=None)),
        (Reason.BAD_HEADER, media(timestamp="soon")),
        (Reason.BAD_PAYLOAD, media(payload="***")),
        (Reason.BAD_PAYLOAD, media(payload=None)),
        (Reason.EMPTY, media(payload="")),
        (Reason.TOO_LONG, media(payload=base64.b64encode(bytes(40_001)).decode())),
        (Reason.TOO_LONG, media(payload="A" * 200_000)),
        (Reason.BAD_HEADER, start(callSid="CA" + "0" * 32)),
        (Reason.UNKNOWN_ENCODING, start(mediaFormat={**FORMAT, "sampleRate": 16000})),
        (Reason.UNKNOWN_ENCODING, start(mediaFormat={})),
        (Reason.BAD_PAYLOAD, start(mediaFormat="audio/x-mulaw")),
        (Reason.BAD_PAYLOAD, start(customParameters=["queue"])),
    ],
)
def test_an_illegal_message_has_its_reason(reason, message):
    """Whatever Twilio does not document is refused under its stable reason."""
    with pytest.raises(BadRecord) as caught:
        read(message)
    assert caught.value.reason is reason


def test_a_message_without_a_call_is_refused():
    """Media does not name its call: the key must."""
    with pytest.raises(BadRecord) as caught:
        read(media(), key=None)
    assert caught.value.reason is Reason.NO_KEY


def test_a_role_that_does_not_exist_is_refused():
    """A forwarder's spelling mistake is seen, not turned into `unknown`."""
    with pytest.raises(BadRecord) as caught:
        read(media(), headers=(("role_inbound", b"caller"),))
    assert caught.value.reason is Reason.BAD_LAYOUT


@pytest.mark.parametrize(
    "bad", [{"queue": {}}, {"notice": "perhaps"}, {"x" * 257: "a"}, {"a": "x" * 257}, {"a": "b\nc"}]
)
def test_a_bad_parameter_costs_itself(bad):
    """What is no attribute and no notice is left out; the `start` and its other parameters stay."""
    chunk = read(start(customParameters={**bad, "team": "two"}))
    assert (chunk.attributes, chunk.notice) == ({"team": "two"}, None)


def test_a_parameter_whose_name_is_no_text_is_left_out():
    """Its name is the caller's application's, and may be a number or no text at all."""
    message = rb'{"event":"start","sequenceNumber":"1","streamSid":"MZ","start":{"customParameters":{"\ud800":null}}}'
    record = Record(Position("audio", 0, 0), b"CA1", message, (), 1_000)
    chunk = decode(record, input_format="twilio", max_record_ms=5_000)
    assert chunk is not None
    assert chunk.attributes == {}
