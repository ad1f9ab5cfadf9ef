"""`callmood-train collect` reads the results of workers from a real Kafka."""

import csv
import json
import wave
from pathlib import Path
from uuid import uuid4

import pytest

from callmood.__main__ import main as callmood
from callmood.training.__main__ import main


@pytest.fixture
def worker(pipeline, outputs, monkeypatch: pytest.MonkeyPatch):
    """A worker that writes to Kafka; the environment is the worker's."""
    changes = {
        **outputs,
        "worker__output": "kafka",
        "kafka__bootstrap_servers": pipeline.bootstrap_servers,
        "kafka__audio_topic": pipeline.audio_topic,
        "kafka__dead_letter_topic": pipeline.dead_letter_topic,
        "kafka__group_id": pipeline.prefix,
    }
    for name, value in changes.items():
        monkeypatch.setenv(f"CALLMOOD_{name.upper()}", value)
    return pipeline.start_worker(worker__output="kafka", **outputs).wait_ready()


def test_utterances_on_topics_are_collected_and_erased_calls_are_not(
    pipeline, worker, recorded, wait_until, tmp_path: Path, capsys
):
    """What a worker wrote to Kafka is collected as `analyze` would give it; a call with a tombstone is left out."""
    kept, erased = (f"billing-{uuid4().hex[:8]}" for _ in range(2))
    calls = dict.fromkeys((kept, erased), recorded.call("billing"))
    pipeline.send(calls)
    expected = [one for one in pipeline.expect(calls[kept], kept)[0] if one["role"] == "customer" and one["emotion"]]
    assert expected
    for call_id in calls:
        with wave.open(str(tmp_path / f"{call_id}.wav"), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(4 * 8000 * 60))

    def collected(out: str) -> list[str]:
        if main(["collect", "kafka", str(tmp_path), str(tmp_path / out), "--random", "0"]):
            return []
        with (tmp_path / out / "to-label.csv").open(newline="") as file:
            return sorted(row["id"] for row in csv.DictReader(file))

    assert wait_until(lambda: len(collected("both")) == 2 * len(expected), poll_s=1.0), worker.log
    assert wait_until(lambda: "is live" not in _erased(erased, capsys), poll_s=1.0)
    assert collected("one") == sorted(one["utterance_id"] for one in expected)
    worker.stop()


def _erased(call_id: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Erase a call; what the command wrote."""
    capsys.readouterr()
    callmood(["erase", call_id])
    said = capsys.readouterr()
    assert said.err or json.loads(said.out)
    return said.err


def test_a_topic_that_does_not_exist_is_named(pipeline, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    """Without the topics of output=kafka, the command ends with 2 and the topic's name."""
    monkeypatch.setenv("CALLMOOD_KAFKA__BOOTSTRAP_SERVERS", pipeline.bootstrap_servers)
    for name in ("UTTERANCE", "CALL"):
        monkeypatch.setenv(f"CALLMOOD_KAFKA__{name}_TOPIC", f"{pipeline.prefix}-nowhere")
    assert main(["collect", "kafka", str(tmp_path), str(tmp_path / "out")]) == 2
    assert f"{pipeline.prefix}-nowhere" in capsys.readouterr().err
