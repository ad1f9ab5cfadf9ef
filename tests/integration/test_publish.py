"""The commit into a real Redis: claimed, fenced, repeated, rolled back; all of it or nothing."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from telephony import SOURCE, STAMPS, Leg, Worker, log_of, quiet, voice

from callmood import schemas
from callmood.schemas.keys import Keys
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.adapters.redis_client import connect_redis
from callmood.worker.adapters.store import Committed
from callmood.worker.commits import CallUpdate, Commit, Origin, Restored, TopicPartition
from callmood.worker.errors import ConfigurationError, StoreUnavailable
from callmood.worker.server_settings import RedisSettings
from callmood.worker.stream_time import StreamTime

EXAMPLES = Path(schemas.__file__).parent / "examples"


@pytest.fixture
def open_store(redis_url, redis_prefix):
    """Makes a worker's own store; another call makes another worker."""
    clients = []

    def create(**settings):
        configured = RedisSettings(url=redis_url, prefix=redis_prefix, **settings)
        clients.append(connect_redis(configured))
        return RedisStore(clients[-1], configured, f"worker-{len(clients)}")

    yield create
    for client in clients:
        client.close()


@pytest.fixture
def keys(redis_prefix):
    """The keys of this test."""
    return Keys(redis_prefix)


def talk(sentences=2):
    """The records of a call with some sentences."""
    leg = Leg()
    sent = [item for _ in range(sentences) for item in leg.media(quiet(0.6) + voice(1) + quiet(1))]
    return log_of([*sent, leg.send("end")])


def work(restored, records):
    """What a worker that goes on from `restored` commits after these records."""
    worker = Worker()
    worker.store.watermark, worker.store.time = restored.watermark or 0, restored.time or StreamTime()
    worker.store.states = dict(restored.states)
    worker = Worker(worker.store)
    worker.read(record for record in records if record.position.offset >= worker.store.watermark)
    worker.answer()
    return worker.partition.collect(STAMPS, 0.0)


def state_only(watermark, call_id="call-1"):
    """A commit that shows nothing."""
    return Commit(SOURCE, watermark, StreamTime(5, 6, 7), calls=(CallUpdate(call_id, b"state"),))


def dump(client, keys):
    """All keys of the test as the server would write them to its disk."""
    return {key: client.dump(key) for key in client.scan_iter(keys.named("*"))}


def roll_back(client, keys, dumped):
    """Make the server what it was: a replica that had not seen the newest writes has become the master."""
    for key in client.scan_iter(keys.named("*")):
        client.delete(key)
    for key, value in dumped.items():
        client.restore(key, 0, value)


def test_a_new_partition_is_empty(open_store):
    """A first claim finds neither a position nor states."""
    assert open_store().claim(SOURCE) == Restored(None, None, {})


def test_a_claim_gives_what_the_last_commit_left(open_store):
    """The successor gets the watermark, the partition's clock and the states, byte for byte."""
    store = open_store()
    store.claim(SOURCE)
    state = bytes(range(256))
    store.commit([Commit(SOURCE, 41, StreamTime(5, 6, 7), calls=(CallUpdate("caf\u00e9:1", state),))])
    assert open_store().claim(SOURCE) == Restored(41, StreamTime(5, 6, 7), {"caf\u00e9:1": state})


def test_a_claim_fences_the_earlier_owner(open_store):
    """An owner that was replaced commits nothing any more, however often it tries."""
    old, new = open_store(), open_store()
    old.claim(SOURCE)
    new.claim(SOURCE)
    assert old.commit([state_only(9)]).fenced == (SOURCE,)
    assert old.commit([state_only(10)]).fenced == (SOURCE,)
    assert len(new.commit([state_only(3)]).durable) == 1
    assert new.claim(SOURCE).watermark == 3


def test_a_commit_whose_answer_was_lost_is_repeated(open_store, redis_client, keys):
    """The same commit sent again, by a client that never saw the answer, appears once, and work goes on."""
    store = open_store()
    commit = work(store.claim(SOURCE), talk())
    token = store._tokens[SOURCE]
    assert len(store.commit([commit]).durable) == 1
    store._tokens[SOURCE], store._answered = token, {}  # the connection broke before the answer
    assert len(store.commit([commit]).durable) == 1
    assert redis_client.xlen(keys.utterances) == len(commit.utterances) == 2
    assert redis_client.xlen(keys.utterances_of("call-1")) == 2
    assert len(store.commit([state_only(99)]).durable) == 1


