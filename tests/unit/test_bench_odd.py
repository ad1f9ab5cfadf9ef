"""The load of `bench odd`: what is good in it, and what is odd."""

import argparse
from random import Random
from unittest.mock import Mock

import pytest

from callmood.bench import odd, odd_records
from callmood.bench.progress import Progress
from callmood.worker.errors import BadRecord
from callmood.worker.intake.decode import decode
from callmood.worker.records import Position, Record
from callmood.worker.server_settings import KafkaSettings
from callmood.worker.settings import Settings

LOAD = odd.Load(records=1_000, odd=0.3, chunk_ms=200)


@pytest.mark.parametrize("seed", range(3))
def test_every_odd_record_is_refused(seed):
    """None of them is by chance a legal record, which would be a call of its own."""
    random, kinds = Random(seed), set()
    for _ in range(1_000):
        key, headers, value = odd_records.bad_record(random, b"good-1")
        with pytest.raises(BadRecord) as refusal:
            decode(Record(Position("audio", 0, 0), key, value, headers, 1), input_format="headers", max_record_ms=5_000)
        kinds.add(refusal.value.reason)
    assert len(kinds) > 10


def test_odd_records_can_be_sent():
    """The client refuses a null header, an odd name, and a record without key and value."""
    random = Random(1)
    for _ in range(1_000):
        key, headers, value = odd_records.bad_record_to_send(random, b"good-1", large=0.01)
        assert key is not None or value is not None
        assert all(isinstance(text, bytes) and name.isascii() for name, text in headers)


def test_the_share_of_odd_records_is_as_wanted():
    """The good records are the same with and without odd ones, in the same order."""
    alone, among = (list(odd.mixed(LOAD, is_odd=is_odd)) for is_odd in (False, True))
    assert [sent for sent, is_odd in among if not is_odd] == [sent for sent, _ in alone]
    assert sum(is_odd for _, is_odd in among) / len(among) == pytest.approx(0.3, abs=0.01)


def test_what_must_come_out_has_speech():
    """The pure pipeline hears both speakers, and the call ends."""
    utterances, call = odd.expected(0, LOAD.chunk_ms, Settings())
    assert {utterance["role"] for utterance in utterances} == {"customer", "agent"}
    assert (call["end_reason"], call["utterances"]) == ("end", len(utterances))


def test_records_are_written_with_the_login_of_the_worker(monkeypatch):
    """The producer has the protocol, the user and the password of the settings."""
    producer = Mock()
    monkeypatch.setattr(odd, "KafkaProducer", producer)
    login = {"sasl_mechanism": "PLAIN", "sasl_username": "kim", "sasl_password": "secret"}
    odd.write("topic", KafkaSettings(security_protocol="SASL_SSL", **login), [], Progress("written", 1))
    given = producer.call_args.kwargs
    assert (given["security_protocol"], given["sasl_plain_username"], given["sasl_plain_password"]) == (
        "SASL_SSL",
        "kim",
        "secret",
    )


def ran(cpu_s, *, odd_records, accounted=None, wrong=0):
    """What a run with 70 good records did."""
    return odd.Ran(70, odd_records, cpu_s, 2.0, odd_records if accounted is None else accounted, wrong)


@pytest.mark.parametrize(
    ("rounds", "code"),
    [
        ([(1.0, {}), (1.3, {})], 0),
        ([(1.0, {}), (1.6, {})], 1),
        ([(1.0, {}), (1.3, {"wrong": 1})], 1),
        ([(1.0, {}), (1.3, {"accounted": 29})], 1),
        ([(1.0, {}), (1.6, {}), (1.0, {}), (1.3, {}), (1.0, {}), (1.2, {})], 0),
    ],
)
def test_the_exit_code_says_whether_all_is_well(monkeypatch, capsys, rounds, code):
    """Nothing is lost or differs, and the median of the rounds is at least 70 %."""
    for name in odd.ADDRESSES:
        monkeypatch.setenv(name, "localhost:1")
    results = iter([(2.0, {}), *rounds])

    def once(_load, _step, *, is_odd):
        cpu_s, changed = next(results)
        return ran(cpu_s, odd_records=30 if is_odd else 0, **changed)

    monkeypatch.setattr(odd, "run_once", once)
    monkeypatch.setattr(odd.structlog, "configure", lambda **_: None)
    parser = odd.add_arguments(argparse.ArgumentParser())
    assert odd.run(parser.parse_args(["--records", "1000", "--rounds", str(len(rounds) // 2)])) == code
    assert ("WRONG" in capsys.readouterr().out) == any(changed for _, changed in rounds)
