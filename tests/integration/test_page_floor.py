"""The floor as it is read from a real Redis, also from one that goes away."""

import time
from contextlib import closing, suppress

import pytest
import redis
from publisher import Publisher

from callmood.dashboard.page.floor import Floor
from callmood.redis_address import Address
from callmood.schemas.common import Emotion
from deploy.local.nursery import Nursery, free_port
from deploy.local.redis_server import find_server


@pytest.fixture
def server():
    """`server()` starts a Redis of this test's own, always at the same address, and returns it."""
    with Nursery() as nursery:
        port, names = free_port(), iter(range(10))

        def start():
            options = ["--bind", "127.0.0.1", "--port", str(port), "--save", ""]
            started = nursery.start(f"redis-{next(names)}", [find_server("valkey"), *options])
            with closing(redis.Redis(port=port)) as client:
                deadline_s = time.monotonic() + 20
                while time.monotonic() < deadline_s:
                    with suppress(redis.RedisError):
                        client.ping()
                        break
                    time.sleep(0.05)
            return started

        yield start, f"redis://127.0.0.1:{port}/0"


def test_only_calls_with_news_are_read(redis_url, redis_prefix):
    """A look without news reads no call; a look after one utterance reads that call."""
    floor = Floor(Address(redis_url), redis_prefix)
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


def test_answers_from_before_the_start_are_known(redis_url, redis_prefix):
    """The letters of a call are those of all its newest utterances; agents have none."""
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for label in (Emotion.ANGER, None, Emotion.SADNESS, Emotion.HAPPINESS, None):
            worker.say("call-1", label)
        floor = Floor(Address(redis_url), redis_prefix)
        floor.look()
        worker.say("call-1", Emotion.NEUTRAL)
        floor.look()
    assert floor.snapshot.rows[0]["said"] == "ASHN"


def test_a_redis_that_was_away_and_came_back_empty_is_read_again(server):
    """Meanwhile the old rows stay, with the reason why they are not fresh."""
    start, url = server
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