def test_a_failover_that_lost_writes_fences_and_doubles_nothing(open_store, redis_client, redis_url, keys):
    """After a rollback the worker is fenced, starts from the older position, and all results are there once."""
    records, store = talk(sentences=4), open_store()
    half = len(records) // 2
    first = work(store.claim(SOURCE), records[:half])
    store.commit([first])
    with redis.Redis.from_url(redis_url) as client:
        dumped = dump(client, keys)
        store.commit([work(Restored(first.watermark, first.time, {c.call_id: c.state for c in first.calls}), records)])
        roll_back(client, keys, dumped)
    assert store.commit([state_only(10_000)]).fenced == (SOURCE,)

    successor = open_store()
    restored = successor.claim(SOURCE)
    assert restored.watermark == first.watermark
    assert len(successor.commit([work(restored, records)]).durable) == 1
    told = [json.loads(fields["json"]) for _, fields in redis_client.xrange(keys.utterances_of("call-1"))]
    expected = Worker().read(records).commit().of()
    assert [(u["number"], u["utterance_id"]) for u in told] == [(u["number"], u["utterance_id"]) for u in expected]
    assert redis_client.xlen(keys.utterances) == len(expected)


def test_a_server_that_lost_everything_fences(open_store, redis_url, keys):
    """A server without our position, such as one restarted empty, takes no commit."""
    store = open_store()
    store.claim(SOURCE)
    with redis.Redis.from_url(redis_url) as client:
        roll_back(client, keys, {})
    assert store.commit([state_only(5)]).fenced == (SOURCE,)
    assert open_store().claim(SOURCE).watermark is None


def test_partitions_are_fenced_one_by_one(open_store):
    """A partition that is another's does not keep the others from their commit."""
    mine, other = SOURCE, SOURCE._replace(partition=1)
    store = open_store()
    store.claim(mine)
    store.claim(other)
    open_store().claim(other)
    commits = [Commit(other, 5, StreamTime()), Commit(mine, 6, StreamTime())]
    assert store.commit(commits) == Committed((commits[1],), (other,))
    assert open_store().claim(mine).watermark == 6


@pytest.mark.parametrize("key", ["position:audio:0", "states:audio:0", "alerts", "live:by_risk", "utterances:call-1"])
def test_a_key_of_another_type_stops_the_worker_before_it_writes(open_store, redis_client, keys, key):
    """Where another program uses one of the keys, the message says what to do and nothing of the commit appears."""
    store = open_store()
    commit = work(store.claim(SOURCE), talk())
    redis_client.delete(keys.named(key))
    redis_client.set(keys.named(key), "another program's")
    before = set(redis_client.scan_iter(keys.named("*")))
    with pytest.raises(ConfigurationError, match="CALLMOOD_REDIS__PREFIX"):
        store.commit([commit])
    assert set(redis_client.scan_iter(keys.named("*"))) == before


def test_scripts_that_the_server_has_forgotten_are_loaded_again(open_store, redis_url):
    """After a restart or SCRIPT FLUSH the commit succeeds at once."""
    store = open_store()
    store.claim(SOURCE)
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    assert len(store.commit([state_only(4)]).durable) == 1
    assert open_store().claim(SOURCE).watermark == 4


def test_one_round_trip_commits_all_partitions(open_store, monkeypatch):
    """However many partitions there are, the server is asked once; each answer is its own."""
    store, sources = open_store(), [SOURCE._replace(partition=number) for number in range(5)]
    for source in sources:
        store.claim(source)
    rounds, run = [], store._run
    monkeypatch.setattr(store, "_run", lambda requests: rounds.append(len(requests)) or run(requests))
    commits = [Commit(source, 8, StreamTime()) for source in sources]
    assert store.commit(commits) == Committed(tuple(commits))
    assert rounds in ([5], [5, 5])  # twice where the server does not know the script yet


def test_a_server_that_does_not_answer_is_waited_for(open_store, redis_url):
    """A commit that meets a busy server is an outage that passes, and the same commit succeeds afterwards."""
    store = open_store(timeout_s=0.2)
    store.claim(SOURCE)
    with redis.Redis.from_url(redis_url) as client:
        client.client_pause(1_000, all=True)
        committed = store.commit([state_only(4)])
        client.client_unpause()
    assert committed.durable == ()
    assert isinstance(committed.failure, StoreUnavailable)
    assert len(store.commit([state_only(4)]).durable) == 1
    assert open_store().claim(SOURCE).watermark == 4


