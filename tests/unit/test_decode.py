"""Records with headers, the recommended format."""

import tracemalloc
from contextlib import suppress

import numpy as np
import pytest

from callmood.schemas.common import Encoding, Event, Notice, Role
from callmood.worker.errors import BadRecord, ConfigurationError, Reason
from callmood.worker.intake.decode import decode
from callmood.worker.records import AudioFormat, Position, Record

AUDIO = b"\x7f\xff" * 80
LEGAL = {"schema": "callmood.audio/1", "seq": "0", "encoding": "pcmu", "rate": "8000", "layout": "customer,agent"}


def record(*, key=b"call-1", value=AUDIO, without=(), timestamp_ms=1_000, **headers):
    merged = {name: text for name, text in {**LEGAL, **headers}.items() if name not in without}
    pairs = tuple((name.replace("attr_", "attr."), text.encode()) for name, text in merged.items())
    return Record(Position("audio", 3, 42), key, value, pairs, timestamp_ms)


def read(record, max_record_ms=5_000):
    return decode(record, input_format="headers", max_record_ms=max_record_ms)


def reason_of(record):
    with pytest.raises(BadRecord) as caught:
        read(record)
    return caught.value.reason


def test_a_media_record_becomes_a_chunk():
    """Every header of a media record arrives in the chunk, the audio untouched."""
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    chunk = read(
        record(stream="leg-2", seq="7", media_ms="1400.5", notice="given", traceparent=trace, attr_queue="billing")
    )
    assert (chunk.call_id, chunk.stream, chunk.seq, chunk.event) == ("call-1", "leg-2", 7, Event.MEDIA)
    assert chunk.position == Position("audio", 3, 42)
    assert (chunk.capture_ms, chunk.media_ms, chunk.discarded_ms) == (1_000, 1400.5, 0.0)
    assert chunk.format == AudioFormat(Encoding.PCMU, 8000, (Role.CUSTOMER, Role.AGENT))
    assert (chunk.audio, chunk.samples) == (AUDIO, 80)
    assert (chunk.notice, chunk.attributes, chunk.traceparent) == (Notice.GIVEN, {"queue": "billing"}, trace)


def test_defaults_are_the_contract_s():
    """Without event, stream and media time a record is media of stream 0, right after the one before."""
    chunk = read(record())
    assert (chunk.event, chunk.stream, chunk.media_ms, chunk.notice) == (Event.MEDIA, "0", None, None)


@pytest.mark.parametrize("event", ["start", "pause", "resume", "end"])
def test_events_need_no_audio(event):
    """An event has neither value nor format, whether the value is empty or null."""
    for value in (b"", None):
        chunk = read(record(event=event, value=value, without=("encoding", "rate", "layout")))
        assert (chunk.event.value, chunk.format, chunk.audio) == (event, None, b"")


def test_a_gap_says_how_much_is_gone():
    """A gap carries the media time that will never come; resume may."""
    assert read(record(event="gap", value=None, discarded_ms="250")).discarded_ms == 250.0
    assert read(record(event="resume", value=None, discarded_ms="250")).discarded_ms == 250.0
    assert read(record(discarded_ms="0")).discarded_ms == 0.0


def test_big_endian_samples_are_turned():
    """S16BE reaches the worker as S16LE."""
    samples = np.array([1, -2, 300, -400], np.int16)
    chunk = read(record(encoding="s16be", layout="customer", value=samples.astype(">i2").tobytes()))
    assert chunk.format.encoding is Encoding.S16LE
    assert np.array_equal(np.frombuffer(chunk.audio, "<i2"), samples)


def test_headers_of_others_are_not_looked_at():
    """Middleware may add headers of any name and content."""
    plain = record()
    extended = Record(
        plain.position, plain.key, plain.value, (("b3", b"\xff\xfe"), *plain.headers, ("", b"\x00")), 1_000
    )
    assert read(extended) == read(plain)


def test_the_last_of_two_equal_headers_counts():
    """A header that stands twice means its last value."""
    plain = record(seq="1")
    assert read(Record(plain.position, plain.key, plain.value, (*plain.headers, ("seq", b"2")), 1_000)).seq == 2


