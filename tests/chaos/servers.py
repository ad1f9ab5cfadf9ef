"""The servers of a chaos run: three Kafka nodes; a Redis primary, its replica, three Sentinels; proxies."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Self

import redis
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.local.apache import ApacheKafka
from deploy.local.nursery import Nursery, Server, free_port
from deploy.local.redis_server import find_server
from tests.chaos.confidential import PASSWORD, USER
from tests.chaos.config import KINDS, Run
from tests.chaos.proxy import Proxies, Proxy

MASTER = "calls"
_COMPACTED = {"call", "state"}
_SENTINELS = 3
_QUORUM = 2
_WAIT_S = 240.0  # a busy machine is no failure


def wait_until(is_true: Callable[[], object], what: str, *, timeout_s: float = _WAIT_S) -> None:
    """Wait for a condition; too long is a failure of the run."""
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.1)


class Kafka:
    """Three nodes; clients reach each through its proxy."""

    def __init__(self, nursery: Nursery, proxies: Proxies) -> None:
        self.proxies: list[Proxy] = []
        self._make_proxy = lambda port: proxies.open(port, speaks_kafka=True)
        self._cluster = ApacheKafka(nursery, size=3, in_front=self._in_front)
        self.bootstrap_servers = self._cluster.bootstrap_servers
        self._cluster.wait_ready()
        wait_until(self._is_whole, "three brokers")

    def _in_front(self, port: int) -> int:
        self.proxies.append(self._make_proxy(port))
        return self.proxies[-1].port

    def admin(self) -> KafkaAdminClient:
        """A client for what only an operator does."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap_servers.split(","), request_timeout_ms=10_000)

    def _is_whole(self) -> bool:
        with suppress(KafkaError), closing(self.admin()) as admin:
            return len(admin.describe_cluster()["brokers"]) == len(self.proxies)
        return False

    def create_topics(self, run: Run) -> None:
        """The topics of a run."""
        topics = {
            run.topic(kind): {
                "num_partitions": 1 if kind == "dead_letter" else run.partitions,
                "replication_factor": 3,
                "configs": {"cleanup.policy": "compact"} if kind in _COMPACTED else {},
            }
            for kind in KINDS
        }
        with closing(self.admin()) as admin:
            admin.create_topics(topics)
            admin.wait_for_topics(list(topics))

    def kill(self, number: int) -> None:
        """One node dies by SIGKILL."""
        self._cluster.servers[number].process.kill()

    def restart(self, number: int) -> None:
        """It comes back, with what its disk holds; returns when all partitions are whole again."""
        self._cluster.restart(number)
        self._cluster.wait_ready()
        wait_until(self._is_in_sync, "all replicas to be in sync")

    def freeze(self, number: int, seconds: float) -> None:
        """One node stands still; returns when all partitions are whole again."""
        pid = self._cluster.servers[number].pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)
        wait_until(self._is_in_sync, "all replicas to be in sync")

    def _is_in_sync(self) -> bool:
        with suppress(KafkaError), closing(self.admin()) as admin:
            if len(admin.describe_cluster()["brokers"]) < len(self.proxies):
                return False
            partitions = [p for topic in admin.describe_topics() for p in topic["partitions"]]
            return all(len(p["isr_nodes"]) == len(p["replica_nodes"]) for p in partitions)
        return False

    def leader(self, topic: str, partition: int) -> int | None:
        """Which node (from 0) leads a partition; None while nobody says so."""
        with suppress(KafkaError), closing(self.admin()) as admin:
            (described,) = admin.describe_topics([topic])
            leaders = {p["partition_index"]: p["leader_id"] for p in described["partitions"]}
            leader = int(leaders.get(partition, -1))
            return leader - 1 if leader > 0 else None
        return None


