"""The content of a dead-letter record; any record can become one."""

from types import SimpleNamespace

import pytest
from kafka.errors import InvalidTimestampError, KafkaTimeoutError, MessageSizeTooLargeError

from callmood.schemas.dead_letter import DeadLetterHeaders, original_headers
from callmood.worker.adapters import dead_letters
from callmood.worker.adapters.dead_letters import DeadLetterTopic, cut, whole, without_value
from callmood.worker.commits import DeadLetter
from callmood.worker.errors import Reason, StoreUnavailable
from callmood.worker.records import Position, Record

ANY = object()


def refused(key=b"call", value=b"audio", headers=(), detail="why"):
    """A record that was refused."""
    return DeadLetter(Record(Position("audio", 3, 7), key, value, tuple(headers), 5), Reason.EMPTY, detail)


def added(message):
    """What the worker says about the record."""
    return DeadLetterHeaders.from_kafka(message.headers)


def can_be_sent(message):
    """The rules of kafka-python's `send`."""
    assert message.key is not None or message.value is not None
    assert all(type(name) is str and type(value) is bytes for name, value in message.headers)
    return True


def test_a_record_is_stored_as_it_was():
    """Key, value and headers are those of the original record; reason and source position come after them."""
    message = whole(refused(headers=[("schema", b"x"), ("baggage", b"\xff")]), "1.0")
    assert (message.key, message.value) == (b"call", b"audio")
    assert message.headers[:2] == [("schema", b"x"), ("baggage", b"\xff")]
    about = added(message)
    assert (about.reason, about.detail, about.topic, about.partition) == ("empty", "why", "audio", "3")
    assert (about.offset, about.timestamp_ms, about.worker, about.is_whole) == ("7", "5", "1.0", True)
    assert original_headers(message.headers) == [("schema", b"x"), ("baggage", b"\xff")]


def test_a_null_header_value_is_stored_as_an_empty_one():
    """Kafka allows null header values and kafka-python refuses to send them."""
    message = whole(refused(headers=[("baggage", None), ("schema", b"x")]), "1.0")
    assert can_be_sent(message)
    assert message.headers[:2] == [("baggage", b""), ("schema", b"x")]


@pytest.mark.parametrize("name", ["dead_letter.reason", "original.dead_letter.reason", "dead_letter.note"])
def test_a_header_that_looks_like_the_worker_s_is_kept_apart(name):
    """A producer's own `dead_letter.…` header neither hides the worker's nor is lost."""
    message = whole(refused(headers=[(name, b"\xff\xfe")]), "1.0")
    assert added(message).reason == "empty"
    assert original_headers(message.headers) == [(name, b"\xff\xfe")]


@pytest.mark.parametrize("form", [whole, without_value, cut])
def test_a_record_without_key_and_value_can_be_sent(form):
    """It gets an empty value, and says that the value is not whole."""
    message = form(refused(key=None, value=None), "1.0")
    assert can_be_sent(message)
    assert (message.key, message.value) == (None, b"")
    about = added(message)
    assert (about.incomplete, about.value_bytes) == ("value", None)


@pytest.mark.parametrize("key", [None, b"call"])
def test_a_value_that_is_left_out_leaves_its_size(key):
    """The size of the original value is in a field of its own."""
    message = without_value(refused(key=key, value=b"x" * 5_000), "1.0")
    assert can_be_sent(message)
    assert not message.value
    assert (added(message).incomplete, added(message).value_bytes) == ("value", "5000")


def test_key_and_headers_that_are_too_big_are_cut():
    """The first kilobyte of the key and the first headers stay; the original sizes are in fields of their own."""
    headers = [("schema", b"x"), ("big", b"y" * 900_000), ("after", b"z")]
    message = cut(refused(key=b"k" * 900_000, headers=headers), "1.0")
    assert can_be_sent(message)
    assert sum(len(name) + len(value) for name, value in message.headers) + len(message.key) < 16_384
    assert message.key == b"k" * 1_024
    assert original_headers(message.headers) == [("schema", b"x")]
    about = added(message)
    assert (about.incomplete, about.key_bytes, about.value_bytes) == ("value,key,headers", "900000", "5")
    assert about.headers_bytes == str(len("schema") + 1 + len("big") + 900_000 + len("after") + 1)


def test_a_long_detail_is_cut():
    """A detail has 512 characters at most."""
    assert len(added(whole(refused(detail="d" * 600), "1.0")).detail) == 512


def test_records_of_one_partition_stay_in_one_partition():
    """In their order, also if the dead-letter topic has fewer partitions; the offset decides nothing."""
    sent = []

    def send(_topic, key, value, headers, partition, **_):
        about = DeadLetterHeaders.from_kafka(headers)
        sent.append((int(about.partition), int(about.offset), partition, value if key else None))
        return SimpleNamespace(get=lambda timeout: timeout)

    producer = SimpleNamespace(partitions_for=lambda _: {2, 0, 1}, send=send, flush=lambda timeout: timeout)
    places = [(partition, offset) for offset in (7, 8) for partition in range(5)]
    records = [Record(Position("audio", *place), b"call", b"audio", (), 5) for place in places]
    topic(producer).send(DeadLetter(record, Reason.EMPTY, "why") for record in records)
    assert sent == [(partition, offset, partition % 3, b"audio") for partition, offset in places]


