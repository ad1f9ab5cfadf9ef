"""A broker is away, and a partition that only it holds has no leader: the worker goes on with all others."""

from contextlib import closing
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient
from kafka.partitioner import murmur2
from live import Pipeline

pytestmark = [pytest.mark.timeout(300), pytest.mark.nightly]


@pytest.fixture
def spread(brokers, stack, expect):
    """A pipeline whose audio topic has one partition on each node, without copies."""
    name = f"test-{uuid4().hex[:12]}"
    topics = {
        name: {"assignments": {0: [1], 1: [2], 2: [3]}, "configs": {"min.insync.replicas": "1"}},
        f"{name}-dead": {"num_partitions": 1, "replication_factor": 3},
    }
    with closing(KafkaAdminClient(bootstrap_servers=brokers.bootstrap_servers.split(","))) as admin:
        admin.create_topics(topics)
        admin.wait_for_topics(list(topics))
    own = Pipeline(brokers.bootstrap_servers, stack.redis_url, name, f"{name}-dead", name, expect)
    yield own
    for worker in own.workers:
        worker.discard()


def test_a_partition_without_a_leader_waits_for_it_alone(spread, brokers, recorded, wait_until):
    """The calls of the others are complete meanwhile, and its own once the broker is back; no process ends."""
    calls = {f"{name}-{uuid4().hex[:8]}": call for name, call in recorded.all().items() for _ in range(4)}
    with spread.sending(calls) as gate:
        gate.open()
    brokers.servers[2].process.kill()
    worker = spread.start_worker()
    assert wait_until(lambda: "has no leader" in worker.log, 40), worker.log
    assert wait_until(lambda: worker.probe("readyz")[0] == 503 and len(spread.ended(calls)) > len(calls) / 4)
    pids = worker.pids()
    assert not wait_until(lambda: len(spread.ended(calls)) == len(calls), 8)
    brokers.restart(2)
    spread.assert_exact(calls)
    assert worker.pids() == pids
    worker.stop()


def test_a_partition_that_loses_its_leader_holds_up_no_other(spread, brokers, recorded, wait_until):
    """The worker has read all three before; calls of the other two come out as ever while it is gone, and after it."""
    worker = spread.start_worker()
    assert wait_until(lambda: worker.probe("readyz") == (200, "ready, 3 partitions\n"))
    brokers.servers[2].process.kill()
    ids = [uuid4().hex[:8] for _ in range(12)]
    partitions = {name: (murmur2(name.encode()) & 0x7FFFFFFF) % 3 for name in ids}
    calls = {name: recorded.call("billing") for name, partition in partitions.items() if partition != 2}
    with spread.sending(calls) as gate:
        gate.open()
    spread.assert_exact(calls)
    brokers.restart(2)
    brokers.wait_ready()
    later = {uuid4().hex[:8]: recorded.call("billing") for _ in range(6)}
    with spread.sending(later) as gate:
        gate.open()
    spread.assert_exact(later)
    worker.stop()
