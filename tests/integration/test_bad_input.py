"""Records that break the contract, on a real Kafka: each goes to the dead-letter topic, and its call goes on."""

from contextlib import closing
from uuid import uuid4

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from callmood.worker.commands.recordings import Sent

pytestmark = pytest.mark.timeout(240)

_TEN_MB = 10 << 20
_MIDDLE_MS = 12_000
_LETTERS_S = 30


def _changed(sent, headers, value=None):
    """A record with other headers (None removes one), and perhaps another value."""
    changed = {**dict(sent.headers), **headers}
    kept = [(name, text) for name, text in changed.items() if text is not None]
    return sent._replace(headers=kept, value=sent.value if value is None else value)


# What is put into the middle of a call beside the record given, and why it is refused.
_BAD = {
    "truncated": ("truncated", lambda sent: sent._replace(value=sent.value[:-1])),
    "empty": ("empty", lambda sent: sent._replace(value=b"")),
    "rate_of_another_call": ("format_changed", lambda sent: _changed(sent, {"rate": b"16000"})),
    "codec_of_another_call": ("format_changed", lambda sent: _changed(sent, {"encoding": b"pcma"})),
    "unknown_codec": ("unknown_encoding", lambda sent: _changed(sent, {"encoding": b"amr-wb"})),
    "unsupported_rate": ("unsupported_rate", lambda sent: _changed(sent, {"rate": b"44100"})),
    "no_such_role": ("bad_layout", lambda sent: _changed(sent, {"layout": b"customer,boss"})),
    "no_audio_record": ("no_schema", lambda sent: sent._replace(headers=[], value=b'{"user": 7}')),
    "another_schema": ("wrong_schema", lambda sent: _changed(sent, {"schema": b"callmood.audio/9"})),
    "ten_megabytes": ("too_long", lambda sent: sent._replace(value=b"\xff" * _TEN_MB)),
    "no_seq": ("bad_header", lambda sent: _changed(sent, {"seq": None})),
    "header_not_utf8": ("bad_header", lambda sent: _changed(sent, {"stream": b"\xff\xfe"})),
    "audio_on_an_event": ("bad_payload", lambda sent: _changed(sent, {"event": b"resume"})),
}


@pytest.fixture
def letters(stack):
    """What stands on a dead-letter topic: `letters(pipeline, count)` waits for that many and returns all."""

    def read(pipeline, key, count):
        partition = TopicPartition(pipeline.dead_letter_topic, 0)
        consumer = KafkaConsumer(bootstrap_servers=stack.bootstrap_servers, consumer_timeout_ms=_LETTERS_S * 1000)
        with closing(consumer):
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            found = []
            for record in consumer:
                found += [record] if record.key == key else []
                if len(found) == count:
                    break
            return found

    return read


@pytest.fixture
def produce(stack):
    """Sends records with any key: `produce(pipeline, key, records)`."""
    with closing(KafkaProducer(bootstrap_servers=stack.bootstrap_servers, max_request_size=64 << 20)) as producer:

        def send(pipeline, key, sent):
            futures = [
                producer.send(pipeline.audio_topic, key=key, value=one.value, headers=one.headers) for one in sent
            ]
            return [future.get(timeout=30) for future in futures]

        yield send


def _middle(recording):
    return next(sent for sent in recording.records() if sent.media_ms >= _MIDDLE_MS)


def _explained(record):
    headers = dict(record.headers)
    return {
        name.removeprefix("dead_letter."): headers[name].decode() for name in headers if name.startswith("dead_letter.")
    }


def test_bad_records_do_not_change_the_call(running, recorded, produce, letters, wait_until):
    """In the middle of a call every kind of bad record becomes a dead letter; the call's results are exact."""
    recording, call_id = recorded.call("billing"), f"beside-{uuid4().hex[:8]}"
    bad = {name: make(_middle(recording)) for name, (_, make) in _BAD.items()}
    with running.sending({call_id: recording}) as gate:
        gate.open(_MIDDLE_MS)
        assert wait_until(lambda: running.utterances(call_id))
        places = produce(running, call_id.encode(), bad.values())
    running.assert_exact({call_id: recording})

    found = sorted(letters(running, call_id.encode(), len(bad)), key=lambda letter: int(_explained(letter)["offset"]))
    explained = [_explained(letter) for letter in found]
    assert [about["reason"] for about in explained] == [reason for reason, _ in _BAD.values()]
    assert [about["offset"] for about in explained] == [str(place.offset) for place in places]
    for letter, about, (name, sent) in zip(found, explained, bad.items(), strict=True):
        assert list(letter.headers)[: len(sent.headers)] == sent.headers
        assert letter.value == (None if name == "ten_megabytes" else sent.value)
        assert about["topic"] == running.audio_topic
        usual = {"schema", "reason", "detail", "topic", "partition", "offset", "timestamp_ms", "worker"}
        cut = {"incomplete": "value", "value_bytes": str(_TEN_MB)} if name == "ten_megabytes" else {}
        assert about.keys() == usual | cut.keys()
        assert about | cut == about


