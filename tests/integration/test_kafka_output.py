"""Results in Kafka, and their projection into Redis: exact through kills, as results in Redis are."""

import json
from contextlib import closing
from functools import partial
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.partitioner.default import murmur2

pytestmark = pytest.mark.timeout(300)

_QUICK = {"kafka__session_timeout_ms": "3000", "worker__commit_interval_ms": "100", "worker__state_interval_ms": "500"}
_PHASES_MS = (11_000, 22_000)
_READ_S = 30


def _read(pipeline, topic):
    """Everything committed on a topic, in order."""
    records = []
    with closing(
        KafkaConsumer(bootstrap_servers=pipeline.bootstrap_servers, isolation_level="read_committed")
    ) as reader:
        partitions = [KafkaPartition(topic, number) for number in reader.partitions_for_topic(topic)]
        reader.assign(partitions)
        reader.seek_to_beginning(*partitions)
        ends = reader.end_offsets(partitions)
        while any(reader.position(partition) < ends[partition] for partition in partitions):
            for polled in reader.poll(timeout_ms=200).values():
                records += polled
    return records


def _values(pipeline, topic):
    return [json.loads(record.value) for record in _read(pipeline, topic) if record.value]


def _content(utterance):
    return {name: value for name, value in utterance.items() if name not in {"latency_ms", "source", "traceparent"}}


def _pid(worker, name):
    return [line["pid"] for line in worker.lines("process started") if line["name"] == name][-1]


def _run(pipeline, worker, calls, wait_until, victims, topic):
    """Send the calls in phases, with a kill after each."""
    with pipeline.sending(calls) as gate:
        for until_ms, victim in zip(_PHASES_MS, victims, strict=True):
            seen = len(_values(pipeline, topic))
            gate.open(until_ms)
            assert wait_until(lambda seen=seen: len(_values(pipeline, topic)) > seen, poll_s=0.3)
            worker.kill([_pid(worker, victim)])


def _assert_exact(pipeline, calls, outputs):
    utterances = _values(pipeline, outputs["kafka__utterance_topic"])
    newest = {call["call_id"]: call for call in _values(pipeline, outputs["kafka__call_topic"])}
    for call_id, recording in calls.items():
        expected, summary = pipeline.expect(recording, call_id)
        mine = [utterance for utterance in utterances if utterance["call_id"] == call_id]
        assert [u["number"] for u in mine] == list(range(1, len(expected) + 1))
        assert [u["utterance_id"] for u in mine] == [u["utterance_id"] for u in expected]
        assert [_content(u)["emotion"] is None for u in mine] == [u["emotion"] is None for u in expected]
        ignored = ("roles", "started_at_ms", "updated_at_ms", "version")
        assert {k: v for k, v in newest[call_id].items() if k not in ignored} == {
            k: v for k, v in summary.items() if k not in ignored
        }
        counts = {role: summary["roles"][role]["utterances"] for role in summary["roles"]}
        assert {role: said["utterances"] for role, said in newest[call_id]["roles"].items()} == counts


def _ended(pipeline, topic):
    return {call["call_id"] for call in _values(pipeline, topic) if call["end_reason"]}


@pytest.mark.nightly  # chaos runs do it, too
def test_ingest_is_killed_with_output_to_kafka(pipeline, outputs, recorded, wait_until):
    """With output=kafka, read_committed readers see every utterance once, although ingest is killed twice."""
    calls = {f"{name}-{uuid4().hex[:8]}": recording for name, recording in recorded.all().items()}
    worker = pipeline.start_worker(worker__output="kafka", **_QUICK, **outputs).wait_ready()
    _run(pipeline, worker, calls, wait_until, ("ingest-0", "ingest-0"), outputs["kafka__utterance_topic"])
    assert wait_until(lambda: _ended(pipeline, outputs["kafka__call_topic"]) >= calls.keys(), poll_s=0.5), worker.log
    _assert_exact(pipeline, calls, outputs)
    worker.stop()


