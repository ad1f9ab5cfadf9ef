"""What is asked of a partition's former leader is asked of the present one, by the client's own loop."""

from collections import Counter
from types import MethodType, SimpleNamespace

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import KafkaConnectionError, KafkaTimeoutError
from kafka.future import Future
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from callmood.worker.adapters import kafka_offsets

AUDIO, STATES = TopicPartition("audio", 3), TopicPartition("states", 7)
ENDS = {AUDIO: 12, STATES: 40}


class Cluster:
    """Leaders of the partitions as each metadata tells them, the last ones the real ones; some refreshes can fail."""

    need_update = False

    def __init__(self, *leaders, fails=0):
        self.known, *self.coming = leaders
        self.led = leaders[-1]
        self.refreshes, self._fails = 0, fails

    def leader_for_partition(self, partition):
        """As far as the client knows."""
        return self.known[partition]

    def add_topic(self, topic):
        """Known already."""

    def request_update(self):
        """The next metadata, at once."""
        self.refreshes += 1
        if self._fails:
            self._fails -= 1
            return Future().failure(KafkaConnectionError("no broker answers"))
        if self.coming:
            self.known = self.coming.pop(0)
        return Future().success(self)


@pytest.fixture
def ends(monkeypatch):
    """The ends of both partitions, as a consumer asks for them, and how often it asked each node."""
    kafka_offsets.install()
    net, asked = NetworkSelector(), Counter()

    async def answer(fetcher, node, timestamps):
        asked[node] += 1
        led = {one for one in timestamps if fetcher._manager.cluster.led[one] == node}
        return {one: SimpleNamespace(offset=ENDS[one]) for one in led}, set(timestamps) - led

    def ends_in(cluster, timeout_ms=2_000):
        manager = SimpleNamespace(cluster=cluster, call_soon=net.call_soon_with_future, _net=net)
        manager.wait_for = MethodType(KafkaConnectionManager.wait_for, manager)
        fetcher = Fetcher.__new__(Fetcher)
        fetcher._manager, fetcher._net, fetcher.config = manager, net, {"retry_backoff_ms": 1}
        return fetcher.end_offsets([AUDIO, STATES], timeout_ms), asked

    monkeypatch.setattr(Fetcher, "_send_list_offsets_request", answer)
    yield ends_in
    net.close()


def test_the_new_leader_is_asked(ends):
    """A former leader is asked once; what another leader has answered is not asked for again."""
    cluster = Cluster({AUDIO: 1, STATES: 3}, {AUDIO: 2, STATES: 3})
    assert ends(cluster) == (ENDS, {1: 1, 2: 1, 3: 1})
    assert cluster.refreshes == 1


@pytest.mark.parametrize(
    "first", [{AUDIO: 1, STATES: 3}, {AUDIO: -1, STATES: 3}, {AUDIO: None, STATES: 3}, {AUDIO: -1, STATES: -1}]
)
def test_an_election_is_waited_for(ends, first):
    """A partition that has no leader meanwhile, or that the client does not know yet, is not left out."""
    none = {AUDIO: -1, STATES: 3}
    found, _ = ends(Cluster(first, none, none, {AUDIO: 2, STATES: 3}))
    assert found == ENDS


def test_metadata_that_nobody_sends_is_asked_for_again(ends):
    """A refresh that fails ends nothing before the time is up."""
    assert ends(Cluster({AUDIO: 1, STATES: 3}, {AUDIO: 2, STATES: 3}, fails=3))[0] == ENDS


def test_without_a_leader_the_time_limit_counts(ends):
    """The error is the client's own."""
    with pytest.raises(KafkaTimeoutError):
        ends(Cluster({AUDIO: -1, STATES: 3}), timeout_ms=50)


def test_installing_again_changes_nothing():
    """Every client that is made calls `install`, and the method is wrapped once."""
    kafka_offsets.install()
    once = Fetcher._send_list_offsets_requests
    kafka_offsets.install()
    assert Fetcher._send_list_offsets_requests is once
