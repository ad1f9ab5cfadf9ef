"""What the store sends to Redis: entries for readers that filter, streams that stay short."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from simulation import redis_side

from callmood import schemas
from callmood.schemas.keys import Keys
from callmood.worker.adapters.publish_redis import RedisStore, _entry
from callmood.worker.commits import CallUpdate, Commit, TopicPartition
from callmood.worker.errors import ConfigurationError, StoreUnavailable
from callmood.worker.server_settings import RedisSettings
from callmood.worker.stream_time import StreamTime

SOURCE = TopicPartition("audio", 0)
CALL = json.loads((Path(schemas.__file__).parent / "examples/call/valid/live.json").read_text(encoding="utf-8"))


class Script(NamedTuple):
    """A script whose hash is its text."""

    server: redis_side.Server
    sha: str

    def __call__(self, keys, args):
        """Run it."""
        return self.server.run(self.sha, keys, args)


class Client:
    """The part of a client of Redis that the store uses, with a server that runs its scripts."""

    def __init__(self):
        self.server = redis_side.Server()
        self.requests = []

    def register_script(self, text):
        """See `Script`."""
        return Script(self.server, text)

    def pipeline(self, *, transaction):
        """Itself."""
        assert not transaction
        return self

    def execute_command(self, _, script, count, *words):
        """Put a script into the pipeline."""
        self.requests.append((script, words[:count], words[count:]))

    def execute(self, *, raise_on_error):
        """The answers of the pipeline."""
        assert not raise_on_error
        requests, self.requests = self.requests, []
        return [self.server.run(*request) for request in requests]


def fields(**emotion):
    """The fields of an utterance's entry, without the record itself."""
    entry = _entry({"call_id": "call-1", "number": 3, "role": "customer", "emotion": emotion or None})
    shown = dict(zip(entry[::2], entry[1::2], strict=True))
    assert shown.pop("json")
    return shown


@pytest.mark.parametrize(
    ("emotion", "label"),
    [
        ({"label": "anger", "abstained": False}, "anger"),
        ({"label": "anger", "abstained": True}, None),
        ({"label": None, "abstained": True}, None),
        ({}, None),
    ],
)
def test_only_a_label_that_stands_is_shown(emotion, label):
    """A filter by label must not find utterances on which the model abstains."""
    expected = {"call_id": "call-1", "number": "3", "role": "customer"} | ({"label": label} if label else {})
    assert fields(**emotion) == expected


def test_the_streams_of_all_calls_are_trimmed(monkeypatch):
    """Each entry of theirs trims to the length that is set, or they would grow for ever; a call keeps all."""
    limits = {}

    def add(server, key, words):
        limits.setdefault(key.decode(), set()).add(words[2] if words[:2] == [b"MAXLEN", b"~"] else None)
        return redis_side.Server._xadd(server, key, words)

    monkeypatch.setitem(redis_side._COMMANDS, b"XADD", add)
    keys, store = Keys(), RedisStore(Client(), RedisSettings(firehose_length=10), "worker")
    store.claim(SOURCE)
    said = {"call_id": CALL["call_id"], "number": 1, "emotion": None}
    update = CallUpdate(CALL["call_id"], b"state", CALL, 0.5, is_first=True)
    store.commit([Commit(SOURCE, 1, StreamTime(), utterances=(said,), alerts=(said | {"rule": "r"},), calls=(update,))])
    assert limits.pop(keys.utterances_of(CALL["call_id"])) == {None}
    assert limits == {key: {b"10"} for key in (keys.utterances, keys.alerts, keys.changes)}


class _Eraser(Client):
    """Has nothing to delete, and counts who reads a whole stream."""

    def __init__(self):
        super().__init__()
        self.read = []
        self.hset = self.expire = self.delete = self.zrem = lambda *_: 0

    def xrange(self, stream, *_):
        """No entries."""
        self.read.append(stream)
        return []


def test_an_answer_of_another_protocol_is_a_commit_to_repeat():
    """A proxy before Redis answers with a page while it restarts: the worker repeats the commit."""

    class Proxy(Client):
        is_up = True

        def execute(self, *, raise_on_error):
            answers = super().execute(raise_on_error=raise_on_error)
            if not self.is_up:
                raise redis.InvalidResponse('Protocol error, got "<" as reply type byte')
            return answers

    client = Proxy()
    store = RedisStore(client, RedisSettings(), "test")
    store.claim(SOURCE)
    commit, client.is_up = Commit(SOURCE, 1, StreamTime()), False
    assert store.commit([commit]).failure is not None
    client.is_up = True
    assert store.commit([commit]).durable == (commit,)


def test_a_server_that_has_never_answered_as_redis_is_a_wrong_address():
    """A worker that starts while its Redis is down does not wait for ever for a server of another protocol."""

    def hset(*_):
        raise redis.InvalidResponse('Protocol error, got "<" as reply type byte')

    client = _Eraser()
    client.hset = hset
    store = RedisStore(client, RedisSettings(), "test")
    with pytest.raises(ConfigurationError, match="is no Redis"):
        store.erase({"call-1": 1})
    store.claim(SOURCE)
    with pytest.raises(StoreUnavailable, match="a proxy before it"):
        store.erase({"call-1": 1})


def test_many_erased_calls_cost_one_pass_over_each_stream():
    """The projector may meet a day of tombstones at once, and must poll within a minute."""
    client, keys = _Eraser(), Keys("callmood")
    RedisStore(client, RedisSettings(), "test").erase({f"call-{number}": 1 for number in range(2_000)})
    assert client.read == list(keys.streams_of_calls)