def test_a_malformed_trace_context_is_ignored():
    """Tracing never costs audio."""
    for text in ("nonsense", f"00-{'0' * 32}-{'b' * 16}-01", f"ff-{'a' * 32}-{'b' * 16}-01"):
        assert read(record(traceparent=text)).traceparent is None


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        (Reason.NO_KEY, {"key": None}),
        (Reason.NO_KEY, {"key": b""}),
        (Reason.BAD_HEADER, {"key": b"\xff\xfe"}),
        (Reason.BAD_HEADER, {"key": b"line\nfeed"}),
        (Reason.BAD_HEADER, {"key": b"x" * 257}),
        (Reason.NO_SCHEMA, {"without": ("schema",)}),
        (Reason.WRONG_SCHEMA, {"schema": "callmood.audio/2"}),
        (Reason.BAD_HEADER, {"without": ("seq",)}),
        (Reason.BAD_HEADER, {"seq": "-1"}),
        (Reason.BAD_HEADER, {"seq": "1.0"}),
        (Reason.BAD_HEADER, {"seq": "1\n"}),
        (Reason.BAD_HEADER, {"seq": "\N{FULLWIDTH DIGIT NINE}"}),
        (Reason.BAD_HEADER, {"seq": "1" * 16}),
        (Reason.BAD_HEADER, {"media_ms": "-1"}),
        (Reason.BAD_HEADER, {"media_ms": "nan"}),
        (Reason.BAD_HEADER, {"media_ms": "inf"}),
        (Reason.BAD_HEADER, {"media_ms": "1e3"}),
        (Reason.BAD_HEADER, {"media_ms": "1" * 10}),
        (Reason.BAD_HEADER, {"event": "hangup"}),
        (Reason.BAD_HEADER, {"event": "gap", "value": None}),
        (Reason.BAD_HEADER, {"event": "gap", "value": None, "discarded_ms": "0.0"}),
        (Reason.BAD_HEADER, {"discarded_ms": "20"}),
        (Reason.BAD_HEADER, {"event": "pause", "value": None, "discarded_ms": "20"}),
        (Reason.BAD_HEADER, {"notice": "maybe"}),
        (Reason.BAD_HEADER, {"stream": "a:b"}),
        (Reason.BAD_HEADER, {"stream": ""}),
        (Reason.BAD_HEADER, {"stream": "s" * 65}),
        (Reason.BAD_HEADER, {"without": ("encoding",)}),
        (Reason.BAD_HEADER, {"without": ("rate",)}),
        (Reason.BAD_HEADER, {"without": ("layout",)}),
        (Reason.BAD_HEADER, {"attr_": "unnamed"}),
        (Reason.BAD_HEADER, {"attr_queue": "x" * 257}),
        (Reason.BAD_HEADER, {"attr_queue": "bell\x07"}),
        (Reason.BAD_HEADER, {"attr_queue": "delete\x7f"}),
        (Reason.BAD_HEADER, {"attr_queue": "next line\x85"}),
        (Reason.BAD_HEADER, {f"attr_{number}": "" for number in range(65)}),
        (Reason.BAD_HEADER, {"timestamp_ms": -1}),
        (Reason.UNKNOWN_ENCODING, {"encoding": "g722"}),
        (Reason.UNKNOWN_ENCODING, {"encoding": "PCMU"}),
        (Reason.UNSUPPORTED_RATE, {"rate": "44100"}),
        (Reason.UNSUPPORTED_RATE, {"rate": "8000.0"}),
        (Reason.BAD_LAYOUT, {"layout": ""}),
        (Reason.BAD_LAYOUT, {"layout": "customer,"}),
        (Reason.BAD_LAYOUT, {"layout": "customer, agent"}),
        (Reason.BAD_LAYOUT, {"layout": "caller"}),
        (Reason.BAD_LAYOUT, {"layout": ",".join(["customer"] * 9)}),
        (Reason.BAD_PAYLOAD, {"event": "resume"}),
        (Reason.EMPTY, {"value": b""}),
        (Reason.EMPTY, {"value": None}),
        (Reason.TRUNCATED, {"value": b"\xff"}),
        (Reason.TRUNCATED, {"encoding": "s16le", "value": b"\xff" * 6}),
        (Reason.TOO_LONG, {"value": bytes(10_000_000)}),
    ],
)
def test_an_illegal_record_has_its_reason(reason, change):
    """Whatever breaks the contract is refused under its stable reason."""
    assert reason_of(record(**change)) is reason


