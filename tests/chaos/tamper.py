"""Falsify the outputs of a run without findings: the verifier must then name each broken property."""

import json
from contextlib import closing
from typing import Any

from kafka import KafkaProducer

from callmood.redis_address import connect
from callmood.schemas.keys import Keys
from tests.chaos import look
from tests.chaos.config import Run

IN_REDIS = {
    "redis: utterances missing",
    "redis: utterances twice",
    "redis: utterances foreign",
    "redis: stream of all calls differs",
    "redis: utterances with other content",
    "redis: calls not numbered 1, 2, 3, …",
    "redis: calls missing",
    "redis: calls foreign",
    "redis: calls still live",
    "redis: aggregates that differ from a recount",
    "redis: looks meanwhile that are no prefix",
}
IN_KAFKA = {
    "kafka: utterances twice",
    "kafka: utterances foreign",
    "kafka: utterances overlapping or out of order",
    "kafka: calls not over exactly once",
    "kafka: aggregates that differ from a recount",
    "kafka: versions that are no fold of a prefix",
    "kafka: records seen meanwhile that differ",
    "dead letters foreign or changed",
}


def tamper(run: Run) -> set[str]:
    """Falsify every output; returns the properties that must be broken now."""
    broken = {"watermarks that are not at the end"} if run.mode == "redis" else set()
    if run.mode != "kafka":
        _in_redis(run)
        broken |= IN_REDIS
    if run.mode != "redis":
        _in_kafka(run)
        broken |= IN_KAFKA
    return broken


def _in_redis(run: Run) -> None:
    keys = Keys(run.prefix)
    calls = sorted(look.in_redis(run).utterances.items(), key=lambda item: -len(item[1]))
    (longest, _), (second, _), (third, said), (fourth, _) = calls[:4]
    with closing(connect(run.redis, timeout_s=10.0, decode_responses=True)) as client:
        client.xdel(keys.utterances_of(longest), "1-0")  # one is lost
        ((_, entry),) = client.xrange(keys.utterances_of(second), "1-0", "1-0")
        client.xadd(keys.utterances_of(second), entry, "999-0")  # one is there twice
        client.xadd(keys.utterances_of(fourth), _changed(entry, utterance_id="foreign"), "999-0")
        (newest, entry), *_ = client.xrevrange(keys.utterances_of(third), count=1)
        client.xdel(keys.utterances_of(third), newest)
        client.xadd(keys.utterances_of(third), _changed(entry, end_ms=said[-1]["end_ms"] + 20), "999-0")
        client.hincrby(keys.call(fourth), "talk_ms", 1)
        client.rename(keys.call(longest), keys.call("foreign"))
        client.zadd(keys.live_by("risk"), {longest: 0.5})
        client.hincrby(keys.named(f"position:{run.topic('audio')}:0"), "watermark", -1)
    history = run.file("history.jsonl")
    looks = [json.loads(line) for line in history.read_text().splitlines()]
    newest = next(seen for seen in reversed(looks) if "ids" in seen)
    with history.open("a") as file:  # one look showed what was never there
        file.write(json.dumps(newest | {"ids": ["foreign", *newest["ids"]]}) + "\n")


def _in_kafka(run: Run) -> None:
    (said, *_), (call, *_) = list(look.read(run, "utterance")), list(look.read(run, "call"))[-1:]
    letter = next(iter(look.read(run, "dead_letter")), None)
    utterance, version = json.loads(said.value), json.loads(call.value)
    with closing(KafkaProducer(bootstrap_servers=run.bootstrap_servers.split(","), acks="all")) as producer:

        def send(kind: str, like: Any, value: dict[str, Any]) -> None:
            encoded = json.dumps(value).encode()
            producer.send(run.topic(kind), key=like.key, value=encoded, partition=like.partition).get(30)

        send("utterance", said, utterance)
        send("utterance", said, utterance | {"utterance_id": "foreign"})
        send("call", call, version | {"talk_ms": version["talk_ms"] + 1})
        if letter is not None:
            headers = [(name, b"0" if name == "dead_letter.offset" else value) for name, value in letter.headers]
            producer.send(run.topic("dead_letter"), key=letter.key, value=letter.value, headers=headers).get(30)


def _changed(entry: dict[str, str], **fields: Any) -> dict[str, str]:
    return entry | {"json": json.dumps(json.loads(entry["json"]) | fields)}
