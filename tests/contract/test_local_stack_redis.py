"""Behaviour of Redis that the worker relies on. Each server that the local stack can start must pass."""

import pytest
import redis

from deploy.local import LocalStack, NotInstalled

pytestmark = pytest.mark.integration
COMPARE_AND_SET = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('FENCED') end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], ARGV[3], 'json', '{}')
return 1
"""


@pytest.fixture(scope="module", params=["redis-server", "valkey"])
def client(request):
    """A client of each kind of server, started for this file."""
    try:
        with (
            LocalStack(
                redis=request.param, environment={"CALLMOOD_KAFKA__BOOTSTRAP_SERVERS": "unused.invalid"}
            ) as stack,
            redis.Redis.from_url(stack.redis_url, decode_responses=True) as connected,
        ):
            yield connected
    except NotInstalled as missing:
        pytest.skip(str(missing))


@pytest.fixture(autouse=True)
def _empty(client):
    client.flushdb()  # a server of this file's own


def test_a_script_compares_and_sets(client):
    """A Lua script sees and changes several keys at once; a refused one changes none."""
    client.set("{p}:position", "4")
    script = client.register_script(COMPARE_AND_SET)
    keys = ["{p}:position", "{p}:utterances"]
    assert script(keys=keys, args=["4", "9", "1-0"]) == 1
    with pytest.raises(redis.ResponseError, match="FENCED"):
        script(keys=keys, args=["4", "12", "2-0"])
    assert client.get("{p}:position") == "9"
    assert client.xlen("{p}:utterances") == 1


def test_a_stream_refuses_an_id_it_has_passed(client):
    """An entry with an explicit id cannot be added twice, and a stream reads back in order."""
    for number in (1, 2, 3):
        client.xadd("stream", {"json": str(number)}, id=f"{number}-0")
    with pytest.raises(redis.ResponseError, match="equal or smaller"):
        client.xadd("stream", {"json": "again"}, id="2-0")
    assert [fields["json"] for _, fields in client.xrange("stream")] == ["1", "2", "3"]


def test_a_capped_stream_keeps_the_newest(client):
    """MAXLEN drops the oldest entries."""
    for number in range(50):
        client.xadd("firehose", {"n": number}, maxlen=10, approximate=False)
    assert [fields["n"] for _, fields in client.xrange("firehose")] == [str(number) for number in range(40, 50)]


def test_hashes_and_sorted_sets_expire(client):
    """Every key can carry a life time."""
    client.hset("call", mapping={"emotion": "neutral", "talk_ms": 1200})
    client.zadd("live", {"call": 1700000000000})
    assert client.expire("call", 100)
    assert client.expire("live", 100)
    assert client.hgetall("call") == {"emotion": "neutral", "talk_ms": "1200"}
    assert client.zrange("live", 0, -1, withscores=True) in ([("call", 1.7e12)], [["call", 1.7e12]])
    assert 0 < client.ttl("call") <= 100


def test_an_acl_user_reads_and_cannot_write(client):
    """A dashboard's user may read the project's keys and nothing else."""
    client.acl_setuser("dashboard", enabled=True, nopass=True, categories=["+@read"], keys=["{p}:*"])
    client.set("{p}:call", "1")
    client.set("other", "1")
    address = client.connection_pool.connection_kwargs
    with redis.Redis(port=address["port"], username="dashboard", password="any") as dashboard:
        assert dashboard.get("{p}:call") == b"1"
        for refused in (lambda: dashboard.set("{p}:call", "2"), lambda: dashboard.get("other")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                refused()
