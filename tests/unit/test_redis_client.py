"""Which errors of Redis are temporary, and which need a person."""

import ssl

import pytest
import redis
from redis._parsers.base import BaseParser
from redis.exceptions import NoPermissionError, RedisClusterException
from redis.sentinel import MasterNotFoundError

from callmood.worker.adapters.redis_client import connect_redis, redis_errors, refuse_eviction
from callmood.worker.errors import EXIT_AGAIN, ConfigurationError, StoreRefused, StoreUnavailable
from callmood.worker.server_settings import RedisSettings


def raised_by(line):
    """What the loop sees when the client reads this error line of a server."""
    with redis_errors():
        raise BaseParser.parse_error(line)


@pytest.mark.parametrize(
    "line",
    [
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN Hash slot not served",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "NOREPLICAS Not enough good replicas to write.",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "BUSY Redis is busy running a script.",
    ],
)
def test_what_passes_is_waited_for(line):
    """A failover, a full disk or a busy server is repeated, not the end of the process."""
    with pytest.raises(StoreUnavailable):
        raised_by(line)


@pytest.mark.parametrize(
    "line",
    [
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOAUTH Authentication required.",
        "NOPERM User worker has no permissions to run the 'evalsha' command",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "MOVED 3999 127.0.0.1:6381",
        "ERR DB index is out of range",
        "ERR value is not an integer or out of range",
        "DENIED Running in protected mode because protected mode is enabled. In this mode connections are refused.",
        "ERR unknown command 'HSET', with args beginning with: 'k' 'v'",
        "ERR unknown command 'SENTINEL', with args beginning with: 'MASTERS'",
    ],
)
def test_what_a_person_must_change_says_so(line):
    """Wrong credentials, keys of another program, a wrong server and a wrong database name the setting to look at."""
    with pytest.raises(ConfigurationError, match="CALLMOOD_REDIS__"):
        raised_by(line)


def test_anything_else_ends_the_process_with_its_words():
    """A restart may help against an error that nobody has foreseen; what the command held is not repeated."""
    with pytest.raises(StoreRefused, match=r"^Redis: ERR-17 no space$") as caught:
        raised_by("ERR-17 no space, with args beginning with: '+4940123'")
    assert caught.value.exit_code == EXIT_AGAIN


def test_a_server_of_another_protocol_is_a_wrong_address():
    """A web server answers every command with the same page."""
    with pytest.raises(ConfigurationError, match=r"is no Redis.*Check host and port"), redis_errors():
        raise redis.InvalidResponse('Protocol error, got "<" as reply type byte')


@pytest.mark.parametrize(
    "error",
    [redis.InvalidResponse('Protocol error, got "<" as reply type byte'), redis.ConnectionError("no handshake")],
    ids=["another protocol", "TLS"],
)
def test_a_proxy_that_fails_is_waited_for(error):
    """The server has answered as Redis before, so the address is right: what comes between them passes."""
    error.__cause__ = ssl.SSLError("wrong version number")
    with pytest.raises(ConfigurationError), redis_errors():
        raise error
    with pytest.raises(StoreUnavailable, match="CALLMOOD_REDIS__"), redis_errors(is_known=True):
        raise error


class _Info:
    """A server with this answer to INFO."""

    def __init__(self, answer):
        self._answer = answer

    def info(self, section):
        assert section == "memory"
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


EVICTS = {"maxmemory": 100, "maxmemory_policy": "volatile-lru"}
KEEPS = {"maxmemory": 100, "maxmemory_policy": "noeviction"}
UNLIMITED = {"maxmemory": 0, "maxmemory_policy": "volatile-lru"}


@pytest.mark.parametrize("answer", [EVICTS, {"a:1": KEEPS, "b:1": EVICTS}], ids=["one server", "a node of a cluster"])
def test_a_server_that_evicts_is_refused(answer):
    """A full server that deletes keys would delete states of live calls."""
    with pytest.raises(ConfigurationError, match=r"volatile-lru.*noeviction"):
        refuse_eviction(_Info(answer))


@pytest.mark.parametrize(
    "answer", [KEEPS, UNLIMITED, {"a:1": KEEPS, "b:1": UNLIMITED}, NoPermissionError("info")],
    ids=["keeps", "unlimited", "cluster", "not allowed to look"],
)  # fmt: skip
def test_a_server_that_keeps_all_keys_is_accepted(answer):
    """Without a limit nothing is deleted, and a user who may not look is not stopped."""
    assert refuse_eviction(_Info(answer)) is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1/zero",
        "rediss://127.0.0.1:6379/-1",
        "redis://user:pass/horse@127.0.0.1/0",
        "redis://a:b/0",
        "a:1",
        "redis://user:#horse@127.0.0.1/0",
        "redis://:[horse@127.0.0.1/0",
        "redis://127.0.0.1:66000/0",
        "redis://127.0.0.1/0?ssl=horse",
    ],
)
def test_a_url_that_is_none_names_its_setting(url):
    """A database that is no number would be number 0; the message does not repeat what may be of a password."""
    with pytest.raises(ConfigurationError, match="CALLMOOD_REDIS__URL: ") as caught:
        connect_redis(RedisSettings(url=url))
    assert "horse" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1", "redis://127.0.0.1:6379/3/", "unix:///run/redis.sock", "redis://[::1]/1"]
)
def test_every_form_of_a_url_is_taken(url):
    """With and without a port or a database."""
    with connect_redis(RedisSettings(url=url)) as client:
        assert client.connection_pool.connection_kwargs.get("db", 0) in (0, 1, 3)


def test_a_master_that_no_sentinel_knows_names_the_settings():
    """It may still be chosen; the message does not show the objects of the client."""
    with pytest.raises(StoreUnavailable, match=r"SENTINEL_MASTER$"), redis_errors():
        raise MasterNotFoundError("No master found for 'm' : <redis.client.Redis(...)>")


def test_a_cluster_that_is_none_names_its_setting():
    """One server answers the client of a cluster: no restart makes it one."""
    with pytest.raises(ConfigurationError, match="CALLMOOD_REDIS__CLUSTER=false"), redis_errors():
        raise RedisClusterException("Redis Cluster cannot be connected: Cluster mode is not enabled on this node")
