"""A worker on topics and keys of a test's own, or one that many tests share, and what `analyze` says of their calls."""

import json
import time
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import forked
import pytest
import redis

from callmood.schemas.keys import Keys
from callmood.worker.commands.recordings import Recording, Shape, load
from callmood.worker.settings import Settings
from deploy.local import apache
from deploy.local.nursery import Nursery, free_port
from deploy.local.redis_server import find_server

pytest.register_assert_rewrite("live")
import live  # noqa: E402 - after the line that lets its assertions explain themselves
from browsing import browse, chromium, served  # noqa: E402, F401 - as above; fixtures
from certificates import write_certificates  # noqa: E402 - as above
from live import Pipeline, Script  # noqa: E402 - as above

_EXAMPLES = Path(__file__).parents[2] / "examples" / "calls"


@pytest.fixture(scope="session")
def guarded(real_kafka):
    """A broker of a test's own, whose clients must pass a guard."""
    assert real_kafka

    @contextmanager
    def run(protocol, properties):
        plain = apache.properties
        listeners = f"CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,PLAINTEXT:{protocol}"
        more = {"listener.security.protocol.map": listeners} | properties
        with pytest.MonkeyPatch.context() as patch, Nursery() as nursery:
            patch.setattr(apache, "properties", lambda *arguments: plain(*arguments) | more)
            broker = apache.ApacheKafka(nursery)
            broker.wait_ready()
            yield broker.bootstrap_servers

    return run


@pytest.fixture
def brokers(real_kafka):
    """Three nodes of this test's own."""
    assert real_kafka
    with Nursery() as nursery:
        brokers = apache.ApacheKafka(nursery, size=3)
        brokers.wait_ready()
        yield brokers


@pytest.fixture
def own_redis():
    """`start, url`: starts a Redis of this test's own, always at the same address, and returns it."""
    with Nursery() as nursery:
        port, names = free_port(), iter(range(10))

        def start():
            options = ["--bind", "127.0.0.1", "--port", str(port), "--save", ""]
            started = nursery.start(f"redis-{next(names)}", [find_server("valkey"), *options])
            with closing(redis.Redis(port=port)) as client:
                deadline_s = time.monotonic() + 20
                while time.monotonic() < deadline_s:
                    with suppress(redis.RedisError):
                        client.ping()
                        break
                    time.sleep(0.05)
            return started

        yield start, f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder with certificates: of a server, of a worker, an expired one and an unknown one."""
    return write_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def wait_until():
    """`wait_until(is_true, timeout_s, poll_s)` returns the first true value of a condition, or its last value."""
    return live.wait_until


@pytest.fixture(scope="session")
def expect():
    """What `callmood analyze` says of a call: `expect(recording, call_id)` gives its utterances and its aggregate."""
    started = []

    def said(recording, call_id):
        if not started:
            started.append(forked.start_analysis())
        started[0].send((recording, call_id, Settings()))
        utterances, call = started[0].recv()
        return json.loads(json.dumps(utterances)), json.loads(json.dumps(call))

    yield said
    for connection in started:
        connection.close()


@pytest.fixture(scope="session")
def recorded():
    """An example call: `recorded("billing", encoding=…)`; without a name, all of them by name."""

    @cache
    def read(name: str, **shape: Any) -> Recording:
        return load(_EXAMPLES / f"{name}.flac", Shape(**shape))

    names = sorted(path.stem for path in _EXAMPLES.glob("*.flac"))
    return SimpleNamespace(call=read, all=lambda **shape: {name: read(name, **shape) for name in names}, names=names)


@pytest.fixture(scope="session")
def script():
    """A call of records just as they are: `script(records)`."""
    return lambda records: Script(list(records))


def _pipeline(stack, expect, redis_url=None):
    name = f"test-{uuid4().hex[:12]}"
    stack.create_topic(name, 4, {"max.message.bytes": str(16 << 20)})
    stack.create_topic(f"{name}-dead", 1)
    return Pipeline(stack.bootstrap_servers, redis_url or stack.redis_url, name, f"{name}-dead", name, expect)


def _end(pipeline, stack):
    for worker in pipeline.workers:
        worker.discard()
    for topic in (pipeline.audio_topic, pipeline.dead_letter_topic):
        stack.delete_topic(topic)
    with redis.Redis.from_url(pipeline.redis_url) as client, suppress(redis.RedisError):  # the test may have ended it
        for key in client.scan_iter(Keys(pipeline.prefix).named("*"), count=1000):
            client.delete(key)


@pytest.fixture
def pipeline(stack, expect):
    """Topics and keys of this test's own, without a worker yet."""
    own = _pipeline(stack, expect)
    yield own
    _end(own, stack)


@pytest.fixture(scope="session")
def running(stack, expect):
    """Topics and keys with one worker that many tests share; it must come through all of them and then end well."""
    shared = _pipeline(stack, expect)
    worker = shared.start_worker().wait_ready()
    pids = worker.pids()
    yield shared
    assert worker.pids() == pids, worker.log
    worker.stop()
    _end(shared, stack)


@pytest.fixture
def outputs(pipeline, real_kafka):
    """The settings of a pipeline with output topics of its own."""
    names = {kind: f"{pipeline.prefix}-{kind}" for kind in ("utterance", "call", "alert", "state", "erasure")}
    for kind, name in names.items():
        real_kafka.create_topic(name, 4, {"cleanup.policy": "compact"} if kind not in {"utterance", "alert"} else None)
    yield {f"kafka__{kind}_topic": name for kind, name in names.items()}
    for name in names.values():
        real_kafka.delete_topic(name)
