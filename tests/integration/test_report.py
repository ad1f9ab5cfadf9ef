"""A report of a call in Redis."""

from contextlib import closing

import pytest
from publisher import Publisher

from callmood.__main__ import main
from callmood.schemas.common import Emotion


@pytest.fixture
def _here(monkeypatch, redis_url, redis_prefix):
    monkeypatch.setenv("CALLMOOD_REDIS__URL", redis_url)
    monkeypatch.setenv("CALLMOOD_REDIS__PREFIX", redis_prefix)


@pytest.mark.usefixtures("_here")
def test_a_call_in_redis_becomes_a_file(redis_url, redis_prefix, tmp_path, capsys):
    """Live or ended; a call that is not there is an error that says so."""
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for _ in range(4):
            worker.say("upset", Emotion.ANGER, attributes={"queue": "billing"})
    assert main(["report", "upset", "--output", str(tmp_path / "upset.html")]) == 0
    text = (tmp_path / "upset.html").read_text(encoding="utf-8")
    assert "anger 4 times in a row" in text
    assert "negative_run" in text
    assert main(["report", "unknown"]) == 2
    assert "Redis has no call unknown" in capsys.readouterr().err
