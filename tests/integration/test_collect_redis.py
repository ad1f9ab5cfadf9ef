"""`callmood-train collect` reads the results of workers in a real Redis."""

import csv
import json
import wave
from contextlib import closing
from pathlib import Path

import pytest
import redis
from publisher import Publisher

from callmood.schemas.common import Emotion
from callmood.schemas.keys import Keys
from callmood.training.__main__ import main
from callmood.worker.commands import erase


def test_utterances_of_redis_are_collected_and_erased_calls_are_not(
    redis_url: str, redis_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """Utterances of customers are cut from the recordings, with attributes of calls; an erased call is not there."""
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for name in ("kept", "erased"):
            worker.say(name, Emotion.ANGER, attributes={"customer": f"{name}-1"})
            worker.say(name)
            worker.say(name, Emotion.SADNESS, end=True)
            with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes(bytes(2 * 8000 * 30))
    monkeypatch.setenv("CALLMOOD_REDIS__URL", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        assert list(erase._from_redis(client, Keys(redis_prefix), "erased"))
    given = ["collect", "redis", str(tmp_path), str(tmp_path / "out"), "--prefix", redis_prefix, "--random", "0"]
    assert main([*given, "--speaker-attribute", "customer"]) == 0
    counts = json.loads(capsys.readouterr().out.rpartition("\n/")[0])
    assert (counts["candidates"], counts["refused"]) == (2, {"role agent": 1})
    with (tmp_path / "out" / "to-label.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["session"], row["speaker"]) for row in rows} == {("kept", "kept-1")}
