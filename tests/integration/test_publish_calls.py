"""What a commit makes of calls in a real Redis: keys, lifetimes, live sets, and ids that come again."""

import json
from contextlib import closing

import pytest
import redis
from publisher import Publisher
from telephony import EPOCH_MS, SOURCE, STAMPS, Leg, Worker, log_of, quiet, voice

from callmood.schemas import flat
from callmood.schemas.call import Call
from callmood.schemas.common import Emotion
from callmood.schemas.keys import Keys
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.server_settings import RedisSettings

LIFETIMES_S = {"call_ttl_s": 1_000, "ended_ttl_s": 100, "state_ttl_s": 5_000}


@pytest.fixture
def keys(redis_prefix):
    """The keys of this test."""
    return Keys(redis_prefix)


@pytest.fixture
def publish(redis_url, redis_prefix):
    """Publishes what a worker of a partition makes of records: `publish(partition, records)`."""
    settings = RedisSettings(prefix=redis_prefix, **LIFETIMES_S)
    stores, workers = {}, {}
    with redis.Redis.from_url(redis_url) as client:

        def through(partition, records):
            source = SOURCE._replace(partition=partition)
            if partition not in stores:
                stores[partition] = RedisStore(client, settings, "test")
                stores[partition].claim(source)
                workers[partition] = Worker()
                workers[partition].partition.source = source
            worker = workers[partition].read(records)
            worker.answer()
            commit = worker.partition.collect(STAMPS, 0.0)
            assert stores[partition].commit([commit]).durable == (commit,)
            worker.partition.confirm(commit)
            return commit

        yield through


def sentences(leg, count):
    """That many sentences."""
    return [item for _ in range(count) for item in leg.media(quiet(0.6) + voice(1) + quiet(1))]


def numbers(client, key):
    """The numbers of the utterances in a stream."""
    return [json.loads(fields["json"])["number"] for _, fields in client.xrange(key)]


def test_a_call_is_a_hash_a_stream_and_two_ranks(publish, redis_client, keys):
    """A live call is found by update and by risk, its hash is call/1, its stream is numbered from 1."""
    commit = publish(0, log_of(sentences(Leg(), 3)))
    (update,) = commit.calls
    assert flat.unflatten(redis_client.hgetall(keys.call("call-1"))) == Call.model_validate(update.summary)
    assert [entry for entry, _ in redis_client.xrange(keys.utterances_of("call-1"))] == ["1-0", "2-0", "3-0"]
    assert redis_client.zrange(keys.live_by("update"), 0, -1, withscores=True) == [
        ("call-1", update.summary["updated_at_ms"])
    ]
    assert redis_client.zrange(keys.live_by("risk"), 0, -1, withscores=True) == [("call-1", update.risk)]


def test_a_call_that_ends_leaves_the_live_sets(publish, redis_client, keys):
    """The commit that ends a call takes it from the live sets and shortens its life; its results stay."""
    leg = Leg()
    publish(0, log_of(sentences(leg, 2)))
    publish(0, log_of([leg.send("end")], first_offset=100))
    assert redis_client.zcard(keys.live_by("update")) == redis_client.zcard(keys.live_by("risk")) == 0
    assert redis_client.hget(keys.call("call-1"), "status") == "completed"
    assert numbers(redis_client, keys.utterances_of("call-1")) == [1, 2]
    for key in ("call:call-1", "utterances:call-1"):
        assert 0 < redis_client.ttl(keys.named(key)) <= LIFETIMES_S["ended_ttl_s"]


def test_calls_that_have_ended_lately_are_listed_for_as_long_as_they_live(publish, redis_client, keys):
    """The list is by the clock of Redis; an id leaves it with the hash, at the next commit."""
    legs = [Leg("call-1"), Leg("call-2")]
    publish(0, log_of(sentences(legs[0], 1)))
    assert redis_client.exists(keys.ended) == 0
    publish(0, log_of([legs[0].send("end")], first_offset=100))
    ((call_id, ended_at_ms),) = redis_client.zrange(keys.ended, 0, -1, withscores=True)
    now_ms = redis_client.time()[0] * 1000
    assert (call_id, 0 <= now_ms - ended_at_ms + 1000 < 60_000) == ("call-1", True)
    redis_client.zadd(keys.ended, {"call-1": ended_at_ms - LIFETIMES_S["ended_ttl_s"] * 1000 - 60_000})
    publish(0, log_of(sentences(legs[1], 1), first_offset=200))
    assert redis_client.exists(keys.ended) == 0


def test_every_change_is_in_the_feed_in_the_order_of_commits(publish, redis_client, keys):
    """Each entry names a call, its version and status; the newest of a call fits its hash."""
    first, second = Leg("call-1"), Leg("call-2")
    publish(0, log_of(sentences(first, 1)))
    publish(1, log_of(sentences(second, 1)))
    publish(0, log_of([first.send("end")], first_offset=100))
    feed = [
        (fields["call_id"], int(fields["version"]), fields["status"]) for _, fields in redis_client.xrange(keys.changes)
    ]
    assert [(call_id, status) for call_id, _, status in feed] == [
        ("call-1", "live"), ("call-2", "live"), ("call-1", "completed"),
    ]  # fmt: skip
    for call_id, version, status in feed[1:]:
        assert redis_client.hmget(keys.call(call_id), "version", "status") == [str(version), status]


