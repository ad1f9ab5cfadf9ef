"""One process of a worker from its start to its end, made of the real loops and stores."""

from callmood.worker.adapters.publish_kafka import Clients, KafkaStore
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.adapters.store import Store
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.run.ingest import Ingest
from callmood.worker.run.outside import Outside
from callmood.worker.run.projector import Projector
from tests.simulation.kafka_side import SimConsumer, SimDeadLetters
from tests.simulation.model_side import SimInference
from tests.simulation.redis_side import Client
from tests.simulation.transactions import SimProducer, SimReader


class Killed(BaseException):
    """SIGKILL: no handler runs, nobody leaves the group."""


class _Process:
    """What the world knows of every process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_busy = False
        self.is_killed = False
        self.is_asked_to_stop = False
        self.silent_since_s: float | None = None


class Life(_Process):
    """An ingest process; `slot` is its place, which its successor takes."""

    def __init__(self, world, name: str, *, slot: int) -> None:
        super().__init__(name)
        self.inference = SimInference(world, self)
        self._world = world
        self.consumer = SimConsumer(world, self, world.group)
        outside = Outside(self.consumer, self._store(slot), self.inference, SimDeadLetters(world, self))
        self.loop = Ingest(outside, world.settings, DEFAULT_RULES, world.clock, world.monotonic, world.sleep)

    def _store(self, slot: int) -> Store:
        world, settings = self._world, self._world.settings
        if settings.worker.output == "redis":
            return RedisStore(Client(world, self), settings.redis, self.name, self.consumer.origin)
        readers = (SimReader(world, self, sees_open=sees_open) for sees_open in (False, True))
        clients = Clients(SimProducer(world, self, f"slot-{slot}"), *readers)
        return KafkaStore(self.consumer, clients, settings.kafka, world.monotonic)

    def drain(self, deadline_s: float) -> bool:
        """SIGTERM."""
        return self.loop.drain(deadline_s)


class ProjectorLife(_Process):
    """A projecting process."""

    def __init__(self, world, name: str, *, slot: int) -> None:
        super().__init__(f"{name}-projector-{slot}")
        self.consumer = SimConsumer(world, self, world.projector_group)
        store = RedisStore(Client(world, self), world.settings.redis, self.name, self.consumer.origin)
        letters, clocks = SimDeadLetters(world, self), (world.clock, world.monotonic)
        self.loop = Projector(self.consumer, store, letters, world.settings.kafka, *clocks)

    def drain(self, _: float) -> bool:
        """SIGTERM: nothing is in flight."""
        return True
