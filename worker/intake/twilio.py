"""Twilio Media Streams messages, forwarded unchanged: one WebSocket message per record, keyed by call SID. Pure.

Source: twilio.com/docs/voice/media-streams/websocket-messages. Each track (`inbound`, `outbound`) becomes a stream of
its own, `<stream SID>/<track>`, with the message's `chunk` as its number and `timestamp` as its media time. `start` and
`stop` are the stream `<stream SID>`. `stop` ends the stream and its tracks, not the call: `<Stop>` and a new `<Start>`
are Twilio's way to pause. If two streams carry the same track at the same time, only the first is analysed.

Neither a `media` message nor the direction of the call names the speaker of a track. The forwarder must set two
Kafka headers on every record, `role_inbound` and `role_outbound`; without them the role is `unknown`, and such speech
gets no emotion unless the policy allows it. The custom parameters of `start` become attributes; one named `notice`
states whether the caller was informed. A parameter that is not a valid attribute or notice is ignored.
"""

from typing import Any, Final

from msgspec.structs import replace

from callmood.schemas.audio import ATTRIBUTE_PREFIX, MAX_ATTRIBUTES, is_attribute
from callmood.schemas.common import Encoding, Event, Notice, Role, Scope
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.intake.fields import SEQ, base64_bytes, chunk, header_text, key_text, load_object
from callmood.worker.records import Chunk, Record

_RATE_HZ: Final = 8000
_NOTICES: Final = frozenset(notice.value for notice in Notice)
_TRACKS: Final = ("inbound", "outbound")
# Room for `start` with its custom parameters.
_MAX_FIELDS_BYTES: Final = 65_536


def decode_twilio(record: Record, *, max_record_ms: int) -> Chunk | None:
    """One chunk out of a Media Streams message, or None for `connected`, `mark` and `dtmf`.

    Raises:
        BadRecord: the message is not what Twilio documents.
    """
    message = load_object(record.value, max_bytes=max_record_ms * _RATE_HZ // 1000 * 4 // 3 + _MAX_FIELDS_BYTES)
    audio = b""
    match message.get("event"):
        case "connected" | "mark" | "dtmf":
            return None
        case "start":
            fields = _start(message, key_text(record.key))
        case "media":
            media = _object(message, "media")
            fields = _media(record, media)
            audio = base64_bytes(media.get("payload"))
        case "stop":
            fields = {"event": Event.END.value, "seq": "1", "scope": Scope.STREAM.value}
        case _:
            raise BadRecord(Reason.BAD_PAYLOAD, "event is not one of connected, start, media, stop, mark, dtmf")
    stream = _text(message, "streamSid")
    fields["stream"] = f"{stream}/{fields['stream']}" if "stream" in fields else stream
    taken = chunk(record, key_text(record.key), fields, audio, max_record_ms=max_record_ms)
    return replace(taken, has_track=True) if taken.event is Event.MEDIA else taken


def _start(message: dict[str, Any], call: str) -> dict[str, str]:
    start = _object(message, "start")
    if start.get("callSid", call) != call:
        raise BadRecord(Reason.BAD_HEADER, "callSid and the key differ")
    expected = {"encoding": "audio/x-mulaw", "sampleRate": str(_RATE_HZ), "channels": "1"}
    given = _object(start, "mediaFormat") if "mediaFormat" in start else expected
    if any(str(given.get(name)).lower() != value for name, value in expected.items()):
        raise BadRecord(Reason.UNKNOWN_ENCODING, "mediaFormat is not mu-law, 8000 Hz, one channel")
    fields = {"event": Event.START.value, "seq": "0"}
    parameters = _object(start, "customParameters") if start.get("customParameters") is not None else {}
    for name, value in parameters.items():
        is_legal = isinstance(value, str) and is_attribute(name, value) and len(fields) < MAX_ATTRIBUTES
        if is_legal and (name != "notice" or value in _NOTICES):
            fields["notice" if name == "notice" else ATTRIBUTE_PREFIX + name] = value
    return fields


def _media(record: Record, media: dict[str, Any]) -> dict[str, str]:
    track, number = _text(media, "track"), _text(media, "chunk")
    if track not in _TRACKS:
        raise BadRecord(Reason.BAD_PAYLOAD, f"track is not one of {', '.join(_TRACKS)}")
    if not SEQ.fullmatch(number) or int(number) == 0:
        raise BadRecord(Reason.BAD_PAYLOAD, "chunk is not a positive whole number")
    return {
        "event": Event.MEDIA.value,
        "stream": track,
        "seq": str(int(number) - 1),
        "media_ms": _text(media, "timestamp"),
        "encoding": Encoding.PCMU.value,
        "rate": str(_RATE_HZ),
        "layout": header_text(record, f"role_{track}") or Role.UNKNOWN.value,
    }


def _object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    if not isinstance(value, dict):
        raise BadRecord(Reason.BAD_PAYLOAD, f"{name} is not an object")
    return value


def _text(parent: dict[str, Any], name: str) -> str:
    value = parent.get(name)
    if not isinstance(value, str):
        raise BadRecord(Reason.BAD_PAYLOAD, f"{name} is missing or not text")
    return value