def test_every_commit_is_in_the_pulse(publish, redis_client, keys):
    """By partition, also one without calls; a partition that no worker has committed for a week is forgotten."""
    redis_client.zadd(keys.pulse, {"gone:0": 1.0})
    publish(0, [])
    publish(3, log_of(sentences(Leg(), 1)))
    assert sorted(redis_client.zrange(keys.pulse, 0, -1)) == ["audio:0", "audio:3"]


def test_a_call_with_an_open_alert_is_listed(redis_url, redis_prefix, redis_client, keys):
    """By when the newest was raised, until it is cleared or the call ends."""
    with closing(Publisher(redis_url, redis_prefix)) as worker:
        for call_id in ("cleared", "ended"):
            for _ in range(4):
                worker.say(call_id, Emotion.ANGER)
        listed = dict(redis_client.zrange(keys.live_by("alert"), 0, -1, withscores=True))
        call = flat.unflatten(redis_client.hgetall(keys.call("ended")))
        newest_ms = max(one.raised_ms for one in call.alerts if one.state == "raised")
        assert listed == dict.fromkeys(("cleared", "ended"), call.started_at_ms + newest_ms)
        for _ in range(8):
            worker.say("cleared", Emotion.HAPPINESS)
        assert redis_client.zrange(keys.live_by("alert"), 0, -1) == ["ended"]
        worker.say("ended", end=True)
    assert redis_client.exists(keys.live_by("alert")) == 0


def test_every_key_has_a_lifetime(publish, redis_client, keys):
    """Calls live as long as the setting says, positions, states and what is shared as long as states."""
    publish(0, log_of([*sentences(Leg(), 2), *sentences(Leg("call-2"), 1)]))
    for key in redis_client.scan_iter(keys.named("*")):
        is_of_call = key.removeprefix(keys.named("")).startswith(("call:", "utterances:"))
        limit_s = LIFETIMES_S["call_ttl_s" if is_of_call else "state_ttl_s"]
        assert limit_s - 60 < redis_client.ttl(key) <= limit_s, key


def test_a_call_id_that_comes_again_much_later_begins_again(publish, redis_client, keys):
    """Once the memory of an ended call is gone, its id may be used again: what was under it is replaced."""
    first, other = Leg(), Leg("other", start_ms=EPOCH_MS + 10_000)
    publish(0, log_of([*sentences(first, 3), first.send("end")]))
    publish(0, log_of(other.media(quiet(700), chunk_ms=1_000), first_offset=100))
    publish(0, log_of(sentences(Leg(start_ms=EPOCH_MS + 710_000), 1), first_offset=1_000))
    assert numbers(redis_client, keys.utterances_of("call-1")) == [1]
    assert redis_client.hget(keys.call("call-1"), "status") == "live"
    assert redis_client.hget(keys.call("call-1"), "utterances") == "1"


def test_a_call_in_two_partitions_loses_no_utterance(publish, redis_client, keys):
    """When a topic gets more partitions in the middle of a call, both halves are told; nobody stumbles."""
    leg = Leg()
    first_half, second_half, rest = (log_of(sentences(leg, 2), first_offset=at) for at in (0, 0, 1_000))
    publish(0, first_half)
    publish(1, second_half)
    publish(0, rest)
    publish(1, log_of([*sentences(leg, 1), leg.send("end")], first_offset=1_000))
    assert len(numbers(redis_client, keys.utterances)) == 7
    assert len(numbers(redis_client, keys.utterances_of("call-1"))) == 5  # the second half began again


def test_calls_whose_hash_is_gone_leave_the_live_sets(publish, redis_client, keys):
    """A producer that vanished leaves no call behind on the dashboards."""
    ranks = {f"gone-{number}": number for number in range(15)}
    redis_client.zadd(keys.live_by("update"), ranks)
    redis_client.zadd(keys.live_by("risk"), ranks)
    leg = Leg()
    for turn in range(40):
        publish(0, log_of(sentences(leg, 1), first_offset=turn * 100))
    assert redis_client.zrange(keys.live_by("update"), 0, -1) == ["call-1"]
    assert redis_client.zrange(keys.live_by("risk"), 0, -1) == ["call-1"]


def test_a_gateway_far_ahead_hides_no_live_call(publish, redis_client, keys):
    """One gateway whose clock is years ahead does not take the calls of others from the live sets."""
    publish(0, log_of(sentences(Leg(), 1)))
    publish(1, log_of(sentences(Leg("future", start_ms=EPOCH_MS * 1_000), 1)))
    assert set(redis_client.zrange(keys.live_by("update"), 0, -1)) == {"call-1", "future"}
