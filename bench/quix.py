"""What people write with Quix Streams: an application that decodes and cuts in `apply`, then labels, then writes.

`callmood bench capacity` starts it, to compare: `python -m callmood.bench.quix MODEL`, as `bench/plain.py`, whose parts
it uses. The speech of a call is kept in a dictionary of the process. Quix Streams' own state in RocksDB would have to
be read and written for each record, and cannot hold the voice detector; so a restart loses what is in the dictionary.
"""

import sys
from typing import Any

from callmood.bench.plain import Channels, Ended, labeller, writer
from callmood.worker import settings
from callmood.worker.errors import ConfigurationError
from callmood.worker.settings import Settings


def application(configured: Settings, model: str) -> Any:
    """The application, which reads the audio topic of the settings.

    Raises:
        ConfigurationError: Quix Streams is not installed.
    """
    try:
        from quixstreams import Application  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ConfigurationError("Quix Streams is not installed: pip install 'callmood[bench]'") from error
    channels, label, write = Channels(), labeller(model), writer(configured)

    def cut(value: bytes, key: bytes, timestamp: int, _headers: object) -> Ended | None:
        return channels.feed(key, value, timestamp)

    def labelled(ended: Ended) -> tuple[float, str]:
        return ended.last_word_ms, label(ended.pcm)

    def written(found: tuple[float, str], key: bytes, _timestamp: int, _headers: object) -> None:
        write(key, *found)

    made = Application(
        broker_address=configured.kafka.bootstrap_servers,
        consumer_group=configured.kafka.group_id,
        auto_offset_reset="latest",
        loglevel="WARNING",
    )
    topic = made.topic(configured.kafka.audio_topic, key_deserializer="bytes", value_deserializer="bytes")
    utterances = made.dataframe(topic).apply(cut, metadata=True).filter(lambda ended: ended is not None)
    utterances.apply(labelled).update(written, metadata=True)
    return made


def main(model: str) -> None:
    """Run the application for ever."""
    application(settings.load(), model).run()


if __name__ == "__main__":
    main(sys.argv[1])