class _Producer:
    """Takes records up to a size; `at_once` finds larger ones itself, as a real producer does above its own limit.

    Its clock is at `now_ms`, and the broker's is at 0.
    """

    def __init__(self, limit, *, at_once=False, now_ms=0):
        self.taken = []
        self._now_ms = now_ms
        self._limit = limit
        self._at_once = at_once

    def partitions_for(self, _topic):
        return {0, 1}

    def send(self, _topic, key, value, headers, partition, timestamp_ms):
        assert partition == 1
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
        error = MessageSizeTooLargeError("too large") if size > self._limit else None
        if error and self._at_once:
            raise error
        if (self._now_ms if timestamp_ms is None else timestamp_ms) > 3_600_000:
            error = InvalidTimestampError("ahead")

        def get(timeout):
            assert timeout
            if error:
                raise error
            self.taken.append((key, value, DeadLetterHeaders.from_kafka(headers).incomplete))
            return ANY

        return SimpleNamespace(get=get)

    def flush(self, timeout):
        assert timeout


def topic(producer):
    """A dead-letter topic with this producer."""
    made = DeadLetterTopic.__new__(DeadLetterTopic)
    made._topic, made._timeout_s, made._version, made._producer = "dead", 1.0, "1.0", producer
    return made


@pytest.mark.parametrize("at_once", [True, False], ids=["the producer says", "the broker says"])
def test_what_is_too_large_is_sent_smaller(at_once):
    """Each record is sent with as much as fits: whole, without its value, or cut."""
    producer = _Producer(20_000, at_once=at_once)
    big = b"x" * 30_000
    topic(producer).send([refused(), refused(value=big), refused(key=big), refused(headers=[("a", big)])])
    assert producer.taken == [
        (b"call", b"audio", None),
        (b"call", None, "value"),
        (big[:1024], None, "value,key"),
        (b"call", None, "value,headers"),
    ]


@pytest.mark.parametrize("value", [b"audio", b"x" * 30_000])
def test_a_clock_that_is_ahead_holds_no_record_back(value):
    """Kafka refuses the time of this machine, and takes that of the original record."""
    producer, without_time, absurd = _Producer(20_000, now_ms=3_600_001), refused(), refused(value=value)
    without_time.record.timestamp_ms, absurd.record.timestamp_ms = -1, 2**62
    topic(producer).send([refused(value=value), without_time, absurd])
    assert len(producer.taken) == 3


def test_a_time_that_kafka_never_takes_is_an_outage():
    """The message says what Kafka refuses."""
    letter = refused()
    letter.record.timestamp_ms = 3_600_001
    with pytest.raises(StoreUnavailable, match=r"dead-letter topic: .*ahead"):
        topic(_Producer(20_000, now_ms=3_600_001)).send([letter])


def test_a_topic_that_takes_nothing_is_an_outage():
    """A topic with an absurd limit pauses the worker, and the message says what to raise."""
    with pytest.raises(StoreUnavailable, match=r"max\.message\.bytes"):
        topic(_Producer(100, at_once=False)).send([refused()])


def test_kafka_that_does_not_answer_is_an_outage(monkeypatch):
    """A timeout asks for all records to be sent again."""
    producer = _Producer(100, at_once=False)
    monkeypatch.setattr(producer, "flush", lambda timeout: (_ for _ in ()).throw(KafkaTimeoutError(str(timeout))))
    with pytest.raises(StoreUnavailable, match="dead-letter topic"):
        topic(producer).send([refused()])


def test_headers_of_another_program_are_no_dead_letter():
    """A record on the topic that no worker wrote is recognised, whatever its headers hold."""
    assert DeadLetterHeaders.from_kafka([("dead_letter.reason", b"\xff"), ("dead_letter.topic", None)]) is None
    assert DeadLetterHeaders.from_kafka([]) is None
    assert dead_letters.whole(refused(), "1.0").headers


def test_a_detail_that_is_no_text_can_be_sent():
    """Half a surrogate pair, as JSON may hold, does not stop the dead-letter record."""
    letter = DeadLetter(Record(Position("audio", 0, 0), b"call", b"", (), 1_000), Reason.BAD_HEADER, "x\ud800y")
    assert DeadLetterHeaders.from_kafka(whole(letter, "1.0").headers).detail == "x?y"


def test_a_header_name_that_is_not_utf8_can_be_sent():
    """Its odd bytes are written out, in the whole record and in the cut one."""
    letter = refused(headers=[("x-\udcff", b"1"), ("a\\xff", b"2")])
    for form in (whole, without_value, cut):
        message = form(letter, "1.0")
        assert [(name.encode(), value) for name, value in message.headers[:2]] == [
            (b"x-\\xff", b"1"),
            (b"a\\xff", b"2"),
        ]