@pytest.mark.parametrize("name", ["truncated", "rate_of_another_call", "no_audio_record"])
def test_a_bad_record_in_place_of_a_good_one_leaves_a_gap(running, recorded, script, letters, name):
    """Where a record of a call cannot be read, its audio is missing, and all else is as it was."""
    recording, (reason, make) = recorded.call("cancellation"), _BAD[name]
    damaged, call_id = _middle(recording), f"instead-{uuid4().hex[:8]}"
    running.send({call_id: script(make(sent) if sent == damaged else sent for sent in recording.records())})
    running.assert_exact({call_id: script(sent for sent in recording.records() if sent != damaged)})
    (letter,) = letters(running, call_id.encode(), 1)
    assert _explained(letter)["reason"] == reason
    assert sum(utterance["quality"]["missing_ms"] for utterance in running.utterances(call_id)) == 200


def test_records_without_a_usable_call_id_are_dead_letters(running, produce, letters, recorded):
    """A record without a key, or with one that is not text, is a dead letter like any other."""
    sent = _middle(recorded.call("billing"))
    for key, reason in ((None, "no_key"), (b"\xc3\x28", "bad_header"), (b"a\nb", "bad_header")):
        (place,) = produce(running, key, [sent])
        (letter,) = letters(running, key, 1)
        about = _explained(letter)
        assert about["reason"] == reason
        assert (about["partition"], about["offset"]) == (str(place.partition), str(place.offset))


def test_headers_of_others_are_ignored(running, recorded, script):
    """Headers that the contract does not know, binary ones among them, change nothing."""
    recording = recorded.call("panne")
    others = [("x-trace", b"\x00\xff\xfe"), ("Content-Type", b"audio/basic"), ("", b"")]
    call_id = f"headers-{uuid4().hex[:8]}"
    running.send({call_id: script([sent._replace(headers=[*others, *sent.headers]) for sent in recording.records()])})
    running.assert_exact({call_id: recording})


def test_seq_that_goes_backwards(running, recorded, script):
    """Records that come twice, late or out of order are put right: the call is as if they had come in order."""
    recording = recorded.call("lieferung")
    records = list(recording.records())
    disturbed = []
    for first in range(0, len(records), 8):
        part = records[first : first + 8]
        disturbed += [*part[2:5], *part[:2], *part[1:4], *part[5:], *part[:3]]
    call_id = f"backwards-{uuid4().hex[:8]}"
    running.send({call_id: script(disturbed)})
    running.assert_exact({call_id: recording})


def test_lost_records(running, recorded, script):
    """Records that never come are waited for, then taken for lost; the call goes on and says what it missed."""
    recording = recorded.call("billing")
    lost = [sent for sent in recording.records() if not 40 <= _seq(sent) % 60 < 50 and _seq(sent) != 20]
    call_id = f"lost-{uuid4().hex[:8]}"
    running.send({call_id: script(lost)})
    running.assert_exact({call_id: script(lost)})
    assert running.call(call_id)["missing_ms"] == 200 * sum(40 <= seq % 60 < 50 for seq in range(1, 176))


def _seq(sent):
    return int(dict(sent.headers)["seq"])


def test_too_many_bad_records_stop_the_worker(pipeline, produce, recorded, letters):
    """With a limit, bad records alone end the worker with code 70, after their dead-letter records were written."""
    recording = recorded.call("billing")
    worker = pipeline.start_worker(input__max_consecutive_bad="5").wait_ready()
    pipeline.send({"good": recording})
    pipeline.assert_exact({"good": recording})
    produce(pipeline, b"bad", [Sent(0.0, 0.0, [], b"?")] * 6)
    assert worker.exit_code() == 70
    (line,) = (line for line in worker.lines("stopping on an error") if line["kind"] == "TooManyBadRecords")
    assert "6 bad records in a row" in line["error"]
    assert "CALLMOOD_INPUT__FORMAT" in line["error"]
    assert len(letters(pipeline, b"bad", 6)) == 6
