"""The example producer and the Python snippet of the README, run against a real Kafka, a worker and a real Redis."""

import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from kafka import KafkaConsumer, TopicPartition

from callmood.schemas.common import Event
from callmood.worker.intake.decode import decode
from callmood.worker.records import Position, Record

ROOT = Path(__file__).parents[2]
FAST = "import runpy, sys, time; time.sleep = lambda s: None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"


def run_python(code, *arguments, **environment):
    """Standard output of a Python program that runs at the top of the repository."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def produce(servers, topic, call_id):
    """Run the example producer on an example call, without its waits."""
    arguments = ["examples/producer.py", "examples/calls/panne.flac", call_id]
    run_python(FAST, *arguments, CALLMOOD_KAFKA__BOOTSTRAP_SERVERS=servers, CALLMOOD_KAFKA__AUDIO_TOPIC=topic)


def records_of(topic, servers):
    """All records of a topic."""
    consumer = KafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        read, empty_polls = [], 0
        while empty_polls < 3:
            found = [record for records in consumer.poll(1000).values() for record in records]
            empty_polls = 0 if found else empty_polls + 1
            read += found
        return read
    finally:
        consumer.close()


def test_the_example_producer_sends_legal_records(topic, stack):
    """Each record of the example producer is legal audio/1: a call from its start to its end."""
    name = topic(partitions=2)
    produce(stack.bootstrap_servers, name, "call-42")
    chunks = []
    for sent in records_of(name, stack.bootstrap_servers):
        record = Record(Position(name, 0, sent.offset), sent.key, sent.value, tuple(sent.headers), sent.timestamp)
        chunks.append(decode(record, input_format="headers", max_record_ms=1000))
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.event for chunk in chunks] == [Event.START, *[Event.MEDIA] * (len(chunks) - 2), Event.END]
    assert sum(chunk.samples for chunk in chunks) > 30 * 8000
    assert {chunk.call_id for chunk in chunks} == {"call-42"}


def test_the_readme_snippet_prints_the_call_of_the_example_producer(running, wait_until):
    """From the example producer through a worker to the README's snippet, which prints the call's utterances."""
    call_id = f"readme-{uuid4().hex[:8]}"
    produce(running.bootstrap_servers, running.audio_topic, call_id)
    assert wait_until(lambda: running.ended([call_id]) == [call_id])
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert snippet.count('"call-42"') == 1
    assert snippet.count('prefix="callmood"') == 1
    code = snippet.replace('"call-42"', repr(call_id)).replace('prefix="callmood"', f"prefix={running.prefix!r}")
    printed = run_python(code, CALLMOOD_REDIS__URL=running.redis_url).splitlines()
    assert sum(" customer " in line for line in printed) == sum(
        utterance["role"] == "customer" for utterance in running.utterances(call_id)
    )
    assert any(" customer " in line for line in printed)
