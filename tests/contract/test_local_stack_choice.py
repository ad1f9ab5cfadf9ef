"""The servers that the local stack chooses, and its errors if it cannot choose one. No real server is started."""

import os
import socket
import sys
import threading
import time
from contextlib import suppress

import pytest

from callmood.worker.settings import load
from deploy.local import LocalStack, NotInstalled, StackError
from deploy.local.__main__ import main
from deploy.local.apache import Node, properties
from deploy.local.errors import PortTaken
from deploy.local.java import cached, find_java
from deploy.local.nursery import Nursery, free_port, listens
from deploy.local.stack import KAFKA_ADDRESS, REDIS_ADDRESS

OUTSIDE = {KAFKA_ADDRESS: "broker.invalid:9092", REDIS_ADDRESS: "redis://redis.invalid:6379/0"}


def refuse(line):
    """Nothing is to be said."""
    raise AssertionError(line)


def test_addresses_in_the_environment_win():
    """Nothing is started, created or said where the environment names both servers."""
    with LocalStack(kafka="apache", redis="valkey", environment=OUTSIDE, say=refuse) as stack:
        assert stack.environment() == OUTSIDE
        assert (stack.kafka_kind, stack.redis_kind) == ("outside", "outside")


def test_the_environment_is_valid_settings(monkeypatch):
    """The worker accepts the variables that a stack hands out."""
    with LocalStack(environment=OUTSIDE) as stack:
        for name, value in stack.environment().items():
            monkeypatch.setenv(name, value)
    settings = load()
    assert settings.kafka.bootstrap_servers == "broker.invalid:9092"
    assert settings.redis.url.get_secret_value() == "redis://redis.invalid:6379/0"


def test_without_java_an_explicit_apache_is_refused(tmp_path, monkeypatch):
    """`kafka="apache"` never falls back: it names what to install and which address to set."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    environment = {REDIS_ADDRESS: OUTSIDE[REDIS_ADDRESS]}
    with (
        pytest.raises(NotInstalled, match=f"JDK 17.*{KAFKA_ADDRESS}"),
        LocalStack(kafka="apache", environment=environment),
    ):
        pass


def test_without_maven_and_cache_the_advice_is_maven(tmp_path, monkeypatch):
    """Java alone is not enough the first time, and the message says so."""
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    environment = {REDIS_ADDRESS: OUTSIDE[REDIS_ADDRESS]}
    with (
        pytest.raises(NotInstalled, match="apt-get install maven"),
        LocalStack(kafka="apache", environment=environment),
    ):
        pass


@pytest.mark.parametrize("answer", ['openjdk version "11.0.2" 2019-01-15', 'java version "1.8.0_292"', "nonsense"])
def test_an_old_java_is_refused(tmp_path, monkeypatch, answer):
    """A Java below 17, or one that cannot tell its version, is not used."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{answer}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(NotInstalled, match="17 or newer"):
        find_java()


def test_a_listener_of_another_process_is_not_ours():
    """A port that another process listens on does not count as our server's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(os.getpid(), port)
        assert not listens(os.getppid(), port)
    assert not listens(os.getpid(), port)


def test_a_taken_port_is_told_from_other_failures():
    """A server that ends because its port is in use may be tried again on another; any other end shows its log."""
    with Nursery() as nursery:
        taken = nursery.start("taken", ["sh", "-c", "echo 'bind: Address already in use'; exit 1"])
        with pytest.raises(PortTaken):
            taken.wait_ready(lambda: False, timeout_s=10)
        broken = nursery.start("broken", ["sh", "-c", "echo 'no such option'; exit 3"])
        with pytest.raises(StackError, match=r"(?s)broken ended with code 3.*no such option"):
            broken.wait_ready(lambda: False, timeout_s=10)
        slow = nursery.start("slow", ["sleep", "60"])
        with pytest.raises(StackError, match=r"slow was not ready after 0\.1 s"):
            slow.wait_ready(lambda: False, timeout_s=0.1)
    assert slow.process.returncode is not None
    assert not nursery.directory.exists()


def test_a_server_that_ignores_sigterm_is_killed(monkeypatch):
    """Stopping always ends."""
    monkeypatch.setattr("deploy.local.nursery._STOP_S", 0.2)
    with Nursery() as nursery:
        command = [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)",
        ]
        stubborn = nursery.start("stubborn", command)
        stubborn.wait_ready(lambda: stubborn.log.read_text() == "1\n", timeout_s=10)
    assert stubborn.process.returncode == -9


def test_a_cache_entry_is_whole_or_absent(tmp_path, monkeypatch):
    """A failed filling leaves no entry; two fillings at once make one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with suppress(ZeroDivisionError), cached("entry") as (path, filling):
        (filling / "half").touch()
        raise ZeroDivisionError
    assert not path.exists()
    fillings = []

    def fill():
        with cached("entry") as (_, empty):
            fillings.append(empty)
            if empty is not None:
                time.sleep(0.1)  # long enough for the others to come in, if they may
                (empty / "whole").touch()

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(filling is not None for filling in fillings) == 1
    assert [entry.name for entry in path.iterdir()] == ["whole"]


def test_three_nodes_replicate_three_times(tmp_path):
    """The settings of a cluster follow from its size."""
    nodes = [Node(number, free_port(), free_port(), free_port(), free_port()) for number in (1, 2, 3)]
    settings = properties(nodes[1], nodes, tmp_path)
    assert settings["node.id"] == "2"
    assert settings["controller.quorum.voters"].count("@127.0.0.1:") == 3
    assert settings["offsets.topic.replication.factor"] == "3"
    assert settings["transaction.state.log.min.isr"] == "2"
    assert settings["listeners"].startswith(f"PLAINTEXT://127.0.0.1:{nodes[1].port},")


@pytest.mark.parametrize("arguments", [["run"], ["run", "--"], ["sideways"], [], ["--kafka", "other", "up"]])
def test_wrong_usage_is_exit_code_2(arguments):
    """The command refuses what it does not understand, before it starts anything."""
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
