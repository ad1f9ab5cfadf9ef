"""kill -9 in the middle of calls: what the next process completes is exact, as if nothing had been."""

import random
import signal
import time
from uuid import uuid4

import pytest

pytestmark = pytest.mark.timeout(300)

_QUICK = {"kafka__session_timeout_ms": "3000", "worker__commit_interval_ms": "100", "worker__state_interval_ms": "500"}
_PHASES_MS = (11_000, 22_000)  # of calls that last 30 s


def _named(recordings):
    return {f"{name}-{uuid4().hex[:8]}": recording for name, recording in recordings.items()}


def _assert_in_the_middle(pipeline, calls):
    assert not pipeline.ended(calls)
    assert any(pipeline.utterances(call_id) for call_id in calls)


@pytest.mark.nightly  # chaos runs do it, too
@pytest.mark.parametrize("seed", [1, 2])
def test_ingest_is_killed_at_random_moments(pipeline, recorded, wait_until, seed):
    """An ingest process that is killed twice in the middle of calls loses and doubles nothing."""
    moments = random.Random(seed)
    calls = _named(recorded.all(chunk_ms=moments.choice([20, 100, 200])))
    worker = pipeline.start_worker(**_QUICK).wait_ready()
    with pipeline.sending(calls) as gate:
        for until_ms in _PHASES_MS:
            (victim,) = pipeline.ingest_pids()
            gate.open(until_ms)
            assert wait_until(lambda: any(pipeline.utterances(call_id) for call_id in calls))
            time.sleep(moments.uniform(0, 0.6))
            worker.kill([victim])
            _assert_in_the_middle(pipeline, calls)
            assert wait_until(lambda gone=victim: gone not in pipeline.ingest_pids())
    pipeline.assert_exact(calls)
    assert [line["exit_code"] for line in worker.lines("process exited")] == [-signal.SIGKILL] * len(_PHASES_MS)
    worker.stop()


@pytest.mark.nightly  # chaos runs do it, too
def test_whole_workers_are_killed(pipeline, recorded, wait_until):
    """Whatever part of a worker is killed, all of it ends, and the next worker completes the calls exactly."""
    moments = random.Random(3)
    calls = _named(recorded.all())
    with pipeline.sending(calls) as gate:
        for until_ms, victim in zip((9_000, 18_000, 27_000), ("tree", "inference", "supervisor"), strict=True):
            worker = pipeline.start_worker(**_QUICK).wait_ready()
            seen = len(pipeline.firehose())
            gate.open(until_ms)
            assert wait_until(lambda seen=seen: len(pipeline.firehose()) > seen)
            time.sleep(moments.uniform(0, 0.4))
            _assert_in_the_middle(pipeline, calls)
            match victim:
                case "tree":
                    worker.kill()
                    assert worker.exit_code() == -signal.SIGKILL
                case "inference":
                    worker.kill([worker.pid("inference")])
                    assert worker.exit_code() == 75
                case "supervisor":
                    worker.kill([worker.process.pid])
                    assert worker.exit_code() == -signal.SIGKILL
    last = pipeline.start_worker(**_QUICK).wait_ready()
    pipeline.assert_exact(calls)
    last.stop()


def test_three_deaths_of_ingest_end_the_worker(pipeline, wait_until):
    """After the third death in a minute the worker ends with the code for another try."""
    worker = pipeline.start_worker(**_QUICK).wait_ready()
    others = worker.pids() - pipeline.ingest_pids()
    for _ in range(3):
        victims = wait_until(lambda: worker.pids() - others, timeout_s=20)
        worker.kill(victims)
        wait_until(lambda gone=victims: not gone & worker.pids(), timeout_s=5)
    assert worker.exit_code() == 75
    assert list(worker.folder.iterdir()) == []
