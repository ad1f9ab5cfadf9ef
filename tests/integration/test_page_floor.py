"""The floor as it is read from a real Redis, also from one that goes away."""

import time
from contextlib import ExitStack, closing

import pytest
from publisher import Publisher

from callmood.dashboard.page.floor import Floor
from callmood.redis_address import Address
from callmood.schemas.common import Emotion


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
