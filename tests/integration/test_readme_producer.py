"""The producer that the README shows, run as it stands there against the real Kafka."""

import os
import re
import subprocess
import sys
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

from callmood.schemas.common import Event
from callmood.worker.intake.decode import decode
from callmood.worker.records import Position, Record

ROOT = Path(__file__).parents[2]
AT_ONCE = "import time; time.sleep = lambda seconds: None\n"


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


def test_the_worker_can_read_what_the_example_of_the_readme_sends(topic, stack):
    """Each record of the README's producer is legal audio/1: a call from its start to its end."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    name = topic(partitions=2)
    code = AT_ONCE + block.replace('"callmood.audio"', repr(name))
    environment = os.environ | {"CALLMOOD_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=30)

    chunks = []
    for sent in records_of(name, stack.bootstrap_servers):
        record = Record(Position(name, 0, sent.offset), sent.key, sent.value, tuple(sent.headers), sent.timestamp)
        chunks.append(decode(record, input_format="headers", max_record_ms=1000))
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.event for chunk in chunks] == [Event.START, *[Event.MEDIA] * (len(chunks) - 2), Event.END]
    assert sum(chunk.samples for chunk in chunks) > 30 * 8000
    assert {chunk.call_id for chunk in chunks} == {"call-42"}
