"""What is asked of a partition's former leader is asked of the new one."""

import asyncio

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import InvalidMetadataError

from callmood.worker.adapters import kafka_offsets

AUDIO, STATES = TopicPartition("audio", 3), TopicPartition("states", 7)


def asked(monkeypatch, *answer):
    """What the installed method makes of an answer of the client's own."""

    async def ask(_, timestamps):
        assert timestamps == {AUDIO: -1, STATES: -1}
        return answer

    monkeypatch.setattr(Fetcher, "_send_list_offsets_requests", ask)
    kafka_offsets.install()
    return asyncio.run(Fetcher._send_list_offsets_requests(None, {AUDIO: -1, STATES: -1}))


def test_a_partition_to_ask_for_again_needs_new_metadata(monkeypatch):
    """The error is one for which the client gets new metadata, and names the partitions."""
    with pytest.raises(InvalidMetadataError, match="audio/3, states/7"):
        asked(monkeypatch, {}, {STATES, AUDIO})


def test_answers_of_leaders_stay_as_they_are(monkeypatch):
    """Nothing has to be asked for again."""
    assert asked(monkeypatch, {AUDIO: 12, STATES: 40}, set()) == ({AUDIO: 12, STATES: 40}, set())


def test_installing_again_changes_nothing(monkeypatch):
    """Every client that is made calls `install`, and the method is wrapped once."""
    monkeypatch.setattr(Fetcher, "_send_list_offsets_requests", Fetcher._send_list_offsets_requests)
    kafka_offsets.install()
    once = Fetcher._send_list_offsets_requests
    kafka_offsets.install()
    assert Fetcher._send_list_offsets_requests is once
