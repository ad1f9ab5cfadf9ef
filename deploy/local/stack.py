"""`LocalStack`: a Kafka and a Redis, started here unless the environment names a server."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Literal, Protocol, Self

from kafka import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError

from callmood.worker.server_settings import KafkaSettings
from deploy.local.apache import ApacheKafka
from deploy.local.errors import NotInstalled, PortTaken
from deploy.local.nursery import Nursery, Server
from deploy.local.redis_server import RedisKind, RedisServer
from deploy.local.tansu import Tansu

KafkaChoice = Literal["auto", "apache", "tansu"]
RedisChoice = Literal["auto", "redis-server", "valkey"]

KAFKA_ADDRESS = "CALLMOOD_KAFKA__BOOTSTRAP_SERVERS"
REDIS_ADDRESS = "CALLMOOD_REDIS__URL"
_STANDARD_TOPICS = {"audio_topic": 4, "dead_letter_topic": 1}
_ATTEMPTS = 3
_ADMIN_MS = 30_000


class Broker(Protocol):
    """A way to start Kafka. The stack checks that it answers."""

    kind: str
    limits: tuple[str, ...]
    bootstrap_servers: str
    servers: list[Server]

    def wait_ready(self) -> None:
        """Return once the started processes listen."""


class LocalStack:
    """Context manager: on entry both servers answer; on exit, or when this process dies, they and their files are gone.

    An address in `environment` (default: the process's own) always wins over starting a server, and over `kafka` and
    `redis`; nothing is created on such a server unless `create_topic` is called. The servers that are started listen on
    127.0.0.1 only, on free ports. `say` takes each line meant for a person.

    After entry: `bootstrap_servers`, `redis_url`, `kafka_kind` ("apache", "tansu" or "outside") and `redis_kind`
    ("redis-server", "valkey" or "outside").

    Raises:
        StackError: on entry; the message says what to install or set.
    """

    def __init__(
        self,
        *,
        kafka: KafkaChoice = "auto",
        redis: RedisChoice = "auto",
        environment: Mapping[str, str] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._kafka_choice = kafka
        self._redis_choice = redis
        self._environment = os.environ if environment is None else environment
        self._say = say or _to_stderr
        self._exit = ExitStack()
        self.bootstrap_servers = self._environment.get(KAFKA_ADDRESS, "")
        self.kafka_kind = "outside" if self.bootstrap_servers else ""
        self.redis_url = self._environment.get(REDIS_ADDRESS, "")
        self.redis_kind = "outside" if self.redis_url else ""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            nursery = undo.enter_context(Nursery())
            redis = None if self.redis_url else self._start_redis(nursery)
            broker = None if self.bootstrap_servers else self._start_kafka(nursery)  # both come up at the same time
            if redis is not None:
                redis.wait_ready()
                self.redis_url, self.redis_kind = redis.url, redis.kind
            if broker is not None:
                self.bootstrap_servers, self.kafka_kind = broker.bootstrap_servers, broker.kind
                for setting, partitions in _STANDARD_TOPICS.items():
                    self.create_topic(self._topic(setting), partitions)
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def environment(self) -> dict[str, str]:
        """The variables that point a worker at this stack."""
        return {KAFKA_ADDRESS: self.bootstrap_servers, REDIS_ADDRESS: self.redis_url}

    def create_topic(self, name: str, partitions: int = 4, config: Mapping[str, str] | None = None) -> None:
        """Create a topic and return once each partition has a leader. An existing topic stays as it is."""
        options = {"num_partitions": partitions, "replication_factor": -1, "configs": dict(config or {})}
        with self._admin() as admin:
            try:
                admin.create_topics({name: options}, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                admin.wait_for_topics([name])

    def delete_topic(self, name: str) -> None:
        """Delete a topic."""
        with self._admin() as admin:
            admin.delete_topics([name])

    def _admin(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, bootstrap_timeout_ms=_ADMIN_MS)

    def _topic(self, setting: str) -> str:
        default: str = KafkaSettings.model_fields[setting].default
        return self._environment.get(f"CALLMOOD_KAFKA__{setting.upper()}", default)

    def _start_redis(self, nursery: Nursery) -> RedisServer:
        kinds: tuple[RedisKind, ...] = (
            ("redis-server", "valkey") if self._redis_choice == "auto" else (self._redis_choice,)
        )
        reasons = []
        for kind in kinds:
            try:
                return RedisServer(nursery, kind)
            except NotInstalled as error:
                reasons.append(str(error))
        raise NotInstalled(f"{'; '.join(reasons)}; or set {REDIS_ADDRESS}")

    def _start_kafka(self, nursery: Nursery) -> Broker:
        if self._kafka_choice == "tansu":
            return self._started(lambda: Tansu(nursery), nursery)
        try:
            return self._started(lambda: ApacheKafka(nursery), nursery)
        except NotInstalled as error:
            advice = f"{error}, or set {KAFKA_ADDRESS}"
            if self._kafka_choice == "apache":
                raise NotInstalled(advice) from error
        broker = self._started(lambda: Tansu(nursery), nursery)
        self._say(f"{advice}. Until then an embedded broker stands in for Kafka, with these limits:")
        for limit in broker.limits:
            self._say(f"  - {limit}")
        return broker

    @staticmethod
    def _started(start: Callable[[], Broker], nursery: Nursery) -> Broker:
        """Start a broker and wait until it listens; if a chosen port was taken meanwhile, choose again."""
        for attempt in range(_ATTEMPTS):
            broker = start()
            try:
                broker.wait_ready()
            except PortTaken:
                for server in broker.servers:
                    nursery.discard(server)
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return broker
        raise AssertionError("unreachable")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
