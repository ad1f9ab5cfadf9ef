"""What may go wrong: each fault does one thing to a running scene, and takes as long as it takes."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from kafka.errors import KafkaError

from tests.chaos.armed import POINTS
from tests.chaos.config import Run
from tests.chaos.fleet import SESSION_S, Fleet
from tests.chaos.proxy import BAD_MOMENTS
from tests.chaos.servers import Servers

_REACHED_S = 6.0


@dataclass
class Scene:
    """Everything that faults may touch, and the tally of what they did."""

    run: Run
    servers: Servers
    fleet: Fleet
    random: Random
    tally: Counter[str] = field(default_factory=Counter)

    def note(self, what: str) -> None:
        """It has happened."""
        self.tally[what] += 1

    @property
    def kills(self) -> int:
        """Processes, trees or servers that have met SIGKILL."""
        return sum(count for what, count in self.tally.items() if what.startswith("kill"))


Fault = Callable[[Scene], None]


def _victim(scene: Scene) -> int:
    return scene.random.choice(scene.fleet.numbers)


def kill_worker(scene: Scene) -> None:
    """A whole worker, as if its machine had lost power."""
    if scene.fleet.kill(_victim(scene)):
        scene.note("kill worker")


def kill_ingest(scene: Scene) -> None:
    """One ingest process."""
    if scene.fleet.kill(_victim(scene), f"ingest-{scene.random.randrange(2)}"):
        scene.note("kill ingest")


def kill_inference(scene: Scene) -> None:
    """The inference process."""
    if scene.fleet.kill(_victim(scene), "inference"):
        scene.note("kill inference")


def kill_supervisor(scene: Scene) -> None:
    """The supervisor alone: its orphans must not go on."""
    if scene.fleet.kill(_victim(scene), "supervisor"):
        scene.note("kill supervisor")


def kill_projector(scene: Scene) -> None:
    """The projector."""
    if scene.run.mode == "both" and scene.fleet.kill(_victim(scene), "projector"):
        scene.note("kill projector")


def kill_at_point(scene: Scene) -> None:
    """Whoever reaches a point of the commit next; each point has its turn."""
    points = [name for name, modes in POINTS.items() if scene.run.mode in modes.split()]
    name = min(points, key=lambda point: (scene.tally[f"kill at {point}"], scene.random.random()))
    path = scene.fleet.points / name
    path.touch()
    deadline_s = time.monotonic() + _REACHED_S
    while path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    try:
        path.unlink()
    except FileNotFoundError:
        scene.note(f"kill at {name}")


def freeze_worker(scene: Scene) -> None:
    """A worker stands still until its partitions are another's, and wakes up."""
    if scene.fleet.freeze(_victim(scene), SESSION_S + scene.random.uniform(1, 4)):
        scene.note("zombie")


def terminate_worker(scene: Scene) -> None:
    """SIGTERM, as for an update."""
    scene.fleet.terminate(_victim(scene))
    scene.note("SIGTERM")


def storm(scene: Scene) -> None:
    """A third worker comes and goes."""
    number = max(scene.fleet.numbers) + 1
    scene.fleet.start(number)
    time.sleep(scene.random.uniform(4, 9))
    scene.fleet.terminate(number, for_good=True)
    scene.note("rebalance storm")


def kill_broker(scene: Scene) -> None:
    """The leader of a partition, or the coordinator of the group or of the transactions; it comes back later."""
    topic = scene.random.choice(
        [*map(scene.run.topic, ("audio", "utterance")), "__consumer_offsets", "__transaction_state"]
    )
    kafka = scene.servers.kafka
    victim = kafka.leader(topic, scene.random.randrange(2))
    if victim is None:
        return
    kafka.kill(victim)
    scene.note("kill broker")
    time.sleep(scene.random.uniform(2, 9))
    kafka.restart(victim)


def fail_over_redis(scene: Scene) -> None:
    """The primary dies, the replica takes over."""
    scene.servers.redis.fail_over()
    scene.note("kill redis primary, replica promoted")


def old_redis(scene: Scene) -> None:
    """Both die, and what comes back is a while old."""
    scene.servers.redis.snapshot()
    time.sleep(scene.random.uniform(1, 6))
    scene.servers.redis.fall_back()
    scene.note("kill both redis, back from an old snapshot")


def slow_redis(scene: Scene) -> None:
    """The primary does not answer for longer than clients wait."""
    scene.servers.redis.sleep(scene.random.uniform(1.1, 1.4))
    scene.note("redis stands still")


def cut_redis(scene: Scene) -> None:
    """Every connection to Redis is reset, perhaps again and again."""
    for _ in range(scene.random.randrange(1, 8)):
        for proxy in scene.servers.redis.proxies:
            proxy.cut()
        time.sleep(scene.random.uniform(0, 0.4))
    scene.note("redis connections cut")


def cut_at_bad_moment(scene: Scene) -> None:
    """A request of a chosen kind reaches Kafka, and its answer never comes."""
    name = scene.random.choice(list(BAD_MOMENTS))
    proxies = scene.servers.kafka.proxies
    before = sum(proxy.cuts for proxy in proxies)
    for proxy in proxies:
        proxy.cut_after(BAD_MOMENTS[name])
    time.sleep(2.0)
    if sum(proxy.cuts for proxy in proxies) > before:
        scene.note(f"kafka cut after {name}")


def cut_kafka(scene: Scene) -> None:
    """A broker is out of reach for a while: resets, or silence."""
    proxy = scene.random.choice(scene.servers.kafka.proxies)
    if scene.random.random() < 0.5:
        proxy.cut()
        scene.note("kafka connections cut")
        return
    proxy.swallow(on=True)
    time.sleep(scene.random.uniform(1, 8))
    proxy.swallow(on=False)
    proxy.cut()  # what was swallowed is gone; a real network would have ended these connections too
    scene.note("kafka out of reach")


PROCESSES: tuple[Fault, ...] = (
    kill_at_point, kill_at_point, kill_at_point, kill_ingest, kill_ingest, kill_worker, kill_worker, kill_inference,
    kill_supervisor, kill_projector, freeze_worker, terminate_worker, storm,
)  # fmt: skip
KAFKA: tuple[Fault, ...] = (kill_broker, kill_broker, cut_kafka, cut_at_bad_moment, cut_at_bad_moment)
REDIS: tuple[Fault, ...] = (fail_over_redis, fail_over_redis, old_redis, slow_redis, cut_redis)


def inflict(fault: Fault, scene: Scene) -> None:
    """Let it happen; a fault that meets another one's mess has not happened."""
    with suppress(KafkaError):
        fault(scene)
