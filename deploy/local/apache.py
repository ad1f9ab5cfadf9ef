"""Apache Kafka in KRaft mode: every node is broker and controller, all on 127.0.0.1."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.java import cache_folder, cached, find_java, kafka_jars
from deploy.local.nursery import Nursery, Server, free_port, listens

_START_S = 180.0
_LOG4J = Path(__file__).with_name("log4j2.properties")
_CLUSTER_ID = "Y2FsbG1vb2QtbG9jYWwtMQ"  # any 16 bytes in base64; the formatted folders are cached, so it is fixed
_ARCHIVE = "classes.jsa"
_TAIL = 1000
_JVM = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",  # starts faster than G1, and a small heap needs no more
    "-XX:TieredStopAtLevel=1",  # start-up time counts here, peak speed does not
    "-XX:-UsePerfData",  # its files in the temporary folder outlive a killed process
    "-Djava.awt.headless=true",
)

# For tests and developers: fast group joins, fast clean-up of transactions, no deletion, no topics by typing errors.
_SETTINGS = {
    "num.partitions": "4",
    "auto.create.topics.enable": "false",
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "log.retention.ms": "-1",
    "offsets.topic.num.partitions": "2",
    "transaction.state.log.num.partitions": "2",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


@dataclass(frozen=True)
class Node:
    """One node: its id and ports. Clients connect to `advertised_port`, which can be a proxy's."""

    id: int
    port: int
    controller_port: int
    advertised_port: int
    internal_port: int
    """The address at which other brokers connect."""


def properties(node: Node, nodes: Sequence[Node], data: Path) -> Mapping[str, str]:
    """The node's `server.properties`.

    Voters are static, so that formatting (which runs once and is cached) depends on no port.
    """
    copies = str(min(3, len(nodes)))
    in_sync = "2" if len(nodes) > 2 else "1"  # noqa: PLR2004 - with three copies one may be down
    listeners = {"PLAINTEXT": node.port, "CONTROLLER": node.controller_port, "INTERNAL": node.internal_port}
    advertised = {"PLAINTEXT": node.advertised_port, "INTERNAL": node.internal_port}
    return _SETTINGS | {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(f"{n.id}@127.0.0.1:{n.controller_port}" for n in nodes),
        "listeners": _listeners(listeners),
        "advertised.listeners": _listeners(advertised),
        "inter.broker.listener.name": "INTERNAL",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT",
        "log.dirs": str(data),
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def _listeners(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def archive_classes() -> None:
    """Start and stop a node once, and keep its loaded classes in the cache (Java's AppCDS).

    A node's start then takes half the CPU time. Java passes over an archive that is missing or does not fit.

    Raises:
        StackError: the node does not start, or ends without an archive.
    """
    folder = _archive(find_java()).parent
    with cached(folder.name) as (_, filling):
        if filling is None:
            return
        made = filling / _ARCHIVE
        with Nursery() as nursery:
            kafka = ApacheKafka(nursery, options=(f"-XX:ArchiveClassesAtExit={made}",))
            kafka.wait_ready()
            node = kafka.servers[0]
            node.process.terminate()
            node.process.wait(_START_S)
            if not made.exists():
                raise StackError(f"Java keeps no class archive:\n{node.log.read_text(errors='replace')[-_TAIL:]}")


def _archive(java: str) -> Path:
    recipe = hashlib.sha256(f"{Path(java).resolve()} {kafka_jars()}".encode()).hexdigest()[:12]
    return cache_folder() / f"kafka-classes-{recipe}" / _ARCHIVE


class ApacheKafka:
    """A cluster of `size` nodes.

    Args:
        nursery: where the servers live.
        size: number of nodes.
        in_front: makes what stands between clients and a node's port, and returns the port that clients are told.
        options: more options of Java; none: it reads the class archive, where there is one.

    Raises:
        StackError: it does not start; `NotInstalled` when Java or Maven is missing.
    """

    kind = "apache"
    limits: tuple[str, ...] = ()

    def __init__(
        self,
        nursery: Nursery,
        *,
        size: int = 1,
        in_front: Callable[[int], int] = lambda port: port,
        options: Sequence[str] = (),
    ) -> None:
        java = find_java()
        self._nursery = nursery
        options = options or (f"-XX:SharedArchiveFile={_archive(java)}",)
        self._java = (java, *_JVM, *options, f"-Dlog4j2.configurationFile={_LOG4J}", "-cp", f"{kafka_jars()}/*")
        ports = [free_port() for _ in range(size)]
        self._nodes = [
            Node(number, port, free_port(), in_front(port), free_port()) for number, port in enumerate(ports, start=1)
        ]
        for node in self._nodes:
            self._format(node)
        self.servers: list[Server] = [self._start(node) for node in self._nodes]
        self.bootstrap_servers = ",".join(f"127.0.0.1:{node.advertised_port}" for node in self._nodes)

    def wait_ready(self) -> None:
        """Return once every node listens on its own port. The caller checks that the cluster answers."""
        for node, server in zip(self._nodes, self.servers, strict=True):
            server.wait_ready(partial(listens, server.pid, node.port), timeout_s=_START_S)

    def restart(self, number: int) -> None:
        """Start an ended node again with its data and ports; `number` counts from 0. It is not ready on return."""
        self.servers[number].process.wait()
        self.servers[number] = self._start(self._nodes[number])

    def _format(self, node: Node) -> None:
        home = self._nursery.directory / f"kafka-{node.id}"
        home.mkdir(exist_ok=True)
        lines = [f"{key}={value}\n" for key, value in properties(node, self._nodes, home / "data").items()]
        (home / "server.properties").write_text("".join(lines))
        shutil.copytree(self._formatted(node.id), home / "data", dirs_exist_ok=True)

    def _start(self, node: Node) -> Server:
        name = f"kafka-{node.id}"
        config = self._nursery.directory / name / "server.properties"
        return self._nursery.start(name, [*self._java, "kafka.Kafka", str(config)])

    def _formatted(self, node_id: int) -> Path:
        """A formatted, empty data folder. The first call starts a JVM; later calls copy the cached folder."""
        recipe = hashlib.sha256(f"{self._java[-1]} {_CLUSTER_ID} {node_id}".encode()).hexdigest()[:12]
        with cached(f"kafka-formatted-{recipe}") as (data, filling):
            if filling is not None:
                node = Node(node_id, 1, 2, 1, 3)  # no port reaches the formatted files
                config = filling.with_name("format.properties")
                lines = [f"{key}={value}\n" for key, value in properties(node, [node], filling).items()]
                config.write_text("".join(lines))
                command = [*self._java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(config)]
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_START_S)
                if done.returncode != 0:
                    raise StackError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")
        return data
