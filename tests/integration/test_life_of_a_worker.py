"""Start, probes, a Redis that comes and goes, SIGTERM: a worker from its first to its last second."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from uuid import uuid4

import pytest
import redis

from callmood.worker.settings import Settings
from deploy.local import LocalStack
from deploy.local.stack import KAFKA_ADDRESS

pytestmark = pytest.mark.timeout(240)


def _named(recordings):
    return {f"{name}-{uuid4().hex[:8]}": recording for name, recording in recordings.items()}


@pytest.fixture
def own_redis(stack):
    """A Redis that the test may stop; its address."""
    with LocalStack(environment={KAFKA_ADDRESS: stack.bootstrap_servers}) as started:
        yield started.redis_url


@contextmanager
def _asleep(url):
    """A Redis that takes connections and does not answer."""
    with redis.Redis.from_url(url) as client:
        pid = client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_model_that_hangs_ends_the_worker(pipeline, recorded):
    """Warm and then silent for too long, it is killed; the worker says so and ends, and the next one does it all."""
    worker, calls = pipeline.start_worker(worker__stall_s="3").wait_ready(), _named({"panne": recorded.call("panne")})
    os.kill(worker.pid("inference"), signal.SIGSTOP)
    pipeline.send(calls)
    began_s = time.monotonic()
    assert worker.exit_code() == 75
    assert time.monotonic() - began_s < Settings().worker.stall_s
    assert worker.lines("model thread hangs; stopping the worker"), worker.log
    pipeline.start_worker().wait_ready()
    pipeline.assert_exact(calls)


def test_probes_tell_the_truth_while_redis_sleeps(pipeline, recorded, own_redis, wait_until):
    """Ready with a warm model and partitions only, not while Redis is silent; alive all the time; nothing is lost."""
    pipeline.redis_url = own_redis
    worker, seen = pipeline.start_worker(redis__timeout_s="0.5"), set()
    calls = _named(recorded.all())

    def is_ready():
        live, ready = worker.probe("livez"), worker.probe("readyz")
        seen.add((live[0], ready[0]))
        return ready[0] == 200

    assert wait_until(is_ready, 120)
    assert seen <= {(0, 0), (0, 503), (200, 503), (200, 200)}
    assert (200, 503) in seen
    assert worker.probe("readyz")[1] == "ready, 4 partitions\n"

    with pipeline.sending(calls) as gate:
        gate.open(12_000)
        assert wait_until(pipeline.firehose)
        with _asleep(own_redis):
            gate.open()
            assert wait_until(lambda: worker.probe("readyz")[0] == 503, 30)
            assert "store" in worker.probe("readyz")[1]
            time.sleep(2)
            assert worker.probe("livez") == (200, "alive\n")
        assert wait_until(is_ready, 30)
    pipeline.assert_exact(calls)
    assert not worker.lines("process exited")
    worker.stop()


def test_an_emptied_redis_is_filled_again(pipeline, recorded, own_redis, wait_until):
    """Results and positions are lost together, so the calls are worked through again and come out the same."""
    pipeline.redis_url = own_redis
    worker = pipeline.start_worker().wait_ready()
    calls = _named(recorded.all())
    with pipeline.sending(calls) as gate:
        gate.open(20_000)
        assert wait_until(lambda: len(pipeline.firehose()) > 8)
        with redis.Redis.from_url(own_redis) as client:
            client.flushall()
    pipeline.assert_exact(calls)
    worker.stop()


def test_sigterm_in_the_middle_of_calls(pipeline, recorded, wait_until):
    """A worker that is asked to stop ends with code 0 within its deadline, and the next one completes the calls."""
    first = pipeline.start_worker(by_command=True).wait_ready()
    calls = _named(recorded.all())
    with pipeline.sending(calls) as gate:
        gate.open(14_000)
        assert wait_until(pipeline.firehose)
        first.stop()
        assert [line["event"] for line in first.lines() if line["level"] == "error"] == []  # none was killed
        assert not pipeline.ended(calls)
        gate.open(22_000)
        second = pipeline.start_worker(by_command=True).wait_ready()
    pipeline.assert_exact(calls)
    second.stop()


def test_settings_that_do_not_work_end_the_worker(pipeline):
    """One line says what is wrong and what to set, without a traceback, and the exit code is 2."""
    wrong = {
        "kafka__audio_topic": ("no-such-topic", "does not exist", "CALLMOOD_KAFKA__AUDIO_TOPIC"),
        "redis__url": (
            pipeline.redis_url.replace("redis://", "redis://nobody:wrong@"), "Redis refuses", "CALLMOOD_REDIS__URL"
        ),
        "model__path": ("no-such-model", "no-such-model", ""),
    }  # fmt: skip
    workers = [pipeline.start_worker(**{name: value}) for name, (value, _, _) in wrong.items()]
    for worker, (_, problem, setting) in zip(workers, wrong.values(), strict=True):
        assert worker.exit_code() == 2
        (line,) = worker.lines("cannot run")
        assert problem in line["error"]
        assert setting in line["error"]
        assert "Traceback" not in worker.log
        assert list(worker.folder.iterdir()) == []


def test_invalid_settings_end_the_command_at_once():
    """A value out of bounds and an unknown name end the command with code 2 and one line, before anything starts."""
    for name, value in (("CALLMOOD_INPUT__REORDER_RECORDS", "many"), ("CALLMOOD_KAFKAA__GROUP_ID", "x")):
        done = subprocess.run(
            [sys.executable, "-m", "callmood", "worker"],
            env={**os.environ, name: value},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert name in line