OURS = Origin("cluster", "topic", "group", 4)


@pytest.fixture
def store_of(redis_url, redis_prefix):
    """Makes a worker's store with an origin."""
    with closing(connect_redis(RedisSettings(url=redis_url, prefix=redis_prefix))) as client:
        configured = RedisSettings(url=redis_url, prefix=redis_prefix)
        yield lambda origin: RedisStore(client, configured, "worker", lambda _: origin)


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (OURS._replace(topic_id="new"), "is the topic of another cluster, or was deleted and created again"),
        (OURS._replace(cluster="other"), "another Kafka cluster"),
        (OURS._replace(group="canary"), "consumer group 'group'"),
    ],
)
def test_a_position_of_somebody_else_is_refused_and_stays_theirs(store_of, origin, words):
    """Who comes with another cluster, topic or group does not put the owner out."""
    owner = store_of(OURS)
    owner.claim(SOURCE)
    owner.commit([state_only(7)])
    with pytest.raises(ConfigurationError, match=words):
        store_of(origin).claim(SOURCE)
    assert len(owner.commit([state_only(8)]).durable) == 1
    assert store_of(Origin()).claim(SOURCE).watermark == 8


def test_partitions_know_how_many_there_were_at_first(store_of):
    """What is added later has a higher number than that, and every owner gets the first number."""
    other = TopicPartition(SOURCE.topic, 5)
    assert store_of(OURS).claim(other).first_partitions is None
    store_of(OURS).claim(SOURCE)
    assert store_of(OURS._replace(partitions=6)).claim(SOURCE).first_partitions == 4
    assert store_of(OURS._replace(partitions=6)).claim(other).first_partitions == 4


def test_states_that_redis_has_deleted_are_noticed_by_the_next_commit(open_store, redis_client, keys):
    """The owner is told until it has stored all of them again."""
    store = open_store()
    store.claim(SOURCE)
    assert store.commit([state_only(1, "a")]).gone == {}
    assert store.commit([state_only(2, "b")]).gone == {}
    redis_client.delete(keys.states(*SOURCE))
    assert store.commit([state_only(3, "b")]).gone[SOURCE].has_lost_states
    assert store.commit([replace(state_only(4, "b"), calls=())]).gone[SOURCE].has_lost_states
    whole = replace(state_only(5), calls=(CallUpdate("a", b"a"), CallUpdate("b", b"b")), is_whole=True)
    assert store.commit([whole]).gone == {}
    assert store.commit([replace(state_only(6), calls=(CallUpdate("a", None), CallUpdate("b", None)))]).gone == {}
    assert store.commit([state_only(7, "c")]).gone == {}
    restored = open_store().claim(SOURCE)
    assert (set(restored.states), restored.has_lost_states) == ({"c"}, False)


@pytest.mark.parametrize("is_noticed", [False, True])
def test_states_that_redis_has_deleted_are_noticed_by_a_takeover(open_store, redis_client, keys, is_noticed):
    """Also if the owner died before it had stored them again; the next takeover finds what is there."""
    store = open_store()
    store.claim(SOURCE)
    store.commit([state_only(1, "a")])
    redis_client.delete(keys.states(*SOURCE))
    if is_noticed:
        store.commit([state_only(2, "b")])
    assert open_store().claim(SOURCE).has_lost_states
    assert not open_store().claim(SOURCE).has_lost_states


