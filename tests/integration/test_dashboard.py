"""The dashboard reads from a real Redis what the worker's own store has written there."""

import io
import json
from contextlib import closing
from itertools import islice
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from publisher import Publisher
from rich.console import Console

from callmood.dashboard.reader import Dashboard
from callmood.dashboard.terminal import watch
from callmood.schemas.common import Emotion, Role
from callmood.schemas.keys import Keys


@pytest.fixture
def worker(redis_url, redis_prefix):
    with closing(Publisher(redis_url, redis_prefix)) as publishing:
        yield publishing


@pytest.fixture
def dashboard(redis_url, redis_prefix):
    with Dashboard(redis_url, redis_prefix) as reading:
        yield reading


def test_live_calls_come_in_the_order_asked_for(worker, dashboard):
    """The riskiest call is first by risk, the newest by update; each is the call as the worker knows it."""
    for label in (Emotion.ANGER, Emotion.ANGER, Emotion.ANGER):
        worker.say("angry", label)
    for label in (Emotion.NEUTRAL, None, None, Emotion.HAPPINESS):
        worker.say("calm", label)
    by_risk, by_update = dashboard.live_calls(), dashboard.live_calls(by="update")
    assert [view.call.call_id for view in by_risk] == ["angry", "calm"]
    assert [view.call.call_id for view in by_update] == ["calm", "angry"]
    assert by_risk[0].risk > 0.5 > by_risk[1].risk
    assert by_risk[0].call.roles[Role.CUSTOMER].emotion.counts.anger == 3
    assert by_risk[1].call.roles[Role.AGENT].emotion is None
    assert len(dashboard.live_calls(1)) == 1


def test_an_ended_call_is_no_longer_live_but_readable(worker, dashboard):
    """Ended calls are not live and have no risk; unknown ones are left out."""
    worker.say("over", Emotion.NEUTRAL, end=True)
    assert dashboard.live_calls() == []
    (view,) = dashboard.calls(["unknown", "over"])
    assert (view.call.status, view.risk) == ("completed", None)
    assert dashboard.calls([]) == []


def test_utterances_of_a_call_are_complete_and_in_order(worker, dashboard):
    """Every utterance of a call is read as it was published, also from a number on."""
    published = [worker.say("c", label) for label in (None, Emotion.SADNESS, Emotion.ANGER)]
    read = dashboard.utterances("c")
    assert [utterance.model_dump(mode="json") for utterance in read] == published
    assert [utterance.number for utterance in dashboard.utterances("c", after=1)] == [2, 3]
    assert dashboard.utterances("unknown") == []


def test_following_yields_each_utterance_and_alert_once(worker, dashboard):
    """Followers get what comes after they began, once, and empty news while nothing happens."""
    worker.say("before", Emotion.NEUTRAL)
    news = dashboard.follow(timeout_s=0.05)
    assert next(news) == ([], [])
    for _ in range(3):
        worker.say("c", Emotion.ANGER)
    heard = list(islice(news, 4))
    assert [u.number for batch in heard for u in batch.utterances if u.call_id == "c"] == [1, 2, 3]
    assert [a.rule for batch in heard for a in batch.alerts] == ["sustained_negative"]
    from_start = next(dashboard.follow(from_start=True))
    assert [utterance.call_id for utterance in from_start.utterances] == ["before", "c", "c", "c"]


def test_fields_of_a_newer_release_are_ignored(worker, dashboard, redis_client, redis_prefix):
    """During an upgrade, a dashboard reads what newer workers write."""
    worker.say("call", Emotion.NEUTRAL)
    keys = Keys(redis_prefix)
    redis_client.hset(keys.call("call"), "of_a_newer_release.deep", "1")
    newer = json.loads(redis_client.xrange(keys.utterances_of("call"))[0][1]["json"]) | {"number": 2, "newer": {"a": 1}}
    redis_client.xadd(keys.utterances_of("call"), {"json": json.dumps(newer)}, id="2-0")
    assert [view.call.call_id for view in dashboard.live_calls()] == ["call"]
    assert [utterance.number for utterance in dashboard.utterances("call")] == [1, 2]
    assert dashboard.unreadable == 0


def test_records_of_another_version_are_skipped_and_counted(worker, dashboard, redis_client, redis_prefix):
    """What does not fit the schemas is left out, and said so, instead of ending the dashboard."""
    worker.say("good", Emotion.NEUTRAL)
    worker.say("odd", Emotion.NEUTRAL)
    redis_client.hset(Keys(redis_prefix).call("odd"), "schema", "callmood.call/9")
    redis_client.xadd(Keys(redis_prefix).utterances_of("good"), {"json": "{}"}, id="2-0")
    assert [view.call.call_id for view in dashboard.live_calls()] == ["good"]
    assert len(dashboard.utterances("good")) == 1
    assert dashboard.unreadable == 2


def test_the_documented_read_only_user_is_enough(worker, redis_url, redis_prefix, redis_client):
    """The dashboard works as the user that schemas/redis.md describes, which cannot write."""
    worker.say("c", Emotion.ANGER)
    text = (Path(__file__).parents[2] / "schemas" / "redis.md").read_text(encoding="utf-8")
    rules = text.split("ACL SETUSER dashboard", 1)[1].split("```", 1)[0].replace("{callmood}", Keys(redis_prefix).tag)
    name = f"user-{redis_prefix}"
    redis_client.execute_command("ACL", "SETUSER", name, *rules.split())
    try:
        address = urlsplit(redis_url)
        host = address.netloc.rpartition("@")[2]
        url = urlunsplit(address._replace(netloc=f"{name}:SECRET@{host}"))
        with Dashboard(url, redis_prefix) as reading:
            assert [view.call.call_id for view in reading.live_calls()] == ["c"]
            assert len(reading.utterances("c")) == 1
            assert next(reading.follow(timeout_s=0.05)) == ([], [])
        with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
            client.delete(Keys(redis_prefix).call("c"))
    finally:
        redis_client.execute_command("ACL", "DELUSER", name)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_watching_ends_when_the_calls_have_ended(worker, dashboard, is_terminal):
    """The picture shows what is published while it runs, warns of the demo model, and ends by itself."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=140, height=40, color_system=None)
    worker.say("call-1", Emotion.ANGER)
    watching = Thread(target=watch, args=(dashboard,), kwargs={"until": ["call-1", "call-2"], "console": console})
    watching.start()
    try:
        worker.say("call-2", None)
        worker.say("call-2", Emotion.HAPPINESS)
        worker.say("call-1", Emotion.SADNESS)
    finally:
        worker.say("call-1", None, end=True)
        worker.say("call-2", None, end=True)
        watching.join(timeout=20)
    assert not watching.is_alive()
    text = out.getvalue()
    assert "trained on synthetic speech" in text
    assert "call-1" in text
    assert "happiness" in text


def test_watching_gives_up_in_time(dashboard):
    """With a time limit, waiting for a call that never comes ends and says so."""
    console = Console(file=io.StringIO())
    assert watch(dashboard, until=["never"], console=console, timeout_s=0.1) is False


def test_a_missing_redis_is_an_error():
    """Without Redis the caller gets the error of the client, at once."""
    with Dashboard("redis://127.0.0.1:1/0", timeout_s=1) as nowhere, pytest.raises(redis.RedisError):
        nowhere.live_calls()
