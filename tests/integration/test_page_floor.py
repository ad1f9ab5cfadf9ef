"""The floor as it is read from a real Redis, also from one that goes away."""

import json
import math
import time
from contextlib import ExitStack, closing
from threading import Thread

import pytest
from publisher import Publisher

from callmood.dashboard.page.floor import Floor
from callmood.redis_address import Address
from callmood.schemas.common import Emotion
from callmood.schemas.keys import Keys


@pytest.fixture
def a_floor():
    """Floors that are read by the test itself."""
    with ExitStack() as floors:

        def made(url, prefix):
            floor = Floor(Address(url), prefix)
            floors.callback(floor.stop)
            return floor

        yield made


def test_only_calls_with_news_are_read(redis_url, redis_prefix, a_floor):
    """A look without news reads no call; a look after one utterance reads that call."""
    floor = a_floor(redis_url, redis_prefix)
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for number in range(20):
            worker.say(f"call-{number}", Emotion.NEUTRAL)
        floor.look()
        assert len(floor.snapshot.rows) == 20
        before = {row["id"]: row for row in floor.snapshot.rows}
        worker.say("call-7", Emotion.ANGER)
        worker.say("call-8", Emotion.NEUTRAL, end=True)
        floor.look()
    after = {row["id"]: row for row in floor.snapshot.rows}
    assert before.keys() - after.keys() == {"call-8"}
    assert [name for name, row in after.items() if row is not before[name]] == ["call-7"]
    assert after["call-7"]["said"] == "NA"


def test_a_look_can_wait_for_news(redis_url, redis_prefix, a_floor):
    """What is said while a look waits is in its snapshot."""
    floor = a_floor(redis_url, redis_prefix)
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        worker.say("call-1", Emotion.NEUTRAL)
        floor.look()
        waiting = Thread(target=floor.look, kwargs={"wait_ms": 1_900})
        waiting.start()
        worker.say("call-1", Emotion.ANGER)
        waiting.join()
    assert floor.snapshot.rows[0]["said"] == "NA"


def test_answers_from_before_the_start_are_known(redis_url, redis_prefix, a_floor):
    """The letters of a call are those of all its newest utterances; agents have none."""
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for label in (Emotion.ANGER, None, Emotion.SADNESS, Emotion.HAPPINESS, None):
            worker.say("call-1", label)
        floor = a_floor(redis_url, redis_prefix)
        floor.look()
        worker.say("call-1", Emotion.NEUTRAL)
        floor.look()
    assert floor.snapshot.rows[0]["said"] == "ASHN"


def test_an_utterance_is_heard_once(redis_url, redis_prefix, a_floor):
    """Also one that is in the call's own stream before the stream of all calls tells of it."""
    floor = a_floor(redis_url, redis_prefix)
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        worker.say("call-1", Emotion.ANGER)
        floor.look()
        worker.say("call-2", Emotion.ANGER)
        floor._read_said(["call-2"])
        floor.look()
    assert [row["said"] for row in floor.snapshot.rows] == ["A", "A"]


def test_what_is_erased_is_forgotten(redis_url, redis_prefix, redis_client, a_floor):
    """A call that is gone from Redis leaves the page with its alerts, although no stream says so."""
    floor, keys = a_floor(redis_url, redis_prefix), Keys(redis_prefix)
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for _ in range(6):
            worker.say("upset", Emotion.ANGER)
        floor.look()
        assert {alert["call_id"] for alert in floor.snapshot.alerts} == {"upset"}
        redis_client.delete(keys.call("upset"), keys.alerts)
        redis_client.zrem(keys.live_by("risk"), "upset")
        floor._compare_due_s = floor._pulse_due_s = 0.0
        floor.look()
    assert (floor.snapshot.alerts, floor.snapshot.rows) == ((), ())


def test_a_claim_is_kept_for_a_week(redis_url, redis_prefix, redis_client, a_floor):
    """The next claim deletes older ones, although the key lives on; what no page has written stays."""
    floor, key = a_floor(redis_url, redis_prefix), Keys(redis_prefix).claims
    week_ms = 7 * 24 * 3_600_000
    for name, age_ms in {"old": week_ms + 60_000, "young": week_ms - 60_000}.items():
        claim = {"by": "Kim", "at_ms": round(time.time() * 1000) - age_ms, "note": "about a person"}
        redis_client.hset(key, name, json.dumps(claim))
    redis_client.hset(key, "odd", "{")
    assert floor.claim("new", "Kim", "")
    assert set(redis_client.hkeys(key)) == {
        "young",
        "odd",
        "new",
    }


