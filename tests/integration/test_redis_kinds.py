"""Redis behind Sentinels and Redis Cluster, on real servers: work goes on, exactly, when another server takes over."""

import time
from contextlib import closing, suppress

import pytest
import redis
from telephony import SOURCE, STAMPS, Leg, Store, Worker, log_of, quiet, voice

from callmood.__main__ import main
from callmood.dashboard.reader import Dashboard
from callmood.schemas.keys import Keys
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.adapters.redis_client import connect_redis, redis_address
from callmood.worker.errors import StoreUnavailable
from callmood.worker.server_settings import RedisSettings
from callmood.worker.stream_time import StreamTime
from deploy.local.nursery import Nursery, free_port
from deploy.local.redis_server import find_server

pytestmark = pytest.mark.timeout(120)

_WAIT_S = 60


@pytest.fixture
def nursery():
    """Servers of this test's own."""
    with Nursery() as servers:
        yield servers


@pytest.fixture
def records():
    """A call of four sentences."""
    leg = Leg()
    sent = [item for _ in range(4) for item in leg.media(quiet(0.6) + voice(1) + quiet(1))]
    return log_of([*sent, leg.send("end")])


def start(nursery, name, *options):
    """A server on a port of its own, and the process."""
    port = free_port()
    server = nursery.start(name, [find_server("valkey"), *options, "--bind", "127.0.0.1", "--port", str(port)])
    with closing(client_of(port)) as client:
        server.wait_ready(lambda: answers(client), timeout_s=20)
    return port, server


def client_of(port):
    """A plain client of one server."""
    return redis.Redis(port=port, socket_timeout=1, socket_connect_timeout=1, decode_responses=True)


def answers(client):
    """Whether the server is there."""
    with suppress(redis.RedisError):
        return client.ping()
    return False


def patiently(act):
    """As the loop does where the store does not answer for now: the same again."""
    deadline_s = time.monotonic() + _WAIT_S
    while True:
        try:
            return act()
        except StoreUnavailable:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)


class Owner:
    """A worker of one partition with this store, from its claim on."""

    def __init__(self, settings, name):
        self._client = connect_redis(settings)
        self._store = RedisStore(self._client, settings, name)
        restored = patiently(lambda: self._store.claim(SOURCE))
        self._worker = Worker(Store(restored.watermark or 0, restored.time or StreamTime(), dict(restored.states)))
        self.watermark = self._worker.store.watermark

    def read(self, records):
        """Read these, and commit what they lead to; returns who was fenced."""
        self._worker.read([record for record in records if record.position.offset >= self.watermark])
        self._worker.answer()
        commit = self._worker.partition.collect(STAMPS, 0.0)
        return patiently(lambda: self._commit(commit))

    def _commit(self, commit):
        committed = self._store.commit([commit])
        if committed.failure:
            raise committed.failure
        if not committed.fenced:
            self._worker.partition.confirm(commit)
        return committed.fenced

    def close(self):
        """It is gone."""
        self._client.close()


def told(settings):
    """What a dashboard reads of the call."""
    with Dashboard(redis_address(settings), settings.prefix) as dashboard:
        return [(said.number, said.utterance_id) for said in dashboard.utterances("call-1")]


def expected(records):
    """What an uninterrupted worker says."""
    return [(said["number"], said["utterance_id"]) for said in Worker().read(records).commit().of()]


def test_a_failover_by_sentinels_is_survived(nursery, records):
    """The master is killed in the middle of a call: the worker goes on at the new one, and nothing is missing."""
    master, server = start(nursery, "master", "--save", "")
    replica, _ = start(nursery, "replica", "--save", "", "--replicaof", "127.0.0.1", str(master))
    config = nursery.directory / "sentinel.conf"
    config.write_text(
        f"sentinel monitor calls 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds calls 1000\n"
        "sentinel failover-timeout calls 5000\n"
    )
    sentinel, _ = start(nursery, "sentinel", str(config), "--sentinel")
    with closing(client_of(replica)) as client, closing(client_of(sentinel)) as watcher:
        patiently_true(lambda: client.info("replication")["master_link_status"] == "up")
        patiently_true(lambda: len(watcher.sentinel_slaves("calls")) == 1)
    settings = RedisSettings(sentinels=f"127.0.0.1:{sentinel}", sentinel_master="calls", timeout_s=0.5)

    half = len(records) // 2
    owner = Owner(settings, "first")
    assert owner.read(records[:half]) == ()
    with closing(client_of(master)) as client:
        client.wait(1, 5_000)  # what is not copied is lost; that case is a test of its own
    server.process.kill()
    assert owner.read(records[half:]) == ()
    owner.close()

    assert told(settings) == expected(records)
    with closing(client_of(replica)) as client:
        assert client.role()[0] == "master"


def test_a_cluster_may_move_our_keys_to_another_node(nursery, records):
    """All keys share a slot; it moves to the other node in the middle of a call, and the worker follows."""
    buses = [free_port(), free_port()]  # by default 10,000 above the port, where another process may listen
    options = ["--cluster-enabled", "yes", "--save", "", "--cluster-port"]
    nodes = [start(nursery, f"node-{n}", *options, str(bus)) for n, bus in enumerate(buses)]
    (one, _), (other, _) = nodes
    with closing(client_of(one)) as first, closing(client_of(other)) as second:
        first.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        first.execute_command("CLUSTER MEET", "127.0.0.1", other, buses[1])
        patiently_true(lambda: len(second.execute_command("CLUSTER NODES")) == 2)
        patiently_true(lambda: first.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        patiently_true(lambda: second.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        settings = RedisSettings(url=f"redis://127.0.0.1:{one}", cluster=True)

        half = len(records) // 2
        owner = Owner(settings, "first")
        assert owner.read(records[:half]) == ()
        slot = first.execute_command("CLUSTER KEYSLOT", Keys(settings.prefix).tag)
        move(slot, first, second)
        assert owner.read(records[half:]) == ()
        owner.close()
        assert second.dbsize() > 0
        assert first.dbsize() == 0
    assert told(settings) == expected(records)
    successor = Owner(settings, "second")
    assert successor.watermark == len(records)
    successor.close()


def patiently_true(is_true):
    """Wait for servers to agree."""
    deadline_s = time.monotonic() + _WAIT_S
    while not is_true():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def move(slot, source, target):
    """Move a slot with all of its keys, as a cluster manager does."""
    ids = {client: client.execute_command("CLUSTER MYID") for client in (source, target)}
    target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
    source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
    port = target.connection_pool.connection_kwargs["port"]
    for key in source.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000):
        source.execute_command("MIGRATE", "127.0.0.1", port, key, 0, 5000)
    for client in (target, source):
        client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])


def test_check_names_a_server_that_evicts(nursery, monkeypatch, capsys):
    """`callmood check` refuses a server that deletes keys when it is full, and accepts it once it does not."""
    port, _ = start(nursery, "evicts", "--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru")
    monkeypatch.setenv("CALLMOOD_REDIS__URL", f"redis://127.0.0.1:{port}/0")
    assert main(["check", "redis"]) == 2
    said = capsys.readouterr().out
    assert "volatile-lru" in said
    assert "noeviction" in said
    with closing(client_of(port)) as client:
        client.config_set("maxmemory-policy", "noeviction")
    assert main(["check", "redis"]) == 0