class RedisPair:
    """A primary and a replica that three Sentinels watch; both may be started again from an old snapshot."""

    def __init__(self, nursery: Nursery, proxies: Proxies) -> None:
        self._nursery = nursery
        self._ports = [free_port(), free_port()]
        self.proxies = [proxies.open(port) for port in self._ports]
        self._servers: list[Server] = []
        for number in range(2):
            self._servers.append(self._start(number, replica_of=number and self.proxies[0].port))
        self._sentinel_ports = [free_port() for _ in range(_SENTINELS)]
        self.sentinels = tuple(f"127.0.0.1:{port}" for port in self._sentinel_ports)
        for number in range(_SENTINELS):
            self._configure_sentinel(number)
        self._sentinels = [self._start_sentinel(number) for number in range(_SENTINELS)]
        wait_until(self.is_whole, "redis and its replica")

    def _start(self, number: int, *, replica_of: int = 0) -> Server:
        port, name = self._ports[number], f"redis-{number}"
        announced = str(self.proxies[number].port)
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--repl-diskless-sync-delay", "0"]
        options += ["--replica-announce-ip", "127.0.0.1", "--replica-announce-port", announced]
        options += ["--replicaof", "127.0.0.1", str(replica_of)] if replica_of else []
        options += ["--enable-debug-command", "local", "--user", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all"]
        server = self._nursery.start(name, [find_server("valkey"), *options])
        server.wait_ready(lambda: self._answers(port), timeout_s=_WAIT_S)
        return server

    def _configure_sentinel(self, number: int) -> None:
        """Its file is its memory: it writes there what it has learnt."""
        (self._nursery.directory / f"sentinel-{number}.conf").write_text(
            f"sentinel monitor {MASTER} 127.0.0.1 {self.proxies[0].port} {_QUORUM}\n"
            f"sentinel down-after-milliseconds {MASTER} 1500\n"
            f"sentinel failover-timeout {MASTER} 6000\n"
        )

    def _start_sentinel(self, number: int) -> Server:
        name, port = f"sentinel-{number}", self._sentinel_ports[number]
        config = self._nursery.directory / f"{name}.conf"
        options = ["--sentinel", "--bind", "127.0.0.1", "--port", str(port)]
        server = self._nursery.start(name, [find_server("valkey"), str(config), *options])
        server.wait_ready(lambda: self._answers(port), timeout_s=_WAIT_S)
        return server

    def kill_sentinel(self, number: int, seconds: float) -> None:
        """One Sentinel is away for a while; the other two are enough."""
        self._sentinels[number].process.kill()
        self._sentinels[number].process.wait()
        time.sleep(seconds)
        self._sentinels[number] = self._start_sentinel(number)
        wait_until(self.is_whole, "the Sentinels to agree")

    @staticmethod
    def client(port: int) -> redis.Redis:
        """A client of one server, past the proxies."""
        return redis.Redis(port=port, socket_timeout=2, socket_connect_timeout=2, decode_responses=True)

    def _answers(self, port: int) -> bool:
        with suppress(redis.RedisError), closing(self.client(port)) as client:
            return bool(client.ping())
        return False

    def primary(self, sentinel: int = 0) -> int:
        """Which of the two a Sentinel takes for the primary."""
        with closing(self.client(self._sentinel_ports[sentinel])) as client:
            _, port = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", MASTER)
        return [proxy.port for proxy in self.proxies].index(int(port))

    def _is_deposed(self, old: int) -> bool:
        with suppress(redis.RedisError):
            return self.primary() != old
        return False

    def is_whole(self) -> bool:
        """Whether all Sentinels take the same one for the primary, it is one, and the replica follows it."""
        with suppress(redis.RedisError):
            primary = self.primary()
            if any(self.primary(other) != primary for other in range(1, _SENTINELS)):
                return False
            roles = []
            for port in (self._ports[primary], self._ports[1 - primary]):
                with closing(self.client(port)) as client:
                    roles.append(client.info("replication"))
            return roles[0]["role"] == "master" and roles[1].get("master_link_status") == "up"
        return False

    def snapshot(self) -> None:
        """Both write down what they hold: the past from which they may come back."""
        for port in self._ports:
            with suppress(redis.RedisError), closing(self.client(port)) as client:
                client.save()

    def fail_over(self) -> None:
        """The primary is killed; the replica is promoted, and the old primary comes back as its replica."""
        old = self.primary()
        self._servers[old].process.kill()
        wait_until(lambda: self._is_deposed(old), "the Sentinels to promote the replica")
        new = self.proxies[1 - old].port
        self._servers[old].process.wait()
        self._servers[old] = self._start(old, replica_of=new)
        wait_until(self.is_whole, "the old primary to follow")

    def depose(self) -> None:
        """The Sentinels promote the replica, and the old primary learns of it later: what it took meanwhile is lost."""
        old = self.primary()
        with closing(self.client(self._sentinel_ports[0])) as client:
            client.execute_command("SENTINEL FAILOVER", MASTER)
        wait_until(lambda: self._is_deposed(old), "the Sentinels to promote the replica")
        wait_until(self.is_whole, "the old primary to follow")

    def isolate(self) -> None:
        """Nothing reaches the primary or leaves it until the replica is promoted."""
        old = self.primary()
        self.proxies[old].swallow(on=True)
        try:
            wait_until(lambda: self._is_deposed(old), "the Sentinels to promote the replica")
        finally:
            self.proxies[old].swallow(on=False)
        wait_until(self.is_whole, "the old primary to follow")

    def fall_back(self) -> None:
        """Both are killed; the primary comes back from its newest snapshot: what was acknowledged since is lost."""
        primary = self.primary()
        for server in self._servers:
            server.process.kill()
            server.process.wait()
        snapshots = [self._nursery.directory / f"redis-{number}" / "dump.rdb" for number in range(2)]
        if not snapshots[primary].exists() and snapshots[1 - primary].exists():
            shutil.copy(snapshots[1 - primary], snapshots[primary])
        self._servers[primary] = self._start(primary)
        self._servers[1 - primary] = self._start(1 - primary, replica_of=self.proxies[primary].port)
        wait_until(self.is_whole, "both to be back")

    def sleep(self, seconds: float) -> None:
        """The primary stands still: clients run into their time limits, the Sentinel does not act yet."""
        pid = self._servers[self.primary()].pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)


class Servers:
    """All of them; nothing is left when the block ends."""

    def __init__(self) -> None:
        self._nursery = Nursery()
        self._proxies = Proxies()
        self.folder = self._nursery.directory
        try:
            self.kafka = Kafka(self._nursery, self._proxies)
            self.redis = RedisPair(self._nursery, self._proxies)
        except BaseException:  # also Ctrl-C: what has started must not stay
            self.close()
            raise

    def close(self) -> None:
        """Stop everything."""
        self._nursery.close()
        self._proxies.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
