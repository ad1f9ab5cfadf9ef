"""`callmood check`, `topics` and `acls`, on real servers with right and wrong settings."""

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import live
import msgpack
import pytest
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, codec
from kafka.admin import ConfigResource, ConfigResourceType

from callmood import schemas
from callmood.__main__ import main
from callmood.schemas.keys import Keys
from callmood.worker.adapters.kafka_workarounds import topic_id
from callmood.worker.adapters.publish_kafka import CLOCK_KEY

pytestmark = pytest.mark.timeout(300)
_PATIENCE_S = 120  # a mistake takes seconds to find; on a busy machine the libraries take most of a minute


@pytest.fixture
def set_up(stack, redis_prefix, monkeypatch):
    """`set_up(**settings)` sets the environment: names of this test's own on the running servers."""
    name = f"test-{uuid4().hex[:12]}"
    topics = [f"{name}-{kind}" for kind in ("audio", "dead", "utterances", "calls", "alerts", "states", "erasures")]
    keys = (
        *("audio_topic", "dead_letter_topic", "utterance_topic", "call_topic", "alert_topic", "state_topic"),
        "erasure_topic",
    )

    def apply(**changes):
        values = {f"kafka__{key}": topic for key, topic in zip(keys, topics, strict=True)} | {
            "kafka__bootstrap_servers": stack.bootstrap_servers,
            "kafka__group_id": name,
            "redis__url": stack.redis_url,
            "redis__prefix": redis_prefix,
            "model__device": "cpu",
            "worker__health_host": "127.0.0.1",
        }
        for key, value in (values | changes).items():
            monkeypatch.setenv(f"CALLMOOD_{key.upper()}", value)
        return name

    yield apply
    with KafkaAdminClient(bootstrap_servers=stack.bootstrap_servers) as admin:
        admin.delete_topics(sorted(set(topics) & set(admin.list_topics())))


def check(capsys, *what):
    """The exit code, and a line for each thing that was tried."""
    code = main(["check", *what])
    lines = [line for line in capsys.readouterr().out.splitlines() if ": " in line]
    return code, dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("output", ["redis", "kafka", "both"])
def test_check_finds_everything_in_each_mode(set_up, capsys, output):
    """After `topics`, `check` finds everything in each mode, leaves nothing behind, and may be run again."""
    name = set_up(worker__output=output)
    assert main(["topics", "--partitions", "3", "--replication-factor", "1", "--retention-ms", "600000"]) == 0
    created = capsys.readouterr().out.splitlines()
    assert len(created) == (2 if output == "redis" else 7)
    assert main(["topics", "--partitions", "9"]) == 0
    assert {line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()} == {"exists"}
    for _ in range(2):
        code, said = check(capsys)
        assert code == 0, said
        assert list(said) == ["cores", "kafka", "redis", "model"]
        assert all(line.startswith("ok: ") for line in said.values())
        assert f"3 partitions of {name}-audio" in said["kafka"]
        assert "erasures" not in said["kafka"]
        assert "demo-tiny-synthetic" in said["model"]
        assert said["cores"] == "ok: shared by all processes"


def test_topics_get_their_partitions_and_cleanup_policy(set_up, stack, capsys):
    """States, calls and erasures are compacted, audio is kept as long as asked; dead letters have one partition."""
    name = set_up(worker__output="both")
    assert main(["topics", "--partitions", "3", "--replication-factor", "1", "--retention-ms", "600000"]) == 0
    with KafkaAdminClient(bootstrap_servers=stack.bootstrap_servers) as admin:
        described = {
            one["name"]: len(one["partitions"])
            for one in admin.describe_topics([f"{name}-{kind}" for kind in ("audio", "dead", "calls", "states")])
        }
        configs = {
            topic: admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            for topic in (f"{name}-states", f"{name}-audio", f"{name}-erasures")
        }
    assert described == {f"{name}-audio": 3, f"{name}-dead": 1, f"{name}-calls": 3, f"{name}-states": 3}
    assert "compact" in str(configs[f"{name}-states"])
    assert "compact" in str(configs[f"{name}-erasures"])
    assert "33554432" in str(configs[f"{name}-states"])
    assert "600000" in str(configs[f"{name}-audio"])
    capsys.readouterr()


def test_no_reader_sees_what_check_writes(set_up, stack, capsys):
    """What `check` writes in Kafka is aborted: who reads what is committed finds the topics empty."""
    name = set_up(worker__output="both")
    main(["topics", "--partitions", "1", "--replication-factor", "1"])
    capsys.readouterr()
    assert check(capsys, "kafka")[0] == 0
    consumer = KafkaConsumer(
        f"{name}-utterances",
        f"{name}-states",
        bootstrap_servers=stack.bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        consumer_timeout_ms=2000,
    )
    assert list(consumer) == []
    consumer.close()


