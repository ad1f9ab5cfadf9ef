"""The benchmark of the ingest loop: it measures what it says."""

import pytest

from callmood.bench import ingest
from callmood.bench.ingest import Costs, Load, cpu_s, dialogue, polls_of, row, turns
from callmood.worker import metrics
from callmood.worker.settings import Settings


@pytest.fixture(scope="module")
def speech():
    return dialogue(30, 1)


def test_every_call_sends_all_its_audio_in_time(speech):
    """Records come in turns of 100 ms, each call one after the other, without a gap in numbers and media time."""
    load = Load(100, "customer,agent", 3, 2)
    records = [record for records in polls_of(load, speech) for record in records]
    assert len(records) == load.records == 60
    assert [record.timestamp_ms for record in records] == sorted(record.timestamp_ms for record in records)
    first = [dict(record.headers) for record in records if record.key == b"call-0"]
    assert [int(headers["seq"]) for headers in first] == list(range(20))
    assert [int(headers["media_ms"]) for headers in first] == list(range(0, 2000, 100))
    assert {len(record.value) for record in records} == {1600}


def test_the_loop_takes_every_record_and_commits(speech):
    """The measured loop is the worker's: it reads all records, and utterances are closed, answered and committed."""
    load, before = Load(200, "customer", 3, 20), metrics.COMMITS._value.get()
    stage = turns(polls_of(load, speech), Settings())
    took_s = cpu_s(stage)
    assert len(took_s) == 200
    assert metrics.COMMITS._value.get() > before
    labelled = metrics.UTTERANCES.collect()[0].samples
    assert any(sample.labels["label"] == "neutral" and sample.value for sample in labelled)


def test_a_row_shares_the_loop_among_its_stages():
    """Stages add up to the loop, and channels per core follow from the loop's time for the audio of a record."""
    cost = Costs(loop=100.0, decode=10.0, detector=20.0, segment=30.0, stream=45.0, partition=80.0)
    assert sum(cost.stages().values()) == pytest.approx(100.0)
    assert row(Load(200, "customer,agent", 1, 1), cost)[:6] == ["200 ms", "2", "4,000", "100.0", "5.00", "20 %"]


def test_all_stages_are_measured(speech):
    """Each stage costs time, and the loop more than what is in it costs least."""
    cost = ingest.costs(Load(200, "customer", 2, 10), speech, Settings(), 1)
    assert min(cost) > 0


def test_calls_of_a_length_end_and_the_next_begin():
    """Two lines with calls of 1 s: each call ends with an `end`, half a second apart, and the next begins at 0."""
    load = ingest.Load(500, "customer", 2, 3, call_s=1)
    seen = [
        (record.key, headers["event"], headers["seq"], record.timestamp_ms - ingest._EPOCH_MS)
        for record in ingest.records_of(load, ingest.dialogue(60, 1))
        for headers in [dict(record.headers)]
    ]
    first = [one for one in seen if one[0].startswith(b"call-1-")]
    assert first[:5] == [
        (b"call-1-0", b"media", b"1", 250),
        (b"call-1-0", b"end", b"2", 750),
        (b"call-1-1", b"media", b"0", 750),
        (b"call-1-1", b"media", b"1", 1_250),
        (b"call-1-1", b"end", b"2", 1_750),
    ]
    assert [one[:3] for one in seen if one[0] == b"call-0-0"] == [
        (b"call-0-0", b"media", b"0"),
        (b"call-0-0", b"media", b"1"),
        (b"call-0-0", b"end", b"2"),
    ]
