"""`callmood erase`: a call that has ended leaves Redis, and Kafka as far as Kafka lets go."""

import json
import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.errors import UnknownTopicOrPartitionError

from callmood import schemas
from callmood.__main__ import main
from callmood.schemas.erasure import Erasure
from callmood.schemas.keys import Keys

pytestmark = pytest.mark.timeout(300)

CALLS = Path(__file__).parents[2] / "examples" / "calls"
KINDS = {"utterance": "utterances", "call": "calls", "alert": "alerts", "state": "states", "erasure": "erasures"}


@pytest.fixture
def served(pipeline, stack, monkeypatch, capsys, wait_until):
    """`served(output)` takes two calls to their end and gives their ids; the environment is the worker's."""
    topics = {f"kafka__{key}_topic": f"{pipeline.audio_topic}-{name}" for key, name in KINDS.items()}

    def serve(output):
        if output != "redis":
            for key, topic in topics.items():
                compacted = key not in ("kafka__utterance_topic", "kafka__alert_topic")
                stack.create_topic(topic, 4, {"cleanup.policy": "compact"} if compacted else None)
        changes = {**topics, "worker__output": output}
        for key, value in (
            changes.items()
            | {
                "kafka__bootstrap_servers": pipeline.bootstrap_servers,
                "kafka__audio_topic": pipeline.audio_topic,
                "kafka__dead_letter_topic": pipeline.dead_letter_topic,
                "kafka__group_id": pipeline.prefix,
                "redis__url": pipeline.redis_url,
                "redis__prefix": pipeline.prefix,
            }.items()
        ):
            monkeypatch.setenv(f"CALLMOOD_{key.upper()}", value)
        pipeline.start_worker(**changes).wait_ready()
        assert main(["replay", "--speed", "0", *(str(CALLS / f"{name}.flac") for name in ("billing", "panne"))]) == 0
        ids = capsys.readouterr().out.split()
        if output == "kafka":
            assert wait_until(
                lambda: all(ended_in_kafka(pipeline, topics["kafka__call_topic"], one) for one in ids), 60
            )
        else:
            assert wait_until(lambda: all((pipeline.call(i) or {}).get("status") == "completed" for i in ids), 60)
        return ids

    yield serve
    for topic in topics.values():
        with suppress(UnknownTopicOrPartitionError):  # with output=redis there is none
            stack.delete_topic(topic)


def records(pipeline, topic, call_id):
    """All that can be read of a call on a topic, oldest first."""
    options = {"isolation_level": "read_committed", "bootstrap_servers": pipeline.bootstrap_servers}
    consumer = KafkaConsumer(**options, consumer_timeout_ms=2000)
    consumer.assign([KafkaPartition(topic, p) for p in consumer.partitions_for_topic(topic)])
    consumer.seek_to_beginning()
    found = [record.value for record in consumer if record.key == call_id.encode()]
    consumer.close()
    return found


def ended_in_kafka(pipeline, topic, call_id):
    values = records(pipeline, topic, call_id)
    return bool(values) and json.loads(values[-1])["status"] == "completed"


def everything_in_redis(pipeline, but="no such key"):
    """All keys of the prefix with their content, as text; `but` for the keys with that in their names."""
    text = []
    with redis.Redis.from_url(pipeline.redis_url) as client:
        for key in client.scan_iter(Keys(pipeline.prefix).named("*")):
            if but.encode() in key:
                continue
            kind = client.type(key)
            read = {
                b"hash": client.hgetall,
                b"stream": client.xrange,
                b"zset": lambda name: client.zrange(name, 0, -1),
            }[kind]
            text.append(f"{key} {read(key)}")
    return "\n".join(text)


def erased(capsys, call_id):
    code = main(["erase", call_id])
    said = capsys.readouterr()
    assert said.out, said.err
    return code, json.loads(said.out)


def test_erasure_removes_one_call_from_redis(served, pipeline, capsys):
    """Every key and entry of the call is gone, the other call is untouched, and the receipt says how much there was."""
    first, second = served("redis")
    other = pipeline.call(second)
    with redis.Redis.from_url(pipeline.redis_url) as client:
        for call_id in (first, second):
            client.hset(
                Keys(pipeline.prefix).claims, f"{call_id}:long_silence:1", '{"by": "kim", "note": "called back"}'
            )
    assert first in everything_in_redis(pipeline)
    code, receipt = erased(capsys, first)
    assert first not in everything_in_redis(pipeline, but="states:")
    assert pipeline.call(second) == other
    assert f"{second}:long_silence:1" in everything_in_redis(pipeline)
    places = {place["where"].rpartition(":")[2].strip(): place for place in receipt["places"]}
    assert places["utterances"]["found"] == 10
    assert receipt["announced"] == []
    assert places["utterances"]["left"] == 0
    # Audio on Kafka goes by retention alone: that is said, and is the exit code.
    audio = places[pipeline.audio_topic]
    assert audio["found"] == audio["left"] > 100
    assert (code, receipt["left_to_retention"]) == (1, audio["left"] + 1)  # and that it was there at all, for a while