def test_a_header_without_a_value_is_refused_where_the_worker_reads_it():
    """Kafka's headers may be null: that of a field of ours costs the record, that of others nothing."""
    plain = record()
    with pytest.raises(BadRecord, match="bad_header: a header has no value"):
        read(Record(plain.position, plain.key, plain.value, (*plain.headers, ("stream", None)), 1_000))
    assert read(Record(plain.position, plain.key, plain.value, (*plain.headers, ("b3", None)), 1_000))


@pytest.mark.parametrize(
    "name", [*LEGAL, "stream", "media_ms", "event", "notice", "scope", "attr.queue", "traceparent"]
)
def test_a_field_of_ours_without_a_value_is_refused(name):
    """Whichever it is, the reason says so, and does not blame the worker."""
    headers = tuple(pair for pair in record().headers if pair[0] != name)
    with pytest.raises(BadRecord, match="bad_header: a header has no value"):
        read(Record(Position("audio", 3, 42), b"call-1", AUDIO, (*headers, (name, None)), 1_000))


def test_a_header_that_is_not_utf_8_is_refused():
    """Our own headers are text."""
    plain = record()
    broken = Record(plain.position, plain.key, plain.value, (*plain.headers, ("stream", b"\xff")), 1_000)
    assert reason_of(broken) is Reason.BAD_HEADER


def test_the_length_limit_is_inclusive():
    """A record may hold max_record_ms of audio and not a sample more."""
    assert read(record(value=bytes(2 * 800)), max_record_ms=100).samples == 800
    with pytest.raises(BadRecord) as caught:
        read(record(value=bytes(2 * 801)), max_record_ms=100)
    assert caught.value.reason is Reason.TOO_LONG


def test_audio_is_not_copied():
    """The chunk holds the record's own bytes; only S16BE makes new ones."""
    plain = record()
    assert read(plain).audio is plain.value


@pytest.mark.parametrize(
    "change",
    [
        {"key": b"call\x00+49 170 1234567"},
        {"schema": "+491701234567"},
        {"seq": "+491701234567"},
        {"encoding": "+491701234567"},
        {"layout": "+491701234567"},
        {"attr_ani": "+491701234567\n"},
        {"event": "+491701234567"},
    ],
)
def test_a_refusal_never_repeats_what_the_record_says(change):
    """The detail names the field, never its content, which may be a caller's number."""
    with pytest.raises(BadRecord) as caught:
        read(record(**change))
    assert "1701234567" not in str(caught.value).replace(" ", "")


def test_an_input_format_that_does_not_exist_stops_the_worker():
    """A wrong setting is not the record's fault."""
    with pytest.raises(ConfigurationError, match="audiohook"):
        decode(record(), input_format="audiohook", max_record_ms=5_000)


def test_a_header_name_may_hold_any_text():
    """A backslash, an x and letters of any alphabet are text; only bytes that are no text are refused."""
    plain = record()
    for name in ("a\\xff", "\\x", "état", "日本"):
        assert read(Record(plain.position, plain.key, plain.value, ((name, b""), *plain.headers), 1_000)) == read(plain)
    with pytest.raises(BadRecord, match="name of a header"):
        read(Record(plain.position, plain.key, plain.value, (("x-\udcff", b""), *plain.headers), 1_000))


def test_a_record_without_a_timestamp_is_refused():
    """Kafka writes -1 for it; 1970 would be a lie about the call."""
    plain = record()
    with pytest.raises(BadRecord, match="no timestamp"):
        read(Record(plain.position, plain.key, plain.value, plain.headers, -1))


def test_a_pause_with_a_value_is_a_pause():
    """A producer that sends audio with it means the pause above all."""
    assert read(record(event="pause")).event is Event.PAUSE


@pytest.mark.parametrize("name", ["attr.x", "stream", "x"])
def test_large_headers_are_not_remembered(name):
    """A producer that sends other ones with each record does not fill the memory of the process."""
    tracemalloc.start()
    for number in range(20):
        large, text = record(seq=str(number)), f"{number}" + "a" * (1 << 20)
        large.headers = (*large.headers, (text, b"") if name == "x" else (name, text.encode()))
        with suppress(BadRecord):
            read(large)
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 10 << 20
