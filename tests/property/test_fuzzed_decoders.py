"""Whatever somebody else wrote, each decoder reads or refuses it: it raises nothing but what its caller knows.

At night each target runs for about a minute; Hypothesis keeps what it has found in .hypothesis and tries it first.
"""

import json
from functools import cache, partial
from pathlib import Path

import msgpack
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from telephony import STAMPS, Leg, Store, Worker, both, facts, in_time, log_of, quiet, voice
from thorough import fuzzed

from callmood.schemas.alert import Alert
from callmood.schemas.call import Call
from callmood.schemas.common import Encoding
from callmood.schemas.dead_letter import DeadLetterHeaders, original_headers, stored_headers
from callmood.schemas.flat import flatten, unflatten
from callmood.schemas.utterance import Utterance
from callmood.worker import g711
from callmood.worker.commands.recordings import BadRecording, Shape, load
from callmood.worker.errors import BadRecord, ConfigurationError
from callmood.worker.intake.decode import decode
from callmood.worker.intake.refused import named_calls, paused_calls
from callmood.worker.records import Position, Record

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"
FUZZED = settings(
    max_examples=fuzzed(), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
SLOWLY_FUZZED = settings(FUZZED, max_examples=max(50, fuzzed() // 10))

odd_values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        [2**31, 2**53, 2**63 - 1, 2**64, -1, 0, "", "0", "-1", "1e9", "nan", "\ud800", "\0", [], {}, [[]]]
    )
    | st.text(max_size=6)
)


@st.composite
def with_odd_places(draw, value):
    """The value with a few of its inner values replaced, left out or added."""
    value = json.loads(json.dumps(draw(value)))
    for _ in range(draw(st.integers(1, 3))):
        inner = value
        while isinstance(inner, dict | list) and inner:
            keys = list(inner) if isinstance(inner, dict) else range(len(inner))
            key = draw(st.sampled_from(keys))
            if not isinstance(inner[key], dict | list) or not inner[key] or draw(st.integers(0, 3)) == 0:
                if isinstance(inner, dict) and draw(st.booleans()):
                    del inner[key]
                else:
                    inner[key] = draw(odd_values)
                break
            inner = inner[key]
    return value


def damaged(content):
    """Strategy: these bytes with some of them changed, left out, doubled or added."""
    places = st.integers(0, max(0, len(content) - 1))

    def change(steps):
        changed = bytearray(content)
        for place, count, new in steps:
            changed[place : place + count] = new
        return bytes(changed)

    return st.lists(st.tuples(places, st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=4).map(change)


def read(value, input_format, headers=(), key=b"call"):
    """Read a record, and what of it is asked when it is refused."""
    record = Record(Position("audio", 0, 0), key, value, tuple(headers), 1)
    paused_calls(record, input_format=input_format)
    named_calls(record, input_format=input_format)
    try:
        return decode(record, input_format=input_format, max_record_ms=1_000)
    except BadRecord as refusal:
        assert refusal.detail  # noqa: PT017 - most examples raise
        return None


# -- records of the audio topic

media_format = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
twilio = st.sampled_from(
    [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {
            "event": "start",
            "sequenceNumber": "1",
            "streamSid": "MZ1",
            "start": {
                "streamSid": "MZ1",
                "accountSid": "AC1",
                "callSid": "call",
                "tracks": ["inbound", "outbound"],
                "mediaFormat": media_format,
                "customParameters": {"queue": "sales", "notice": "given"},
            },
        },
        {
            "event": "media",
            "sequenceNumber": "2",
            "streamSid": "MZ1",
            "media": {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": "//79/P8="},
        },
        {"event": "stop", "sequenceNumber": "5", "streamSid": "MZ1", "stop": {"accountSid": "AC1", "callSid": "call"}},
        {"event": "mark", "streamSid": "MZ1", "mark": {"name": "x"}},
    ]
)
media = {"schema": "callmood.audio/1", "event": "media", "stream": "0", "seq": 0, "media_ms": 0.5, "encoding": "pcmu"}
media |= {
    "rate": 8000,
    "layout": "customer",
    "notice": "given",
    "attr.queue": "sales",
    "audio": "AAAA",
    "call_id": "call",
}
events = st.sampled_from(["media", "start", "end", "pause", "resume", "gap", "hold", "unhold", "silence"])
own = events.map(lambda event: media | {"event": event})


@FUZZED
@given(message=with_odd_places(twilio), role=st.binary(max_size=12))
def test_odd_messages_of_twilio(message, role):
    """A field of another type, a field that is missing, a number in words."""
    read(json.dumps(message).encode(), "twilio", [("role_inbound", role)])


@FUZZED
@given(body=with_odd_places(own))
def test_odd_records_in_json(body):
    """As above, for all events."""
    read(json.dumps(body).encode(), "json")


@FUZZED
@given(data=st.data(), input_format=st.sampled_from(["json", "twilio"]))
def test_damaged_json(data, input_format):
    """Bytes that are no JSON any more, or no UTF-8."""
    whole = data.draw(own if input_format == "json" else twilio)
    read(data.draw(damaged(json.dumps(whole).encode())), input_format)


@FUZZED
@given(
    body=own, names=st.lists(st.sampled_from(list(media)), max_size=3), odd=st.binary(max_size=20), value=st.binary()
)
def test_odd_headers(body, names, odd, value):
    """Any bytes in any header of any event, twice, too."""
    headers = [(name, str(text).encode()) for name, text in body.items()] + [(name, odd) for name in names]
    read(value, "headers", headers)


@FUZZED
@given(audio=st.binary(max_size=400), encoding=st.sampled_from(Encoding), channels=st.integers(1, 8))
def test_any_audio(audio, encoding, channels):
    """Any bytes are samples in every encoding, if their number fits; G.711 comes back as it was."""
    layout = ",".join(["customer"] * channels)
    fields = media | {"encoding": encoding.value, "layout": layout}
    named = [(name, str(text).encode()) for name, text in fields.items() if name not in {"audio", "call_id"}]
    chunk = read(audio, "headers", named)
    frame_bytes = encoding.bytes_per_sample * channels
    assert (chunk is not None) == (len(audio) > 0 and len(audio) % frame_bytes == 0)
    if chunk is not None:
        pcm = g711.to_s16(chunk.format.encoding, chunk.audio)
        assert pcm.size == len(audio) // encoding.bytes_per_sample
        encode = {Encoding.PCMU: g711.encode_pcmu, Encoding.PCMA: g711.encode_pcma}.get(encoding)
        if encode is not None:
            assert np.array_equal(g711.to_s16(encoding, encode(pcm)), pcm)


# -- stored states


@cache
def halfway():
    """The log of a good call beside an odd one and one that has ended, and what is stored halfway."""
    sentence, odd, over = quiet(0.6) + voice(1) + quiet(1), Leg("odd", layout="customer,agent"), Leg("over")
    early = [*odd.media(both(sentence, sentence)), odd.send("pause"), odd.send("resume")]
    log = log_of(
        in_time(
            Leg("good").media(sentence * 3 + quiet(8)),
            early + odd.media(both(sentence, sentence)),
            [*over.media(quiet(1)), over.send("end")],
        )
    )
    return log, Worker().read(log[:30]).commit()


def continued(states):
    """A successor with these states reads the rest of the log."""
    log, stored = halfway()
    store = Store(
        stored.watermark, stored.time, dict(states), calls=dict(stored.calls), utterances=[*stored.utterances]
    )
    worker = Worker(store)
    for record in log:
        if record.position.offset >= stored.watermark:
            worker.read([record])
    return worker.commit()


@cache
def undisturbed():
    """What becomes of the good call."""
    return facts(continued(halfway()[1].states), "good")


def assert_harmless(states):
    """Whatever is stored of a call, the others are as they are without it; or a rollout is refused."""
    try:
        store = continued(halfway()[1].states | states)
    except ConfigurationError:
        return
    assert facts(store, "good") == undisturbed()


@SLOWLY_FUZZED
@given(data=st.data(), call=st.sampled_from(["odd", "over"]))
def test_damaged_states(data, call):
    """Bytes that are no msgpack any more, or other msgpack."""
    assert_harmless({call: data.draw(damaged(halfway()[1].states[call]))})


@SLOWLY_FUZZED
@given(data=st.data())
def test_states_with_odd_values(data):
    """Whole msgpack of another shape, with values that no call can have."""
    state = msgpack.unpackb(halfway()[1].states["odd"])

    def replaced(inner, value):
        if isinstance(inner, dict | list) and inner and data.draw(st.integers(0, 9)):
            key = data.draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
            inner[key] = replaced(inner[key], value)
            return inner
        return value

    odd = data.draw(st.none() | st.text(max_size=3) | st.integers(-2, 2) | st.floats() | st.binary(max_size=9))
    assert_harmless({"odd": msgpack.packb(replaced(state, odd))})


# -- what others read


@cache
def published(kind):
    """The valid examples of an output."""
    return [json.loads(path.read_text()) for path in sorted((EXAMPLES / kind / "valid").glob("*.json"))]


@FUZZED
@given(data=st.data(), kind=st.sampled_from(["call", "utterance", "alert"]))
def test_odd_outputs(data, kind):
    """A dashboard or the projector meets a record of somebody else: it is legal, or a ValidationError."""
    contract = {"call": Call, "utterance": Utterance, "alert": Alert}[kind]
    record = json.dumps(data.draw(with_odd_places(st.sampled_from(published(kind))))).encode()
    changed = data.draw(st.just(record) | damaged(record))
    try:
        contract.model_validate_json(changed)
    except ValidationError:
        return
    json.loads(changed)  # the projector writes what it has checked


@FUZZED
@given(data=st.data())
def test_odd_hashes(data):
    """A hash in Redis that is not a call's is refused, and a legal one comes back."""
    hashed = {name: str(text) for name, text in flatten(data.draw(st.sampled_from(published("call")))).items()}
    names = st.sampled_from(list(hashed)) | st.text(max_size=9)
    hashed |= data.draw(st.dictionaries(names, st.text(max_size=9) | odd_values.map(str), max_size=3))
    try:
        unflatten(hashed)
    except ValidationError:
        return


@FUZZED
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from(["dead_letter." + name for name in DeadLetterHeaders.model_fields]) | st.text(max_size=9),
            st.none() | st.binary(max_size=9),
        ),
        max_size=12,
    )
)
def test_odd_dead_letter_records(headers):
    """Foreign records on the dead-letter topic are none of a worker's; headers that look so are kept apart."""
    DeadLetterHeaders.from_kafka(headers)
    kept = original_headers(stored_headers(headers))
    assert kept == [(name, value or b"") for name, value in headers]


