"""The simulated Redis: a server that runs the worker's own Lua scripts, and a network that loses what is sent."""

import pickle
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgpack
from lupa.lua51 import LuaRuntime, lua_type
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from callmood.schemas.keys import Keys

Value = Any
_LUA = LuaRuntime(encoding=None)
_LIVES_S = (0.0, 0.3, 5.0)


class _Sorted(dict[bytes, float]):
    """A sorted set: scores by member."""


class Server:
    """The commands that the scripts use, on plain Python values. Nothing expires: a simulation is short."""

    def __init__(self) -> None:
        self.keys: dict[bytes, Any] = {}
        self.touched: set[bytes] = set()
        """Keys written since a reader last looked."""

    def run(self, script: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Value:
        """Run a script as EVALSHA does. A script that fails half-way leaves what it did, as in Redis."""
        redis = _LUA.table_from({b"call": self._call, b"pcall": self._pcall, b"error_reply": _error})
        answer = _compiled(script)(redis, _cmsgpack(), _strings(keys), _strings(args))
        return _plain(answer)

    def dump(self) -> bytes:
        """All there is, as a replica would have it."""
        return pickle.dumps(self.keys)

    def load(self, dump: bytes) -> None:
        """Go on as that replica."""
        self.touched |= set(self.keys)
        self.keys = pickle.loads(dump)
        self.touched |= set(self.keys)

    def hash_of(self, key: str) -> dict[bytes, bytes]:
        """The fields of a hash, or the scores of a sorted set."""
        return self.keys.get(key.encode(), {})

    def entries_of(self, key: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """The entries of a stream."""
        return self.keys.get(key.encode(), [])

    def _call(self, command: bytes, key: bytes = b"", *args: bytes | float) -> Value:
        words = [b"%d" % arg if isinstance(arg, int | float) else arg for arg in args]
        return _COMMANDS[command](self, key, words)

    def _pcall(self, command: bytes, key: bytes, *args: bytes | float) -> Value:
        try:
            return self._call(command, key, *args)
        except ResponseError as error:
            return _error(str(error).encode())

    def _type(self, key: bytes, _: list[bytes]) -> Value:
        kinds = {dict: b"hash", list: b"stream", _Sorted: b"zset", type(None): b"none"}
        return _LUA.table_from({b"ok": kinds[type(self.keys.get(key))]})

    def _exists(self, key: bytes, words: list[bytes]) -> int:
        return sum(name in self.keys for name in (key, *words))

    def _hget(self, key: bytes, words: list[bytes]) -> Value:
        return self.keys.get(key, {}).get(words[0], False)

    def _hmget(self, key: bytes, words: list[bytes]) -> Value:
        known = self.keys.get(key, {})
        return _LUA.table_from([known.get(word, False) for word in words])

    def _hgetall(self, key: bytes, _: list[bytes]) -> Value:
        return _LUA.table_from([part for item in self.keys.get(key, {}).items() for part in item])

    def _hset(self, key: bytes, words: list[bytes]) -> int:
        self.touched.add(key)
        known = self.keys.setdefault(key, {})
        before = len(known)
        known.update(zip(words[::2], words[1::2], strict=True))
        return len(known) - before

    def _hdel(self, key: bytes, words: list[bytes]) -> int:
        known = self.keys.get(key, {})
        removed = sum(known.pop(word, None) is not None for word in words)
        if not known:
            self.keys.pop(key, None)
        return removed

    def _hincrby(self, key: bytes, words: list[bytes]) -> int:
        known = self.keys.setdefault(key, {})
        known[words[0]] = b"%d" % (int(known.get(words[0], 0)) + int(words[1]))
        return int(known[words[0]])

    def _del(self, key: bytes, words: list[bytes]) -> int:
        self.touched |= {key, *words}
        return sum(self.keys.pop(name, None) is not None for name in (key, *words))

    def _expire(self, key: bytes, _: list[bytes]) -> int:
        return int(key in self.keys)

    def _xadd(self, key: bytes, words: list[bytes]) -> bytes:
        self.touched.add(key)
        if words[0] == b"MAXLEN":
            words = words[3 if words[1] == b"~" else 2 :]
        entries, name = self.keys.setdefault(key, []), words[0]
        if name == b"*":
            name = b"%d-0" % (len(entries) + 1)
        elif entries and _number(name) <= _number(entries[-1][0]):
            raise ResponseError("The ID specified in XADD is equal or smaller than the target stream top item")
        entries.append((name, dict(zip(words[1::2], words[2::2], strict=True))))
        return name

    def _zadd(self, key: bytes, words: list[bytes]) -> int:
        self.keys.setdefault(key, _Sorted())[words[1]] = float(words[0])
        return 1

    def _time(self, _: bytes, __: list[bytes]) -> Value:
        """A server whose clock stands still: no list is too old."""
        return _LUA.table_from([b"1750000000", b"0"])

    def _zremrangebyscore(self, key: bytes, words: list[bytes]) -> int:
        assert words[0] == b"-inf"
        old = [member for member, score in self.keys.get(key, {}).items() if score <= float(words[1])]
        return self._hdel(key, old)

    def _zscore(self, key: bytes, words: list[bytes]) -> Value:
        score = self.keys.get(key, {}).get(words[0])
        return False if score is None else b"%f" % score

    def _zrandmember(self, key: bytes, words: list[bytes]) -> Value:
        return _LUA.table_from(sorted(self.keys.get(key, {}))[: int(words[0])])


_COMMANDS: dict[bytes, Callable[[Server, bytes, list[bytes]], Value]] = {
    b"DEL": Server._del,
    b"EXISTS": Server._exists,
    b"EXPIRE": Server._expire,
    b"HDEL": Server._hdel,
    b"HGET": Server._hget,
    b"HGETALL": Server._hgetall,
    b"HINCRBY": Server._hincrby,
    b"HMGET": Server._hmget,
    b"HSET": Server._hset,
    b"TIME": Server._time,
    b"TYPE": Server._type,
    b"XADD": Server._xadd,
    b"ZADD": Server._zadd,
    b"ZRANDMEMBER": Server._zrandmember,
    b"ZREM": Server._hdel,
    b"ZREMRANGEBYSCORE": Server._zremrangebyscore,
    b"ZSCORE": Server._zscore,
}


class Client:
    """Stands where `redis.Redis` stands, for one worker process; requests take place whole, if they do."""

    def __init__(self, world, life) -> None:
        self._world = world
        self._life = life

    def register_script(self, script: str) -> "Script":
        """A script that is sent over this client's network."""
        return Script(self, script)

    def pipeline(self, *, transaction: bool) -> "Pipeline":
        """Scripts that are sent together."""
        assert not transaction
        return Pipeline(self)

    def refuses(self) -> bool:
        """Whether the server refuses one script for a moment."""
        return self._world.dice(self._world.faults.lost_request)

    def _send(self, script: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Value:
        world = self._world
        world.point(self._life, "before redis")
        if world.now_s < world.redis_down_until_s:
            world.note(self._life.name, "redis outage")
            raise world.random.choice([RedisConnectionError, RedisTimeoutError, ReadOnlyError])("simulated outage")
        if world.dice(world.faults.lost_request):
            if world.dice(0.5):  # it arrives, at once or long after its sender has given up
                arrives_s = world.now_s + world.random.choice(_LIVES_S)
                world.late_requests.append((arrives_s, lambda: world.redis.run(script, keys, args)))
                world.deliver_late()
            world.note(self._life.name, "redis timeout")
            raise RedisTimeoutError("simulated timeout")
        answer = world.redis.run(script, keys, args)
        facts = "claim" if isinstance(answer, list) else "commit" if answer == b"ok" else "refused"
        world.note(self._life.name, facts, *keys[:1])
        world.point(self._life, "after redis")
        return answer


class Script:
    """Stands where redis-py's does; its text is its hash."""

    def __init__(self, client: Client, text: str) -> None:
        self.sha = text
        self._client = client

    def __call__(self, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Value:
        """Run it."""
        return self._client._send(self.sha, keys, args)


class Pipeline:
    """Each script takes place on its own. Where the network fails, all answers are lost, and the rest is not sent."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._requests: list[tuple[Any, ...]] = []

    def execute_command(self, name: str, script: str, count: int, *words: str | bytes | int) -> None:
        """Put a script into the pipeline."""
        assert name == "EVALSHA"
        self._requests.append((script, words[:count], words[count:]))

    def execute(self, *, raise_on_error: bool) -> list[Value]:
        """The answers; what the server refuses is among them."""
        assert not raise_on_error
        return [self._answer(*request) for request in self._requests]

    def _answer(self, *request: Any) -> Value:
        if len(self._requests) > 1 and self._client.refuses():  # of several scripts, some may run and others not
            return ReadOnlyError("simulated failover between two scripts")
        try:
            return self._client._send(*request)
        except ResponseError as error:  # also ReadOnlyError
            return error


@cache
def _compiled(script: str) -> Callable[..., Value]:
    return _LUA.eval(f"function(redis, cmsgpack, KEYS, ARGV)\n{script}\nend".encode())


@cache
def _cmsgpack() -> Value:
    def unpack(packed: bytes) -> Value:
        return _LUA.table_from(msgpack.unpackb(packed, raw=True), recursive=True)

    return _LUA.table_from({b"unpack": unpack})


def _strings(words: Sequence[str | bytes | int]) -> Value:
    return _LUA.table_from([word if isinstance(word, bytes) else str(word).encode() for word in words])


def _error(message: bytes) -> Value:
    return _LUA.table_from({b"err": message})


def _plain(answer: Value) -> Value:
    """A Lua value as the client would see it: false is null, a table a list.

    Raises:
        ResponseError: the script says so.
    """
    if lua_type(answer) == "table":
        if answer[b"err"]:
            raise ResponseError(answer[b"err"].decode())
        return [_plain(value) for value in answer.values()]
    return None if answer is False else answer


def _number(entry_id: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in entry_id.split(b"-"))


def by_kind(prefix: str, keys: set[bytes]) -> dict[str, set[str]]:
    """Keys by the first word after the prefix: `call` -> call ids, and so on."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        kind, _, rest = key.decode().removeprefix(Keys(prefix).named("")).partition(":")
        kinds[kind].add(rest)
    return kinds
