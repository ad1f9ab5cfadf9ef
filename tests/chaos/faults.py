"""The faults of a chaos run: each does one thing to the running servers and workers, and returns when it is done."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from kafka.errors import KafkaError
from redis import RedisError

from tests.chaos.fleet import SESSION_S
from tests.chaos.proxy import BAD_MOMENTS, SCRIPT, Proxy, Trap
from tests.chaos.scene import Fault, Scene

_SPRUNG_S = 6.0
_WHOLE = 0.2  # of the kills at a point take the supervisor too
_SOON_S = 1.0
_SHARED_S = 30.0
_MOST_ARMED = 5
_IN_TRANSACTIONS = {"AddOffsetsToTxn", "EndTxn", "TxnOffsetCommit"}


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
    """Kill the next process that reaches a point, each in turn. A point that no process reaches stays armed."""
    scene.collect_armed()
    free = [point for point in scene.points if point not in scene.armed | scene.freezing]
    if not free or len(scene.armed) >= _MOST_ARMED:
        return
    name = scene.next_of("kill at", free)
    path = scene.arm(name, "worker" if scene.random.random() < _WHOLE else "")
    scene.armed.add(name)
    if name == "in_revoked":  # a process that comes back finds its partitions free; a new one takes them from others
        _share(scene, path)
    deadline_s = time.monotonic() + _SOON_S
    while path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    scene.collect_armed()


def freeze_worker(scene: Scene) -> None:
    """A worker stands still until its partitions are another's, and wakes up."""
    if scene.fleet.freeze(_victim(scene), SESSION_S + scene.random.uniform(1, 4)):
        scene.note("zombie")


def freeze_at_point(scene: Scene) -> None:
    """Stop the next process that reaches a point until another owns its partitions, then lets it continue."""
    free = [point for point in scene.points if point not in {*scene.armed, "during_commit"}]
    name = scene.next_of("zombie at", free)
    scene.freezing.add(name)
    scene.arm(name, "freeze")
    deadline_s = time.monotonic() + _SPRUNG_S
    while not (frozen := list(scene.fleet.points.glob(f"{name}.hit.*"))) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    scene.disarm(name)
    scene.freezing.discard(name)
    for hit in frozen:
        time.sleep(SESSION_S + scene.random.uniform(1, 4))
        with suppress(ProcessLookupError):  # somebody was faster
            os.kill(int(hit.suffix[1:]), signal.SIGCONT)
        scene.note(f"zombie at {name}")


def terminate_worker(scene: Scene) -> None:
    """SIGTERM, as for an update."""
    scene.fleet.terminate(_victim(scene))
    scene.note("SIGTERM")


def _share(scene: Scene, path: Path) -> None:
    """A third worker comes, until a process has died because of the partitions that it gives away."""
    number = max(scene.fleet.numbers) + 1
    scene.fleet.start(number)
    deadline_s = time.monotonic() + _SHARED_S
    while path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    scene.fleet.terminate(number, for_good=True)


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


def freeze_broker(scene: Scene) -> None:
    """A broker stands still, perhaps until its partitions have other leaders, and wakes up."""
    scene.servers.kafka.freeze(scene.random.randrange(3), scene.random.uniform(1, 12))
    scene.note("broker stands still")


def fail_over_redis(scene: Scene) -> None:
    """The primary dies, the replica takes over."""
    scene.servers.redis.fail_over()
    scene.note("kill redis primary, replica promoted")


def depose_redis(scene: Scene) -> None:
    """The replica is promoted while the primary goes on taking writes: the newest of them are lost."""
    scene.servers.redis.depose()
    scene.note("redis primary deposed alive")


def isolate_redis(scene: Scene) -> None:
    """Nobody reaches the primary until the replica is promoted."""
    scene.servers.redis.isolate()
    scene.note("redis primary out of reach, replica promoted")


def kill_sentinel(scene: Scene) -> None:
    """One of the Sentinels, for a while."""
    scene.servers.redis.kill_sentinel(scene.random.randrange(3), scene.random.uniform(1, 5))
    scene.note("kill sentinel")


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


def lose_redis_answer(scene: Scene) -> None:
    """A commit, or a claim, reaches Redis and takes place, and its answer never comes."""
    if _springs(Trap(SCRIPT), scene.servers.redis.proxies):
        scene.note("redis answer lost")


def lose_kafka_answer(scene: Scene) -> None:
    """A request of a chosen kind reaches Kafka and takes place, and its answer never comes."""
    names = [name for name in BAD_MOMENTS if scene.run.mode != "redis" or name not in _IN_TRANSACTIONS]
    name = scene.next_of("kafka answer lost:", names)
    if _springs(Trap(BAD_MOMENTS[name]), scene.servers.kafka.proxies):
        scene.note(f"kafka answer lost: {name}")


def _springs(trap: Trap, proxies: list[Proxy]) -> bool:
    for proxy in proxies:
        proxy.set_trap(trap)
    deadline_s = time.monotonic() + _SPRUNG_S
    while not trap.has_sprung and time.monotonic() < deadline_s:
        time.sleep(0.05)
    trap.take_away()
    return trap.has_sprung


def slow_network(scene: Scene) -> None:
    """Every piece to and from one server comes late."""
    proxies = [*scene.servers.kafka.proxies, *(scene.servers.redis.proxies if scene.run.mode != "kafka" else [])]
    proxy = scene.random.choice(proxies)
    proxy.delay(scene.random.uniform(0.02, 0.3))
    time.sleep(scene.random.uniform(2, 6))
    proxy.delay(0.0)
    scene.note("slow network")


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
    scene.note("kafka out of reach")


KILLS: tuple[Fault, ...] = (
    *[kill_at_point] * 6, *[kill_ingest] * 4, kill_worker, kill_inference, kill_supervisor, kill_projector,
)  # fmt: skip
LIVES: tuple[Fault, ...] = (freeze_worker, freeze_at_point, freeze_at_point, terminate_worker, storm)
KAFKA: tuple[Fault, ...] = (
    kill_broker, kill_broker, kill_broker, freeze_broker, cut_kafka, cut_kafka, slow_network, *[lose_kafka_answer] * 4,
)  # fmt: skip
REDIS: tuple[Fault, ...] = (
    fail_over_redis, fail_over_redis, fail_over_redis, depose_redis, isolate_redis, kill_sentinel, old_redis, old_redis,
    slow_redis, cut_redis, lose_redis_answer, lose_redis_answer,
)  # fmt: skip


def inflict(fault: Fault, scene: Scene) -> None:
    """Let it happen; a fault that meets another one's mess has not happened."""
    with suppress(KafkaError, RedisError):
        fault(scene)
