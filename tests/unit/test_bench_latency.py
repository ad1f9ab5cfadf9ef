"""The benchmark of latencies: what it computes of results, the search for the rated load, and the plain loop."""

import argparse
import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from callmood.bench import latency, plain, sender
from callmood.bench.ingest import Load
from callmood.bench.latency import Program, Result, Step
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.checkpoints import DEMO_FOLDER
from callmood.worker.model.model import load
from callmood.worker.settings import Settings

UTTERANCE = {
    "call_id": "call-1-x",
    "start_ms": 1_000,
    "end_ms": 3_000,
    "voiced_end_ms": 2_700,
    "spoken_at_ms": 50_000,
    "latency_ms": {"decide": 300.0, "queue": 10.0, "inference": 40.0, "publish": 60.0, "total": 430.0},
    "quality": {"cut": "silence"},
}


def step(calls, total_ms):
    """A step whose only result took so long."""
    return Step(calls, [Result("call", total_ms)], 0.0)


def test_the_stages_of_an_utterance_add_up_to_its_time_since_the_last_word():
    """The last word was at 51,700: 300 ms until the utterance's end, 430 on, and 5 until Redis had it."""
    result = latency.of_worker(UTTERANCE, 52_435.0)
    assert result == Result("call-1-x", 735.0, (600.0, 10.0, 40.0, 20.0, 60.0, 5.0, 135.0))
    assert sum(result.stages_ms[:-1]) == result.total_ms


def test_the_loop_is_doubled_until_the_limit_and_then_halfway():
    """What was carried within the limit is the rated load; one that carries nothing has 0."""
    steps = latency.search(lambda calls: step(calls, 2.0 * calls), 256, 60.0)
    assert [one.calls for one in steps] == [4, 8, 16, 32, 24]
    assert latency.rated(steps, 60.0) == 24
    assert [one.calls for one in latency.search(lambda calls: step(calls, 1.0), 16, 60.0)] == [4, 8, 16]
    assert latency.rated([step(4, 70.0)], 60.0) == 0


def test_a_step_without_results_carries_nothing():
    """Then it exceeds every limit."""
    assert Step(2, [], 0.0).total_ms(99) == float("inf")


def test_results_are_those_of_the_step_that_ended_with_silence(monkeypatch):
    """Other calls, and utterances that the end of the sending cut, do not count."""
    monkeypatch.setattr(latency, "_QUIET_S", 0.0)
    cut = UTTERANCE | {"quality": {"cut": "gap"}}
    entries = [UTTERANCE, UTTERANCE | {"call_id": "call-1-y"}, cut]

    class Client:
        def xlen(self, _):
            return len(entries)

        def xrange(self, _):
            return [(b"52435-0", {b"json": json.dumps(one).encode()}) for one in entries]

    found = latency.results_of(Client(), Program("worker", (), "stream", latency.of_worker), "x")
    assert found == [latency.of_worker(UTTERANCE, 52_435.0)]


def test_a_table_has_each_step_at_each_percentile():
    """Also a step of the plain loop, of which no stages are known, and one without results."""
    known = Step(8, [latency.of_worker(UTTERANCE, 52_435.0)], 1.0)
    assert latency.table_of("title", [known, step(4, 9.0), Step(2, [], 0.0)]).row_count == 9


def test_the_speech_check_is_switched_off_at_the_same_loads(monkeypatch):
    """With `--speech-check`, the worker is measured again without it, at the shares of its rated load."""
    worker = Program("callmood", (), "stream", latency.of_worker)
    measured = []

    @contextmanager
    def measuring(program, *_):
        yield lambda calls: measured.append((calls, dict(program.environment))) or step(calls, 2.0 * calls)

    monkeypatch.setattr(latency, "measuring", measuring)
    options = argparse.Namespace(most=256, limit_ms=60.0, speech_check=True)
    titles = [title for title, _ in latency.tables_of(worker, options, Settings(), None)]
    assert [calls for calls, _ in measured] == [4, 8, 16, 32, 24, *[2, 12, 17, 22] * 2]
    assert [own for _, own in measured] == [{}] * 9 + [{"CALLMOOD_MODEL__SPEECH_CHECK": "false"}] * 4
    assert len(titles) == 3


def test_records_are_sent_in_real_time_when_they_are_complete(monkeypatch):
    """Each record of 200 ms is sent 200 ms after its first sample; the first is acknowledged 1.1 s after that."""
    now_s, sent, acknowledged = [0.0], [], []

    class Producer:
        def __init__(self, **_):
            pass

        def send(self, _topic, value, key, headers, timestamp_ms):
            sent.append((now_s[0], key, len(value), dict(headers)["seq"], timestamp_ms))
            return SimpleNamespace(add_callback=acknowledged.append)

        def flush(self):
            now_s[0] += 0.3
            for told in acknowledged:
                told(None)

        def close(self):
            pass

    monkeypatch.setattr(sender, "KafkaProducer", Producer)
    monkeypatch.setattr(sender.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(sender.time, "time", lambda: 1_000.0)
    monkeypatch.setattr(sender.time, "sleep", lambda s: now_s.__setitem__(0, now_s[0] + s))
    assert sender.send(Load(200, "customer", 1, 1), bytes(20_000 * 2), Settings(), "x") == pytest.approx(1_100)
    assert [key for _, key, *_ in sent] == [b"call-0-x"] * 5
    assert [round(at_s, 3) for at_s, *_ in sent] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert [timestamp_ms for *_, timestamp_ms in sent] == [1_000_000 + 200 * n for n in range(5)]


def test_without_the_example_calls_nothing_can_be_sent(monkeypatch, tmp_path):
    """The error says where to run it."""
    assert len(sender.voices()) > 2 * 8_000 * 60
    monkeypatch.setattr(sender, "_EXAMPLES", tmp_path)
    with pytest.raises(ConfigurationError, match="run this in the repository"):
        sender.voices()


def test_the_plain_loop_cuts_after_half_a_second_of_silence():
    """The example calls give utterances that end where their last voiced frame does."""
    channel, ended = plain.Channel(), []
    pcm = latency_pcm()
    for number in range(len(pcm) // 3_200):
        found = channel.feed(pcm[number * 3_200 : (number + 1) * 3_200], number * 200.0)
        if found is not None:
            ended.append((number * 200.0 + 200, *found))
    assert len(ended) > 3
    assert all(480 <= now_ms - last_word_ms <= 720 and len(audio) > 3_840 for now_ms, audio, last_word_ms in ended)


def latency_pcm():
    """The customer of the example calls as PCM."""
    return plain.to_s16(plain.Encoding.PCMU, sender.voices()[: 2 * 8_000 * 40 : 2]).tobytes()


def test_the_plain_loop_has_the_same_model():
    """Transformers' class computes the logits that ours does."""
    wave = np.sin(np.arange(16_000) / 9).astype(np.float32)
    pipe = plain.classifier()
    inputs = pipe.feature_extractor(wave, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        theirs = pipe.model(inputs["input_values"]).logits
        ours = load(DEMO_FOLDER)(torch.from_numpy(wave)[None], torch.tensor([16_000]))
    torch.testing.assert_close(theirs, ours, atol=1e-2, rtol=0)