@pytest.mark.parametrize("order", [None, "update", "risk"])
def test_results_that_redis_has_deleted_are_noticed(open_store, redis_client, keys, order):
    """An aggregate or a place in a list of live calls is asked for again, missing utterances are counted.

    A call that begins misses nothing.
    """
    records, store = talk(sentences=4), open_store()
    store.claim(SOURCE)
    worker = Worker()
    worker.read(records[: len(records) // 2])
    worker.answer()
    commit = worker.partition.collect(STAMPS, 0.0)
    assert store.commit([commit]).gone == {}
    worker.partition.confirm(commit)
    redis_client.delete(keys.live_by(order) if order else keys.call("call-1"))
    gone = store.commit([Commit(SOURCE, 2, StreamTime(), calls=(CallUpdate("call-1", b"s", is_known=True),))]).gone
    assert gone[SOURCE].summaries == ("call-1",)
    worker.partition.restore_store(gone[SOURCE].summaries, all_states=True)
    commit = worker.partition.collect(STAMPS, 0.0)
    assert store.commit([commit]).gone == {}
    worker.partition.confirm(commit)
    assert redis_client.exists(keys.call("call-1"))
    assert all(redis_client.zscore(keys.live_by(one), "call-1") is not None for one in ("update", "risk"))
    redis_client.delete(keys.utterances_of("call-1"))
    worker.read(records[len(records) // 2 :])
    worker.answer()
    assert store.commit([worker.partition.collect(STAMPS, 0.0)]).gone[SOURCE].silent_calls == 1


def test_a_lost_list_of_open_alerts_is_noticed(open_store, redis_client, keys):
    """Only calls with an alert that is raised are asked for again; those without one are not in the list."""
    alerted = json.loads((EXAMPLES / "call/valid/live.json").read_text(encoding="utf-8"))
    cleared = alerted | {"alerts": [alerted["alerts"][0] | {"state": "cleared", "over_ms": 95_000}]}
    shown = {"alerted": alerted, "cleared": cleared, "calm": alerted | {"alerts": []}}
    calls = tuple(CallUpdate(one, b"s", call | {"call_id": one}, is_known=True) for one, call in shown.items())
    quiet_calls = tuple(replace(call, summary=None) for call in calls)
    store = open_store()
    store.claim(SOURCE)
    store.commit([Commit(SOURCE, 1, StreamTime(), calls=calls)])
    assert store.commit([Commit(SOURCE, 2, StreamTime(), calls=quiet_calls)]).gone == {}
    before = redis_client.zrange(keys.live_by("alert"), 0, -1, withscores=True)
    redis_client.delete(keys.live_by("alert"))
    gone = store.commit([Commit(SOURCE, 3, StreamTime(), calls=quiet_calls)]).gone
    assert gone[SOURCE].summaries == ("alerted",)
    store.commit([Commit(SOURCE, 4, StreamTime(), calls=calls[:1])])
    assert redis_client.zrange(keys.live_by("alert"), 0, -1, withscores=True) == before


def test_an_erased_call_does_not_come_back(open_store, redis_client, keys):
    """What is copied from Kafka and was written before the call was erased is dropped; a new call of its id is not."""
    store = open_store()
    commit = work(store.claim(SOURCE), talk())
    copied = replace(commit, logged_ms={"call-1": 1_000}, calls=tuple(replace(c, state=None) for c in commit.calls))
    store.commit([copied])
    assert redis_client.xlen(keys.utterances) == 2
    store.erase({"call-1": 1_000})
    for name in (keys.call("call-1"), keys.utterances_of("call-1"), keys.utterances):
        assert not redis_client.exists(name) or redis_client.xlen(name) == 0
    store.commit([copied])
    assert redis_client.exists(keys.call("call-1"), keys.utterances_of("call-1")) == 0
    assert redis_client.xlen(keys.utterances) == 0
    assert redis_client.zcard(keys.live_by("risk")) == 0
    assert "call-1" not in " ".join(redis_client.keys(keys.named("*")))
    store.commit([replace(copied, logged_ms={"call-1": 1_001})])
    assert redis_client.exists(keys.call("call-1"), keys.utterances_of("call-1")) == 2


def test_thousands_of_deleted_aggregates_are_noticed_bit_by_bit(open_store):
    """A commit of many calls whose aggregates are gone takes place all the same."""
    store = open_store()
    store.claim(SOURCE)
    calls = tuple(CallUpdate(f"call-{n}", b"s", is_known=True) for n in range(12_000))
    committed = store.commit([Commit(SOURCE, 1, StreamTime(), calls=calls)])
    assert len(committed.durable) == 1
    assert len(committed.gone[SOURCE].summaries) == 1_000


def test_streams_of_all_calls_stay_short(open_store, redis_client, keys):
    """Utterances, alerts and changes are trimmed to about the length that is set, or they would grow for ever."""
    store = open_store(firehose_length=10)
    store.claim(SOURCE)
    utterances = tuple({"call_id": "call-1", "number": n, "emotion": None} for n in range(1, 2_001))
    alerts = tuple({"call_id": "call-1", "rule": "r", "since_ms": n} for n in range(2_000))
    store.commit(
        [Commit(SOURCE, 1, StreamTime(), utterances=utterances, alerts=alerts, calls=(CallUpdate("call-1", b"s"),))]
    )
    assert 10 <= redis_client.xlen(keys.utterances) < 500
    assert 10 <= redis_client.xlen(keys.alerts) < 500
    assert redis_client.xlen(keys.utterances_of("call-1")) == 2_000
