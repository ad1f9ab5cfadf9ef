"""The programs that are measured: what they write, and what they must find."""

import json
from collections import Counter

from callmood.bench import programs
from callmood.bench.ingest import Load, records_of
from callmood.bench.programs import Result, Results
from callmood.bench.sender import voices

UTTERANCE = {
    "call_id": "call-1-x",
    "start_ms": 1_000,
    "end_ms": 3_000,
    "voiced_end_ms": 2_700,
    "spoken_at_ms": 50_000,
    "latency_ms": {"decide": 300.0, "queue": 10.0, "inference": 40.0, "publish": 60.0, "total": 430.0},
    "quality": {"cut": "silence"},
}


def test_the_stages_of_an_utterance_add_up_to_its_time_since_the_last_word():
    """The last word was at 51,700: 300 ms until the utterance's end, 430 on, and 5 until Redis had it."""
    result = programs.of_worker(UTTERANCE, 52_435.0)
    assert result == Result("call-1-x", 735.0, (600.0, 10.0, 40.0, 20.0, 60.0, 5.0, 135.0))
    assert sum(result.stages_ms[:-1]) == result.total_ms


class _Stream:
    """A stream in Redis with these utterances, a millisecond apart from 52,435 on."""

    def __init__(self, *said):
        self.entries = [(b"%d-0" % at, {b"json": json.dumps(one).encode()}) for at, one in enumerate(said, 52_435)]

    def xrange(self, _, after, count):
        return [entry for entry in self.entries if entry[0] > after[1:]][:count]


def test_results_are_those_of_the_calls_that_ended_with_silence():
    """Other calls, and utterances that the end of the call cut, do not count; each is read once."""
    stream = _Stream(UTTERANCE, UTTERANCE | {"quality": {"cut": "end"}}, UTTERANCE | {"call_id": "call-1-y"})
    results = Results(stream, "stream", programs.of_worker)
    assert [(one.call_id, one.total_ms) for one in results.more("-x")] == [("call-1-x", 735.0)]
    assert results.more("-x") == []
    assert [one.call_id for one in Results(stream, "stream", programs.of_worker).more()] == ["call-1-x", "call-1-y"]


def test_an_utterance_that_does_not_say_why_it_ended_counts():
    """The plain loop knows no other end than silence."""
    said = {"call_id": "call-1-x", "last_word_ms": 52_000.0}
    assert Results(_Stream(said), "stream", programs.of_loop).more("-x") == [Result("call-1-x", 435.0)]


def test_the_loop_writes_the_time_of_the_last_word():
    """What an utterance took is the time from it to the entry in Redis."""
    assert programs.of_loop({"call_id": "call-1-x", "last_word_ms": 1_000.0}, 1_600.0) == Result("call-1-x", 600.0)


def test_both_cut_the_utterances_of_the_example_calls():
    """Worker and plain loop find several in each call of 30 s; a call more changes nothing in the others."""
    speech = voices()
    for cut in (programs.cut_by_worker, programs.cut_by_loop):
        found = cut(records_of(Load(200, "customer", 3, 30), speech))
        assert set(found) == {"call-0", "call-1", "call-2"}
        assert all(2 <= count <= 12 for count in found.values())
        assert cut(records_of(Load(200, "customer", 1, 30), speech)) == Counter({"call-0": found["call-0"]})
