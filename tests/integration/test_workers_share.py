"""Two workers in one group: they share the partitions, and whatever happens to one, the other goes on exactly."""

import os
import random
import signal
import time
from uuid import uuid4

import pytest

pytestmark = [pytest.mark.timeout(300), pytest.mark.nightly]  # chaos runs do all of it, too

_QUICK = {"kafka__session_timeout_ms": "3000", "worker__commit_interval_ms": "100", "worker__state_interval_ms": "500"}
_COPIES = 3  # of each example call, so that no partition stays without one


def _calls(recorded):
    return {f"{name}-{uuid4().hex[:8]}": call for name, call in recorded.all().items() for _ in range(_COPIES)}


def _share(workers):
    return sorted(worker.probe("readyz") for worker in workers)


def test_the_partitions_of_a_killed_worker_go_to_the_other(pipeline, recorded, wait_until):
    """Two workers have two partitions each; one is killed in the middle of calls, and the other completes them all."""
    moments = random.Random(4)
    calls = _calls(recorded)
    workers = [pipeline.start_worker(**_QUICK), pipeline.start_worker(**_QUICK)]
    for worker in workers:
        worker.wait_ready()
    assert wait_until(lambda: _share(workers) == [(200, "ready, 2 partitions\n")] * 2, 30)
    with pipeline.sending(calls) as gate:
        gate.open(15_000)
        assert wait_until(lambda: len(pipeline.ingest_pids()) == 2 and len(pipeline.firehose()) > len(calls))
        time.sleep(moments.uniform(0, 0.5))
        workers[0].kill()
        assert not pipeline.ended(calls)
        assert wait_until(lambda: workers[1].probe("readyz") == (200, "ready, 4 partitions\n"), 30)
    pipeline.assert_exact(calls)
    workers[1].stop()


def test_workers_come_and_go_while_calls_run(pipeline, recorded, wait_until):
    """A second worker joins in the middle of calls, and the first is stopped a moment later: no result changes."""
    calls = _calls(recorded)
    first = pipeline.start_worker(**_QUICK).wait_ready()
    with pipeline.sending(calls) as gate:
        gate.open(8_000)
        assert wait_until(pipeline.firehose)
        second = pipeline.start_worker(**_QUICK)
        for until_ms in range(9_000, 20_000, 1_000):  # the rebalance happens somewhere in here
            gate.open(until_ms)
            time.sleep(0.5)
        second.wait_ready()
        assert wait_until(lambda: _share([first, second]) == [(200, "ready, 2 partitions\n")] * 2, 30)
        gate.open(25_000)
        first.stop()
        assert not pipeline.ended(calls)
    pipeline.assert_exact(calls)
    second.stop()


def test_a_frozen_worker_that_wakes_up_is_fenced(pipeline, recorded, wait_until):
    """A worker stands still until the group has given its partitions away, and wakes up: its old work is refused."""
    calls = _calls(recorded)
    sleeper = pipeline.start_worker(**_QUICK).wait_ready()
    with pipeline.sending(calls) as gate:
        gate.open(12_000)
        assert wait_until(pipeline.firehose)
        asleep = sleeper.pids()
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        gate.open(20_000)
        other = pipeline.start_worker(**_QUICK).wait_ready()
        assert wait_until(lambda: other.probe("readyz") == (200, "ready, 4 partitions\n"), 30)
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
        assert wait_until(lambda: _share([sleeper, other]) == [(200, "ready, 2 partitions\n")] * 2, 60)
    pipeline.assert_exact(calls)
    for worker in (sleeper, other):
        worker.stop()
