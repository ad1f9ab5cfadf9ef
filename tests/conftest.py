"""What every test may use: a real Kafka and a real Redis, names of its own in both, recorded human speech.

The tests with the longest time limits start first, so that they rarely run alone at the end.
"""
# ruff: noqa: PLC0415 - clients are imported where they are used: tests of training also run in a bare CUDA image

import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from charting import run_helm
from thorough import IS_NIGHT

if TYPE_CHECKING:
    import redis

    from deploy.local import LocalStack

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network fails at once instead of hanging
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and its children too

# A closing client of kafka-python leaves the socket of a connection that is not yet open to the garbage collector,
# which looks no different from a socket that we forget: only tests without servers find those.
_CLIENTS_SOCKET = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <socket\.socket fd=:pytest.PytestUnraisableExceptionWarning"
)
_SHARED = pytest.StashKey["LocalStack"]()
_TESTS = Path(__file__).parent
_NIGHT_S = 4 * 3600
_SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
_SOUNDS_NEEDED = "no recorded speech: apt-get install asterisk-core-sounds-en-wav"
_KAFKA_NEEDED = "the embedded broker stands in for Kafka and cannot show this: install Java 17 and Maven"

with suppress(ImportError):  # a bare CUDA image
    import hypothesis

    # A busy machine is no failure. In CI Hypothesis tries the same examples each time, but not at night.
    patient = hypothesis.settings(
        deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True, max_examples=50
    )
    hypothesis.settings.register_profile("change", patient)
    hypothesis.settings.register_profile("nightly", patient, max_examples=1000, derandomize=False)
    hypothesis.settings.load_profile("nightly" if IS_NIGHT else "change")


def pytest_addoption(parser):
    """`--one-stack`: with xdist, all workers share one Kafka and one Redis."""
    parser.addoption("--one-stack", action="store_true", help="one Kafka and one Redis for all workers of xdist")


def pytest_configure(config):
    """Skipped tests are listed with their reasons, always: what was not tested must be seen."""
    if "s" not in config.option.reportchars:
        config.option.reportchars += "s"


@pytest.hookimpl(optionalhook=True)  # a hook of xdist
def pytest_configure_node(node):
    """Start the shared stack before the first worker of xdist, and tell each its addresses and the shares."""
    deals = node.config.getoption("dist") == "worksteal"  # each process begins with a share of its own
    node.workerinput["shares"] = node.workerinput["workercount"] if deals else 1
    if node.config.getoption("one_stack"):
        if _SHARED not in node.config.stash:
            node.config.stash[_SHARED] = _start_stack(node.config)
        shared = node.config.stash[_SHARED]
        kinds = {"kafka_kind": shared.kafka_kind, "redis_kind": shared.redis_kind}
        node.workerinput["stack"] = {"environment": shared.environment(), "kinds": kinds}


def _start_stack(config):
    """A stack that ends with this process."""
    from deploy.local import LocalStack

    stack = LocalStack()
    stack.__enter__()
    config.add_cleanup(lambda: stack.__exit__(None, None, None))
    return stack


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before -m selects by these markers
def pytest_collection_modifyitems(config, items):
    """A test's folder is its marker; a test that uses the stack is an integration test wherever it stands."""
    for item in items:
        folder = item.path.relative_to(_TESTS).parts[0]
        item.add_marker(folder)
        if "stack" in item.fixturenames:
            item.add_marker("integration")
        if item.get_closest_marker("integration"):
            item.add_marker(_CLIENTS_SOCKET)
        if IS_NIGHT:
            item.add_marker(pytest.mark.timeout(_NIGHT_S), append=False)
    yield
    if shares := getattr(config, "workerinput", {}).get("shares"):
        items[:] = _longest_first(items, shares)


def _longest_first(items, shares):
    """The tests with the longest time limits come first in each share, the others stay as they are."""
    long = sorted(filter(_limit_s, items), key=_limit_s, reverse=True)
    others = [item for item in items if not _limit_s(item)]
    size = math.ceil(len(others) / shares)
    parts = [long[n::shares] + others[n * size : (n + 1) * size] for n in range(shares)]
    return [item for part in parts for item in part]


def _limit_s(item):
    """The time limit that a test or its file sets, in s; 0: the usual one."""
    mark = item.get_closest_marker("timeout")
    return mark.args[0] if mark else 0


def _missing(reason):
    """Skip, but fail in continuous integration: there, everything is installed."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def stack(request) -> Iterator["LocalStack"]:
    """Kafka and Redis: those of the environment or those that all workers of xdist share, else started here."""
    from deploy.local import LocalStack

    shared = getattr(request.config, "workerinput", {}).get("stack", {"environment": None, "kinds": {}})
    with LocalStack(environment=shared["environment"]) as started:
        vars(started).update(shared["kinds"])
        yield started


@pytest.fixture(scope="session")
def real_kafka(stack: "LocalStack") -> "LocalStack":
    """The stack, for tests of what only Apache Kafka does: fencing, aborted transactions, broker restarts."""
    if stack.kafka_kind == "tansu":
        _missing(_KAFKA_NEEDED)
    return stack


@pytest.fixture
def topic(stack: "LocalStack") -> Iterator[Callable[..., str]]:
    """Makes a topic of this test's own: `topic(partitions=4, config={...})` returns its name."""
    from kafka.errors import KafkaError

    names = []

    def create(partitions: int = 4, config: dict[str, str] | None = None) -> str:
        name = f"test-{uuid4().hex[:12]}"
        stack.create_topic(name, partitions, config)
        names.append(name)
        return name

    yield create
    for name in names:
        with suppress(KafkaError):  # the test may have deleted it, or ended its broker
            stack.delete_topic(name)


@pytest.fixture
def redis_url(stack: "LocalStack") -> str:
    """Address of a Redis that other tests use too: keep to keys that begin with `{redis_prefix}`."""
    return stack.redis_url


@pytest.fixture
def redis_prefix(redis_url: str) -> Iterator[str]:
    """A key prefix of this test's own (a value for CALLMOOD_REDIS__PREFIX); its keys are deleted afterwards."""
    import redis

    prefix = f"test-{uuid4().hex[:12]}"
    yield prefix
    with redis.Redis.from_url(redis_url) as client, suppress(redis.RedisError):  # the test may have ended the server
        keys = [key for shape in (f"{prefix}:*", f"{{{prefix}}}:*") for key in client.scan_iter(shape, count=1000)]
        if keys:
            client.delete(*keys)


@pytest.fixture
def redis_client(redis_url: str) -> Iterator["redis.Redis"]:
    """A client that answers in text."""
    import redis

    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(scope="session")
def helm() -> Callable[..., str]:
    """`helm(*arguments)` runs it; its standard output, or an error with what it said."""
    if shutil.which("helm") is None:
        _missing("no helm: go install helm.sh/helm/v3/cmd/helm@v3.19.5")
    return run_helm


@pytest.fixture(scope="session")
def speech_folder() -> Path:
    """Folder with recorded human speech: 8 kHz mono 16-bit WAV prompts of one speaker."""
    if not _SOUNDS.is_dir():
        _missing(_SOUNDS_NEEDED)
    return _SOUNDS