def test_redis_is_an_exact_projection_of_kafka(pipeline, outputs, recorded, wait_until):
    """With output=both, Redis holds exactly what stands in Kafka, although ingest and the projector are killed."""
    calls = {f"{name}-{uuid4().hex[:8]}": recording for name, recording in recorded.all().items()}
    worker = pipeline.start_worker(worker__output="both", **_QUICK, **outputs).wait_ready()
    _run(pipeline, worker, calls, wait_until, ("projector", "ingest-0"), outputs["kafka__utterance_topic"])
    assert wait_until(lambda: len(pipeline.ended(calls)) == len(calls)), worker.log
    _assert_exact(pipeline, calls, outputs)
    committed = _values(pipeline, outputs["kafka__utterance_topic"])
    assert wait_until(lambda: len(pipeline.firehose()) >= len(committed))
    by_id = {utterance["utterance_id"]: utterance for utterance in committed}
    assert {u["utterance_id"]: u for u in pipeline.firehose()} == by_id
    assert len(pipeline.firehose()) == len(committed) == len(by_id)
    for call_id in calls:
        assert pipeline.utterances(call_id) == [u for u in committed if u["call_id"] == call_id]
    worker.stop()


@pytest.mark.nightly
def test_two_workers_on_one_host_do_not_fence_each_other(pipeline, outputs, recorded, wait_until):
    """Two workers side by side share the partitions and commit to Kafka exactly, and neither dies of the other."""
    calls = {f"{name}-{uuid4().hex[:8]}": call for name, call in recorded.all().items() for _ in range(2)}
    workers = [pipeline.start_worker(worker__output="kafka", **_QUICK, **outputs) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    halves = [(200, "ready, 2 partitions\n")] * 2
    assert wait_until(lambda: [worker.probe("readyz") for worker in workers] == halves, 60)
    pipeline.send(calls)
    assert wait_until(lambda: _ended(pipeline, outputs["kafka__call_topic"]) >= calls.keys(), poll_s=0.5)
    _assert_exact(pipeline, calls, outputs)
    for worker in workers:
        assert worker.lines("process exited") == []
        worker.stop()


def test_output_topics_must_match_the_audio_topic(pipeline, outputs, stack):
    """An output topic with another number of partitions ends the worker with one line and code 2."""
    stack.create_topic(f"{pipeline.prefix}-narrow", 1)
    topics = outputs | {"kafka__state_topic": f"{pipeline.prefix}-narrow"}
    worker = pipeline.start_worker(worker__output="kafka", **topics)
    assert worker.exit_code() == 2
    assert any("1 partitions" in line.get("error", "") for line in worker.lines("cannot run"))


def _on_partition(number, partitions):
    """A call id that producers put on this partition."""
    ids = (f"call-{uuid4().hex[:8]}" for _ in range(1000))
    return next(call_id for call_id in ids if (murmur2(call_id.encode()) & 0x7FFFFFFF) % partitions == number)


def test_a_partition_that_only_the_audio_topic_has_waits(pipeline, outputs, recorded, wait_until):
    """The log names it, the others go on meanwhile, and once the output topics have it, its calls lose nothing."""
    worker = pipeline.start_worker(worker__output="kafka", **_QUICK, **outputs).wait_ready()
    here, waiting = ({_on_partition(number, 5): recorded.call(name)} for number, name in ((1, "billing"), (4, "panne")))
    ended = partial(_ended, pipeline, outputs["kafka__call_topic"])
    with closing(KafkaAdminClient(bootstrap_servers=pipeline.bootstrap_servers)) as admin:
        admin.create_partitions({pipeline.audio_topic: 5})
        assert wait_until(lambda: worker.lines("output topic lacks a partition"), poll_s=0.5), worker.log
        pipeline.send(here | waiting)
        assert wait_until(lambda: ended() >= here.keys(), poll_s=0.5), worker.log
        assert not ended() & waiting.keys()
        assert {line["partition"] for line in worker.lines("output topic lacks a partition")} == {4}
        admin.create_partitions(dict.fromkeys(outputs.values(), 5))
    assert wait_until(lambda: ended() >= waiting.keys(), poll_s=0.5), worker.log
    _assert_exact(pipeline, here | waiting, outputs)
    worker.stop()
