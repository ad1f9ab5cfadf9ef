"""The local stack as a person or a script uses it: real servers, real signals."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaTimeoutError

from deploy.local import LocalStack, NotInstalled
from deploy.local.apache import ApacheKafka, archive_classes
from deploy.local.nursery import Nursery, listens

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
KAFKA, REDIS = "CALLMOOD_KAFKA__BOOTSTRAP_SERVERS", "CALLMOOD_REDIS__URL"
QUICK = ["--kafka", "tansu", "--redis", "valkey"]


@pytest.fixture
def local():
    """Starts `python -m deploy.local` as a user does, without addresses from outside."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CALLMOOD_")}
    with ExitStack() as processes:

        def start(*arguments, **environment):
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local", *arguments],
                cwd=ROOT,
                env=clean | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            processes.enter_context(process)
            processes.callback(process.kill)  # runs before the wait of the line above
            return process

        yield start


def tools(folder, *names):
    """A PATH that holds only the named programs."""
    for name in names:
        (folder / name).symlink_to(shutil.which(name) or pytest.skip(f"no {name} here"))
    return str(folder)


def traces(folder):
    """What is left of the stacks whose temporary folder is `folder`: their files, and processes that name it."""
    files = [str(path) for path in folder.iterdir() if path.name.startswith("callmood-stack-")]
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where = str((entry / "cwd").readlink())
            except OSError:
                continue
            if where.startswith(str(folder)):
                processes.append(f"{entry.name} in {where}")
    return files + processes


def gone(folder, timeout_s=10.0):
    """Wait until nothing is left."""
    deadline = time.monotonic() + timeout_s
    while traces(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not traces(folder)


def wait_for_line(process, start):
    """Read standard output up to a line that starts so."""
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise AssertionError(process.stderr.read())


def test_run_gives_both_addresses_and_leaves_nothing(local, tmp_path):
    """`run -- CMD` runs CMD against servers that answer, passes on its exit code, and leaves nothing."""
    check = (
        "import os, redis, kafka; "
        f"assert redis.Redis.from_url(os.environ['{REDIS}']).ping(); "
        f"print(kafka.KafkaAdminClient(bootstrap_servers=os.environ['{KAFKA}']).list_topics()); raise SystemExit(7)"
    )
    process = local("run", "--", sys.executable, "-c", check, TMPDIR=str(tmp_path))
    out, err = process.communicate(timeout=50)
    assert process.returncode == 7, err
    assert "callmood.audio" in out
    assert "callmood.dead-letter" in out
    assert traces(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_parent_ends_the_servers(local, tmp_path, number):
    """However the parent ends, kill -9 included, its servers end and its files go."""
    process = local(*QUICK, "up", TMPDIR=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"))
    wait_for_line(process, f"export {REDIS}=")
    assert len(traces(tmp_path)) == 3, "a directory and two servers"
    process.send_signal(number)
    process.communicate(timeout=50)
    assert gone(tmp_path), traces(tmp_path)


def test_sigterm_to_run_ends_its_command_too(local, tmp_path):
    """A supervisor that stops `run` stops the command with it."""
    command = f"import os, time; os.chdir({str(tmp_path)!r}); print('ready', flush=True); time.sleep(60)"
    process = local(*QUICK, "run", "--", sys.executable, "-c", command, TMPDIR=str(tmp_path))
    wait_for_line(process, "ready")
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert traces(tmp_path) == []


def test_kill_9_while_kafka_starts_leaves_nothing(local, tmp_path):
    """A parent that dies before its servers are ready takes them along too."""
    process = local("run", "--", "true", TMPDIR=str(tmp_path))
    deadline = time.monotonic() + 30
    while not any(trace.endswith(("/kafka-1", "/tansu")) for trace in traces(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=50)
    assert gone(tmp_path), traces(tmp_path)


def test_down_ends_what_up_keeps(local, tmp_path):
    """`down` from another terminal ends `up` and waits for it; a second `up` is refused meanwhile."""
    environment = {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    keeper = local(*QUICK, "up", **environment)
    url = wait_for_line(keeper, f"export {REDIS}=").partition("=")[2].strip()
    assert redis.Redis.from_url(url).ping()

    second = local(*QUICK, "up", **environment)
    assert "already" in second.communicate(timeout=20)[1]
    assert second.returncode == 1

    ender = local("down", **environment)
    ender.communicate(timeout=30)
    assert ender.returncode == 0
    assert traces(tmp_path) == [], "`down` returns after the servers have ended"
    assert keeper.wait(5) == 128 + signal.SIGTERM

    idle = local("down", **environment)
    assert "no stack is running" in idle.communicate(timeout=20)[1]


def test_without_java_the_embedded_broker_stands_in_and_says_so(local, tmp_path):
    """With neither Java nor redis-server on PATH, `run` says in one line what to install or set, and still works."""
    check = f"import kafka, os; print(kafka.KafkaAdminClient(bootstrap_servers=os.environ['{KAFKA}']).list_topics())"
    process = local("run", "--", sys.executable, "-c", check, PATH=tools(tmp_path, "env"), JAVA_HOME="")
    out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    assert "callmood.audio" in out
    advice, *limits = err.splitlines()
    assert "install a JDK 17" in advice
    assert f"set {KAFKA}" in advice
    assert len(limits) >= 5
    assert all(limit.startswith("  - ") for limit in limits)


def test_cached_jars_need_no_maven(tmp_path, monkeypatch, real_kafka):
    """Once the jars are in the cache, Apache Kafka starts without Maven and without a network."""
    assert real_kafka.kafka_kind in ("apache", "outside")
    monkeypatch.setenv("PATH", tools(tmp_path, "java"))
    try:
        with LocalStack(kafka="apache", redis="valkey", environment={}) as stack:
            assert stack.kafka_kind == "apache"
    except NotInstalled as missing:  # an outside Kafka was used, so nothing has filled the cache
        pytest.skip(str(missing))


def test_a_node_starts_with_the_class_archive_of_fetch(real_kafka):
    """After `fetch`, Java maps the classes that an earlier node has loaded, which halves the CPU time of a start."""
    if real_kafka.kafka_kind == "outside":
        pytest.skip("a Kafka of the environment")
    archive_classes()
    with Nursery() as nursery:
        kafka = ApacheKafka(nursery)
        kafka.wait_ready()
        maps = Path(f"/proc/{kafka.servers[0].pid}/maps").read_text()
    assert re.search("kafka-classes-[0-9a-f]+/classes.jsa", maps)


def test_the_servers_that_answer_are_the_started_ones(stack):
    """A stack's Kafka listener and Redis belong to processes that it started, on 127.0.0.1 only."""
    if "outside" in (stack.kafka_kind, stack.redis_kind):
        pytest.skip("servers of the environment")
    host, _, port = stack.bootstrap_servers.partition(":")
    assert host == "127.0.0.1"
    owners = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and listens(int(p.name), int(port))]
    assert len(owners) == 1
    parent_group = os.getpgid(owners[0])
    assert parent_group != os.getpgrp(), "a terminal's Ctrl-C must not reach the servers"
    with redis.Redis.from_url(stack.redis_url) as client:
        assert os.getpgid(client.info("server")["process_id"]) == parent_group


def test_unknown_topics_are_not_created(real_kafka):
    """A misspelt topic is an error, not a new topic."""
    address = real_kafka.bootstrap_servers
    with KafkaProducer(bootstrap_servers=address, max_block_ms=1_000) as producer, pytest.raises(KafkaTimeoutError):
        producer.send("no-such-topic", b"audio")
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        assert "no-such-topic" not in admin.list_topics()
