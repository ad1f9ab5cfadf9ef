"""Hours of hold: what a successor would have to read again stays within 25 s of audio, whatever a call consists of."""

from contextlib import closing

import pytest
import redis
from kafka import KafkaConsumer, TopicPartition
from telephony import Leg, quiet, voice

from callmood.schemas.keys import Keys
from callmood.worker.commands.recordings import Sent

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("real_kafka")]

HOUR_S = 3_600
LIMIT_S = 25.0


def an_hour_of(script, audio):
    """A call of one hour that does not end, in records of one second."""
    records = Leg(layout="customer").media(audio * (HOUR_S * 8_000 // len(audio)), chunk_ms=1_000)
    began_ms = records[0].at_ms
    return script(
        Sent(
            r.at_ms - began_ms, r.at_ms - began_ms, [(name, text.encode()) for name, text in r.headers.items()], r.value
        )
        for r in records
    )


def behind_s(pipeline):
    """Per partition with records: captured time from the watermark's record to the newest."""
    found = {}
    with (
        redis.Redis.from_url(pipeline.redis_url, decode_responses=True) as client,
        closing(KafkaConsumer(bootstrap_servers=pipeline.bootstrap_servers)) as consumer,
    ):
        for number in consumer.partitions_for_topic(pipeline.audio_topic):
            source = TopicPartition(pipeline.audio_topic, number)
            end = consumer.end_offsets([source])[source]
            watermark = client.hget(Keys(pipeline.prefix).position(pipeline.audio_topic, number), "watermark")
            if end and int(watermark or 0) < end:
                found[number] = (at_s(consumer, source, end - 1) - at_s(consumer, source, int(watermark or 0))) + 1.0
    return found


def at_s(consumer, source, offset):
    """When the record at this offset was captured."""
    consumer.assign([source])
    consumer.seek(source, offset)
    while not (records := consumer.poll(timeout_ms=1_000).get(source)):
        pass
    return records[0].timestamp / 1000


@pytest.mark.nightly
@pytest.mark.parametrize("audio", [quiet(60), voice(60)], ids=["silence", "music"])
def test_an_hour_of_hold_is_not_read_again(pipeline, script, wait_until, audio):
    """After an hour of silence or music that nobody has ended, at most the last 25 s are still to be settled."""
    pipeline.start_worker().wait_ready()
    pipeline.send({"hold": an_hour_of(script, audio)})
    assert wait_until(lambda: all(s <= LIMIT_S for s in behind_s(pipeline).values()), 120.0, 1.0), behind_s(pipeline)
    assert pipeline.call("hold")["status"] == "live"