# -- sound files


@cache
def sound_file(folder, name, subtype):
    path = folder / name
    soundfile.write(path, np.arange(-400, 400, dtype=np.int16).reshape(-1, 2) * 40, 8_000, subtype=subtype)
    return path.read_bytes()


@SLOWLY_FUZZED
@given(
    data=st.data(), kind=st.sampled_from([("a.wav", "PCM_16"), ("b.wav", "ULAW"), ("c.wav", "ALAW"), ("d.flac", None)])
)
def test_damaged_sound_files(data, kind, tmp_path_factory):
    """A recording with a wrong header, or cut, is read as far as possible, or refused by name."""
    folder = tmp_path_factory.getbasetemp()
    path = folder / f"odd{kind[0]}"
    path.write_bytes(data.draw(damaged(sound_file(folder, *kind))))
    try:
        read_all = partial(sum, (len(sent.value) for sent in load(path, Shape()).records()))
        assert read_all() >= 0
    except BadRecording as refusal:
        assert path.name in str(refusal)  # noqa: PT017 - many examples raise


def test_the_targets_reach_what_they_fuzz():
    """Undamaged, each example is read; else the targets would test the first check alone."""
    assert read(json.dumps(media).encode(), "json") is not None
    assert undisturbed()[0]
    assert continued(halfway()[1].states).calls.keys() == {"good", "odd", "over"}
    assert all(published(kind) for kind in ("call", "utterance", "alert"))
    with pytest.raises(ValidationError):
        Alert.model_validate_json(b"{}")
    assert STAMPS.model