def test_the_recommended_user_may_erase(served, pipeline, monkeypatch, capsys):
    """The Redis user `eraser` that schemas/redis.md recommends is enough, and without DEL refused in one line."""
    first, _ = served("redis")
    catalogue = (Path(schemas.__file__).parent / "redis.md").read_text(encoding="utf-8")
    rules = re.search(r"ACL SETUSER eraser reset on >SECRET\s(.*?)```", catalogue, re.DOTALL)[1]
    user = f"test-{uuid4().hex[:8]}"
    words = rules.replace("{callmood}", Keys(pipeline.prefix).tag).split()
    monkeypatch.setenv("CALLMOOD_REDIS__URL", f"redis://{user}:SECRET@{pipeline.redis_url.partition('://')[2]}")
    with redis.Redis.from_url(pipeline.redis_url) as admin:
        try:
            admin.execute_command("ACL", "SETUSER", user, "reset", "on", ">SECRET", *words, "-del")
            assert main(["erase", first]) == 2
            said = capsys.readouterr().err
            assert "schemas/redis.md" in said
            assert said.count("\n") == 1
            assert pipeline.call(first)
            admin.execute_command("ACL", "SETUSER", user, "+del")
            erased(capsys, first)
            assert pipeline.call(first) is None
        finally:
            admin.execute_command("ACL", "DELUSER", user)


@pytest.mark.nightly
def test_a_second_erasure_finds_nothing(served, capsys):
    """Erasing again is harmless, and finds nothing in Redis."""
    first, _ = served("redis")
    erased(capsys, first)
    _, receipt = erased(capsys, first)
    gone = [
        place
        for place in receipt["places"]
        if not place["where"].startswith("kafka") and "states" not in place["where"]
    ]
    assert len(gone) == 11
    assert all(place["found"] == 0 for place in gone)


@pytest.mark.parametrize("output", [pytest.param("kafka", marks=pytest.mark.nightly), "both"])
def test_an_erased_call_gets_tombstones_in_kafka(served, real_kafka, pipeline, capsys, output):
    """On each compacted topic a tombstone is the newest record; the projector does not bring the call back to Redis."""
    assert real_kafka
    first, second = served(output)
    _, receipt = erased(capsys, first)
    calls = f"{pipeline.audio_topic}-calls"
    assert records(pipeline, calls, first)[-1] is None
    assert records(pipeline, calls, second)[-1] is not None
    places = {place["where"]: place for place in receipt["places"]}
    assert places[f"kafka: {calls}"] == {"where": f"kafka: {calls}", "found": 1, "left": 0}
    assert places[f"kafka: {pipeline.audio_topic}-states"]["left"] == 1  # that it was there at all, for a while
    assert places[f"kafka: {pipeline.audio_topic}-utterances"]["left"] == 10
    _, again = erased(capsys, first)
    told = [
        Erasure.model_validate_json(value) for value in records(pipeline, f"{pipeline.audio_topic}-erasures", first)
    ]
    (one,), (other,) = receipt["announced"], again["announced"]
    assert one["erasure_id"] == other["erasure_id"] == told[0].erasure_id == told[1].erasure_id
    assert len(told) == 2
    assert (one["topic"], one["offset"]) != (other["topic"], other["offset"])
    if output == "both":
        assert first not in everything_in_redis(pipeline, but="states:")
        assert pipeline.call(second)
    pipeline.workers[-1].stop()


def test_a_live_call_is_refused(served, pipeline, recorded, wait_until, capsys):
    """A call that has not ended is not erased, as the worker would write it again; nothing is touched."""
    served("redis")
    with pipeline.sending({"still-live": recorded.call("billing")}) as gate:
        gate.open(20_000)
        assert wait_until(lambda: (pipeline.call("still-live") or {}).get("utterances", 0) >= 2, 60)
        capsys.readouterr()
        code = main(["erase", "still-live"])
        said = capsys.readouterr()
        assert (code, said.out) == (2, "")
        assert "is live" in said.err
        assert pipeline.call("still-live")["status"] == "live"
