"""Commands on calls that Redis holds: a report of one, and rules on all."""

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


@pytest.mark.usefixtures("_here")
def test_rules_are_tried_on_the_calls_in_redis(redis_url, redis_prefix, tmp_path, capsys):
    """Calls that are live and calls that have ended lately."""
    rule = '[quick]\nmeasure = "negative_run"\nrole = "customer"\nraise_at = 2\nclear_at = 0\n'
    (tmp_path / "rules.toml").write_text(rule)
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for call_id, is_over in (("live", False), ("over", True), ("calm", True)):
            for number in range(3):
                label = Emotion.NEUTRAL if call_id == "calm" else Emotion.ANGER
                worker.say(call_id, label, attributes={"queue": "billing"}, end=is_over and number == 2)
    assert main(["rules", "test", str(tmp_path / "rules.toml"), "--supervisors", "2"]) == 0
    printed = capsys.readouterr().out
    assert "3 calls within" in printed
    assert "quick: 2 alerts in 2 calls" in printed
    assert "  billing: 2" in printed