MISTAKES = {
    "no topic": ({"kafka__audio_topic": "nowhere"}, 2, "kafka", "topic 'nowhere' does not exist"),
    "no broker": (
        {"kafka__bootstrap_servers": "127.0.0.1:9", "kafka__request_timeout_ms": "3000"},
        75,
        "kafka",
        "127.0.0.1:9",
    ),
    "no redis": ({"redis__url": "redis://127.0.0.1:9/0"}, 75, "redis", "does not answer"),
    "wrong password": ({"redis__url": "redis://nobody:wrong@{redis}"}, 2, "redis", "Redis refuses this user"),
    "http instead of redis": ({"redis__url": "http://127.0.0.1:6379"}, 2, "redis", "CALLMOOD_REDIS__URL"),
    "no such database": ({"redis__url": "redis://{redis}/99"}, 2, "redis", "CALLMOOD_REDIS__URL"),
    "no port": ({"kafka__bootstrap_servers": "127.0.0.1:kafka"}, 2, "kafka", "CALLMOOD_KAFKA__BOOTSTRAP_SERVERS"),
    "no cluster": ({"redis__cluster": "true"}, 2, "redis", "CALLMOOD_REDIS__CLUSTER=false"),
    "no model": ({"model__path": "nowhere"}, 2, "model", "no such folder"),
    "no gpu": ({"model__device": "cuda"}, 2, "model", "finds no GPU"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_in_one_line(set_up, stack, mistake):
    """The command names the mistake in one line, with the exit code of a worker."""
    changes, code, what, says = MISTAKES[mistake]
    address = stack.redis_url.partition("://")[2].partition("/")[0]
    set_up(**{key: value.replace("{redis}", address) for key, value in changes.items()})
    # A process of its own, as it is used: kafka-python leaves sockets of failed connections behind.
    command = [sys.executable, "-m", "callmood", "check", what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(f"{what}: ")
    assert not done.stdout.startswith(f"{what}: ok")
    assert says in done.stdout


def test_an_output_topic_with_too_few_partitions_is_refused(set_up, stack, capsys):
    """An output topic with fewer partitions than the audio has is named with both counts."""
    name = set_up(worker__output="kafka")
    stack.create_topic(f"{name}-utterances", 1)
    main(["topics", "--partitions", "2", "--replication-factor", "1"])
    capsys.readouterr()
    code, said = check(capsys, "kafka")
    assert code == 2
    assert f"{name}-utterances' has 1 partitions and '{name}-audio' has 2" in said["kafka"]


@pytest.mark.parametrize(
    ("kind", "policy", "says"),
    [("states", "delete", "set cleanup.policy=compact"), ("dead", "compact", "set cleanup.policy=delete")],
)
def test_a_topic_that_would_lose_records_is_refused(set_up, stack, capsys, kind, policy, says):
    """States that are not compacted, and dead-letter records that are, are named with what to set."""
    name = set_up(worker__output="kafka")
    stack.create_topic(f"{name}-{kind}", 1, {"cleanup.policy": policy})
    main(["topics", "--partitions", "1", "--replication-factor", "1"])
    capsys.readouterr()
    code, said = check(capsys, "kafka")
    assert code == 2
    assert f"'{name}-{kind}' has cleanup.policy={policy}" in said["kafka"]
    assert says in said["kafka"]


def test_a_missing_topic_of_erasures_is_named(set_up, stack, capsys):
    """A worker runs without it, so that is a warning: only `callmood erase` needs it."""
    name = set_up(worker__output="kafka")
    main(["topics", "--partitions", "1", "--replication-factor", "1"])
    stack.delete_topic(f"{name}-erasures")
    capsys.readouterr()
    code, said = check(capsys, "kafka")
    assert code == 0
    assert f"'{name}-erasures' does not exist, and `callmood erase` needs it" in said["kafka"]


def test_states_in_large_segments_are_named(set_up, stack, capsys):
    """Kafka compacts no newest segment: with a gigabyte of old states a takeover takes minutes."""
    name = set_up(worker__output="kafka")
    stack.create_topic(f"{name}-states", 1, {"cleanup.policy": "compact"})
    main(["topics", "--partitions", "1", "--replication-factor", "1"])
    capsys.readouterr()
    code, said = check(capsys, "kafka")
    assert code == 0
    assert "segment.bytes=1073741824" in said["kafka"]


FOREIGN = {"topic_id": "created again", "group": "consumer group 'other'"}


def test_a_position_of_somebody_else_in_redis_is_named(set_up, capsys, redis_client, redis_prefix):
    """A topic that was created again, and a second deployment with another group: before any worker starts."""
    name = set_up()
    main(["topics", "--partitions", "2", "--replication-factor", "1"])
    capsys.readouterr()
    for field, words in FOREIGN.items():
        assert check(capsys, "kafka")[0] == 0
        redis_client.hset(Keys(redis_prefix).position(f"{name}-audio", 1), field, "other")
        code, said = check(capsys, "kafka")
        assert (code, words in said["kafka"]) == (2, True)
        redis_client.delete(Keys(redis_prefix).position(f"{name}-audio", 1))


def test_a_position_of_somebody_else_in_kafka_is_named(set_up, stack, capsys):
    """The newest position of the states topic counts."""
    name = set_up(worker__output="kafka")
    main(["topics", "--partitions", "2", "--replication-factor", "1"])
    capsys.readouterr()
    assert check(capsys, "kafka")[0] == 0
    with closing(KafkaProducer(bootstrap_servers=stack.bootstrap_servers)) as producer:
        for field, words in FOREIGN.items():
            clock = msgpack.packb({"time": [0] * 5, "watermark": 1, "origin": {field: "other"}})
            producer.send(f"{name}-states", key=CLOCK_KEY, value=clock, partition=1).get(10)
            code, said = check(capsys, "kafka")
            assert (code, words in said["kafka"]) == (2, True)


def test_a_topic_that_was_made_again_is_named(set_up, real_kafka, capsys, redis_client, redis_prefix):
    """The position is that of the topic before it was deleted; a broker gives each topic its own id."""
    audio = f"{set_up()}-audio"
    main(["topics", "--partitions", "1", "--replication-factor", "1"])
    with closing(KafkaConsumer(bootstrap_servers=real_kafka.bootstrap_servers)) as consumer:
        assert consumer.partitions_for_topic(audio) == {0}
        redis_client.hset(Keys(redis_prefix).position(audio, 0), "topic_id", topic_id(consumer, audio))
    capsys.readouterr()
    assert check(capsys, "kafka")[0] == 0
    real_kafka.delete_topic(audio)
    with KafkaAdminClient(bootstrap_servers=real_kafka.bootstrap_servers) as admin:
        assert live.wait_until(lambda: audio not in admin.list_topics(), 30)
    real_kafka.create_topic(audio, 1)
    code, said = check(capsys, "kafka")
    assert (code, "deleted and created again" in said["kafka"]) == (2, True), said


def test_equal_topics_are_named(set_up, capsys):
    """Audio and dead-letter records in one topic would be read again for ever."""
    name = set_up()
    set_up(kafka__dead_letter_topic=f"{name}-audio")
    assert main(["check", "kafka"]) == 2
    assert "each needs its own topic" in capsys.readouterr().err


def test_a_missing_codec_is_named(set_up, capsys, monkeypatch):
    """An installation that cannot read every codec of Kafka says which."""
    set_up()
    main(["topics", "--partitions", "1", "--replication-factor", "1"])
    capsys.readouterr()
    assert check(capsys, "kafka")[0] == 0
    monkeypatch.setattr(codec, "has_snappy", lambda: False)
    code, said = check(capsys, "kafka")
    assert code == 2
    assert "snappy" in said["kafka"]


def test_the_recommended_worker_user_passes_the_check(set_up, stack, redis_prefix, capsys):
    """The Redis user that schemas/redis.md recommends passes; one without scripts is refused by name of the command."""
    catalogue = (Path(schemas.__file__).parent / "redis.md").read_text(encoding="utf-8")
    rules = re.search(r"ACL SETUSER worker reset on >SECRET\s(.*?)```", catalogue, re.DOTALL)[1]
    user = f"test-{uuid4().hex[:8]}"
    words = rules.replace("{callmood}", Keys(redis_prefix).tag).split()
    address = stack.redis_url.partition("://")[2]
    set_up(redis__url=f"redis://{user}:SECRET@{address}")
    with redis.Redis.from_url(stack.redis_url) as admin:
        try:
            admin.execute_command("ACL", "SETUSER", user, "reset", "on", ">SECRET", *words)
            assert check(capsys, "redis")[0] == 0
            admin.execute_command("ACL", "SETUSER", user, "-evalsha")
            code, said = check(capsys, "redis")
            assert code == 2
            assert "evalsha" in said["redis"].lower()
            assert "SECRET" not in said["redis"]
        finally:
            admin.execute_command("ACL", "DELUSER", user)