def test_a_call_that_ends_is_in_the_trends_once(redis_url, redis_prefix, a_floor):
    """Also one that ended before the page was started, by when Redis took its end."""
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        worker.say("before", Emotion.ANGER, end=True, attributes={"queue": "billing"})
        floor = a_floor(redis_url, redis_prefix)
        floor.look()
        worker.say("after", Emotion.NEUTRAL)
        worker.say("after", Emotion.ANGER, end=True, attributes={"queue": "billing"})
        for _ in range(3):
            floor._compare_due_s = 0.0
            floor.look()
    sums = {name: sum(row[name] for row in floor.snapshot.trends) for name in ("calls", "labelled", "negative")}
    assert {row["queue"] for row in floor.snapshot.trends} == {"billing"}
    assert sums == {"calls": 2, "labelled": 3, "negative": 2}
    assert all(abs(row["at_ms"] / 1000 - time.time()) < 2 * 3600 for row in floor.snapshot.trends)


def test_a_look_without_news_reads_no_call_and_makes_no_snapshot(redis_url, redis_prefix, redis_client, a_floor):
    """What is read grows with the changes, not with the calls."""
    floor = a_floor(redis_url, redis_prefix)
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for number in range(20):
            worker.say(f"call-{number}", Emotion.NEUTRAL)
    floor.look()
    floor._pulse_due_s = math.inf
    snapshot, before = floor.snapshot, redis_client.info("commandstats")["cmdstat_hmget"]["calls"]
    floor.look()
    assert redis_client.info("commandstats")["cmdstat_hmget"]["calls"] == before
    assert floor.snapshot is snapshot


def test_what_no_worker_has_written_is_left_out(redis_url, redis_prefix, redis_client, a_floor):
    """Also if it is there before the page; the calls and alerts beside it are seen as they are."""
    keys, floor = Keys(redis_prefix), a_floor(redis_url, redis_prefix)
    odd_calls = [{"risk": "high"}, {"risk": "nan"}, {"signs": "{"}, {"signs": '[{"text": "x"}]'}, {"alerts": "[1]"}]

    def write_odd(moment):
        for number, fields in enumerate(odd_calls):
            call_id = f"odd-{moment}-{number}"
            redis_client.hset(keys.call(call_id), mapping={"status": "live", **fields})
            redis_client.zadd(keys.live_by("risk"), {call_id: 0})
            redis_client.xadd(keys.changes, {"call_id": call_id})
            redis_client.hset(
                keys.call(f"{call_id}-over"), mapping={"status": "completed", "hold_ms": "long", **fields}
            )
            redis_client.zadd(keys.ended, {f"{call_id}-over": 1})
        for stream in (keys.utterances, keys.changes, keys.alerts):
            for entry in ({"x": "y"}, {"json": "{", "call_id": "upset"}, {"json": "[]", "number": "one"}):
                redis_client.xadd(stream, entry)

    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for moment in range(2):
            write_odd(moment)
            for _ in range(3):
                worker.say("upset", Emotion.ANGER)
            for alert in floor.snapshot.alerts:
                redis_client.hset(keys.claims, alert["alert_id"], "{")
            floor._compare_due_s = floor._pulse_due_s = 0.0
            floor.look()
            floor.look()
    assert [row["said"] for row in floor.snapshot.rows if row["id"] == "upset"] == ["AAAAAA"]
    assert {alert["call_id"] for alert in floor.snapshot.alerts} == {"upset"}
    assert floor.snapshot.problem == ""


def test_a_redis_that_was_away_and_came_back_empty_is_read_again(own_redis):
    """Meanwhile the old rows stay, with the reason why they are not fresh."""
    start, url = own_redis
    running = start()
    floor = Floor(Address(url), "test")
    with closing(Publisher(url, "test")) as worker:
        worker.say("before", Emotion.NEUTRAL)
        floor.start()
        assert eventually(lambda: [row["id"] for row in floor.snapshot.rows] == ["before"])
        running.process.kill()
        assert eventually(lambda: "Redis does not answer" in floor.snapshot.problem)
        assert [row["id"] for row in floor.snapshot.rows] == ["before"]
    start()
    with closing(Publisher(url, "test")) as worker:
        worker.say("after", Emotion.SADNESS)
        assert eventually(lambda: [(row["id"], row["said"]) for row in floor.snapshot.rows] == [("after", "S")])
        assert floor.snapshot.problem == ""
    floor.stop()


def eventually(is_true):
    """Whether a condition becomes true."""
    deadline_s = time.monotonic() + 30
    while not (value := is_true()) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return value
