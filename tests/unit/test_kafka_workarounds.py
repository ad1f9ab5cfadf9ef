"""Each fault of kafka-python that the worker works around: the test fails without our part."""

import gc
import logging
import socket
import ssl
import weakref
from types import MethodType, SimpleNamespace

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, SaslAuthenticationFailedError
from kafka.future import Future
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.structs import ConsumerGroupMetadata, MemberState

from callmood.worker.adapters import kafka_workarounds
from callmood.worker.errors import EXIT_AGAIN

OFFSETS = {TopicPartition("audio", 0): OffsetAndMetadata(7, "", -1)}
MEMBER = ConsumerGroupMetadata("group", 3, "member", None, MemberState.STABLE)


@pytest.fixture(autouse=True)
def _installed():
    kafka_workarounds.install()


# -- 1. the last bytes


@pytest.mark.parametrize("transport", [KafkaTCPTransport, KafkaSSLTransport])
def test_the_last_bytes_before_the_end_are_read(transport):
    """Bytes that arrive together with the end of a connection are returned first, and the end at the next read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reader = transport.__new__(transport)
        KafkaTCPTransport.__init__(reader, None, ours)
        theirs.sendall(b"refused")
        assert reader._sock_recv() == (b"refused", None)
        theirs.sendall(b"refused again")
        theirs.close()
        assert reader._sock_recv() == (b"refused again", None)
        data, error = reader._sock_recv()
        assert data == b""
        assert isinstance(error, KafkaConnectionError)


def test_installing_again_changes_nothing():
    """Every client that is made calls `install`, and the methods are wrapped once."""
    before = (KafkaTCPTransport._sock_recv, KafkaSSLTransport._sock_recv, DefaultRecordBatch._read_msg)
    kafka_workarounds.install()
    assert (KafkaTCPTransport._sock_recv, KafkaSSLTransport._sock_recv, DefaultRecordBatch._read_msg) == before
    assert not hasattr(before[0].__wrapped__, "__wrapped__")


# -- 2. header names


class _Name(str):
    """A header name that is sent as these bytes."""

    __slots__ = ()

    def encode(self, *_):
        return b"x-\xff\xfe"


@pytest.mark.parametrize("compression", [0, DefaultRecordBatchBuilder.CODEC_GZIP], ids=["plain", "gzip"])
def test_a_header_name_that_is_not_utf8_is_read(compression):
    """The record with it, and those before and after it in the batch, arrive whole."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 20)
    for number, name in enumerate(("before", _Name("odd"), "after")):
        builder.append(number, 1_000, b"key", b"x-\xff\xfe", [(name, b"\xff"), ("none", None)])
    records = list(DefaultRecordBatch(bytes(builder.build())))
    assert [record.headers[0] for record in records] == [
        ("before", b"\xff"),
        ("x-\udcff\udcfe", b"\xff"),
        ("after", b"\xff"),
    ]
    assert {record.headers[1] for record in records} == {("none", None)}
    assert {(record.key, record.value) for record in records} == {(b"key", b"x-\xff\xfe")}


# -- 3. refusals


def fails_after_logging(*logged, with_error=None):
    """A call of the client that logs and ends in a timeout, or in this error."""
    with kafka_workarounds.refusals_raised():
        for error in logged:
            logging.getLogger("kafka.net.manager").error("Connection failed: %s", error)
        raise with_error or KafkaTimeoutError("no reason given")


def test_a_logged_refusal_is_raised():
    """The newest refusal that the client has logged is raised, not its timeout."""
    with pytest.raises(ssl.SSLCertVerificationError, match="newest"):
        fails_after_logging(ssl.SSLError("older"), KafkaConnectionError(ssl.SSLCertVerificationError("newest")))


def test_a_lost_connection_is_no_refusal():
    """A broker that is gone, also within TLS, leaves the client's own error."""
    with pytest.raises(KafkaTimeoutError, match="no reason given"):
        fails_after_logging(KafkaConnectionError(ssl.SSLEOFError("EOF")), OSError("reset"))


def test_an_error_that_names_the_refusal_stays():
    """What the client raises itself is not replaced by what it has logged."""
    with pytest.raises(SaslAuthenticationFailedError, match="raised"):
        fails_after_logging(ssl.SSLError("logged"), with_error=SaslAuthenticationFailedError("raised"))


def test_the_handler_does_not_stay():
    """After the block the client's logger is as it was."""
    logger = logging.getLogger("kafka.net")
    before = list(logger.handlers)
    with pytest.raises(KafkaTimeoutError):
        fails_after_logging()
    assert logger.handlers == before


# -- 4. joins


class _Joining:
    """A consumer whose join of the group is open for some polls, and is forgotten unless it is asked for."""

    def __init__(self, polls):
        self.left = polls
        self.asked = 0
        self.timeouts_ms = []
        self._coordinator = self

    @property
    def rejoining(self):
        return self.left > 0

    def request_rejoin(self):
        self.asked += 1

    def poll(self, timeout_ms):
        self.timeouts_ms.append(timeout_ms)
        self.left -= 1
        return {}


def test_an_open_join_is_asked_for_again():
    """While a join is open, polls are long and each asks again; after it they are as short as wanted."""
    consumer = _Joining(3)
    for _ in range(4):
        kafka_workarounds.poll(consumer, 10)
    assert consumer.timeouts_ms == [500, 500, 500, 10]
    assert consumer.asked == 2


# -- 5. and 6. transactions


class _Producer:
    """Notes what is called; `fails` names the call that raises, `batch` is what a send comes to."""

    def __init__(self, fails=None, batch=None):
        self.calls = []
        self._fails = fails
        self._batch = batch

    def __getattr__(self, name):
        def call(*args, **_):
            self.calls.append((name, *args))
            if name == self._fails:
                raise KafkaError(name)
            return SimpleNamespace(get=self._get)

        return call

    def _get(self, timeout):
        assert timeout == 0
        if self._batch is not None:
            raise self._batch


def transact(producer):
    kafka_workarounds.transact(producer, [{"topic": "results"}, {"topic": "states"}], OFFSETS, MEMBER)


def test_a_transaction_has_results_offsets_and_membership():
    """All sends are flushed before the offsets go in, under the membership that is given."""
    producer = _Producer()
    transact(producer)
    assert producer.calls == [
        ("begin_transaction",),
        ("send",),
        ("send",),
        ("flush",),
        ("send_offsets_to_transaction", OFFSETS, MEMBER),
        ("commit_transaction",),
    ]


def test_a_batch_that_failed_commits_nothing():
    """A send that failed is found before the offsets go in."""
    producer = _Producer(batch=KafkaTimeoutError("expired"))
    with pytest.raises(KafkaTimeoutError, match="expired"):
        transact(producer)
    assert producer.calls[-1] == ("flush",)


@pytest.mark.parametrize("fails", ["begin_transaction", "send", "flush", "send_offsets_to_transaction"])
def test_an_error_ends_the_transaction_without_another_call(fails):
    """After an error nothing more is asked of the producer, not even to abort."""
    producer = _Producer(fails=fails)
    with pytest.raises(KafkaError, match=fails):
        transact(producer)
    assert producer.calls[-1][0] == fails


def test_a_batch_may_outlive_its_transaction():
    """A batch never expires before the transaction that it belongs to, and no request is longer than that."""
    options = kafka_workarounds.TRANSACTION_OPTIONS
    assert options["request_timeout_ms"] <= options["transaction_timeout_ms"]
    assert options["delivery_timeout_ms"] > options["transaction_timeout_ms"] + options["request_timeout_ms"]


def test_a_transaction_that_hangs_ends_the_process(monkeypatch):
    """A commit without an answer ends the process with the code that asks for a restart."""
    codes = []
    monkeypatch.setattr(kafka_workarounds, "_HANGING_S", 0.0)
    monkeypatch.setattr(kafka_workarounds.os, "_exit", codes.append)

    class Hanging(_Producer):
        def commit_transaction(self):
            for thread in kafka_workarounds.threading.enumerate():
                if isinstance(thread, kafka_workarounds.threading.Timer):
                    thread.join(10)

    transact(Hanging())
    assert codes == [EXIT_AGAIN]


@pytest.mark.parametrize(
    ("changes", "is_joining", "is_stable"),
    [
        ({}, False, True),
        ({"generation_id": -1}, False, False),
        ({"member_id": ""}, False, False),
        ({"state": MemberState.REBALANCING}, False, False),
        ({"state": MemberState.UNJOINED}, False, False),
        ({}, True, False),
    ],
    ids=["stable", "no generation", "no member", "rebalancing", "out", "joining"],
)
def test_only_a_stable_membership_counts(changes, is_joining, is_stable):
    """A member that is out, or that joins its group again, has no membership to commit with."""
    member = MEMBER._replace(**changes)
    coordinator = SimpleNamespace(rejoining=is_joining)
    found = kafka_workarounds.stable_membership(
        SimpleNamespace(group_metadata=lambda: member, _coordinator=coordinator)
    )
    assert found == (member if is_stable else None)


# -- 12. partitions that wait for every other fetch


@pytest.mark.parametrize(
    ("is_partial", "left", "expected"),
    [(False, [], False), (False, ["rest"], True), (True, [], True), (True, ["rest"], True)],
)
def test_what_is_left_of_the_last_partition_is_not_drained(is_partial, left, expected):
    """The next fetch waits for it, so that it asks for that partition as well; the records are as they were."""
    fetcher = SimpleNamespace(
        fetched_records=lambda max_records, *, update_offsets: ((max_records, update_offsets), is_partial),
        _next_partition_records=left,
    )
    kafka_workarounds.fetch_in_turn(SimpleNamespace(_fetcher=fetcher))
    assert fetcher.fetched_records(5, update_offsets=True) == ((5, True), expected)


# -- 13. an error of each poll that times out, in a circle with its callers


@pytest.fixture
def fetcher():
    """The client's fetcher with its own network and thread, and a fetch that is not answered."""
    net = NetworkSelector()
    net.start()
    manager = SimpleNamespace(_net=net)
    manager.wait_for = MethodType(KafkaConnectionManager.wait_for, manager)
    made = Fetcher.__new__(Fetcher)
    made._net, made._manager, made._reset_task, made._fetch_futures = net, manager, None, [Future()]
    made.fetched_records, made.send_fetches = lambda *_, **__: ({}, False), list
    yield made
    net.stop()
    net.close()


def test_a_poll_that_times_out_keeps_nothing_of_its_callers(fetcher):
    """What a caller holds is freed with the caller's frame, without the garbage collector."""

    class Audio:
        pass

    def turn():
        held = Audio()
        assert fetcher.fetch_records(timeout_ms=1) == ({}, False)
        return weakref.ref(held)

    gc.collect()
    gc.disable()
    try:
        assert turn()() is not None, "the fault is gone: section 13 can be deleted"
        kafka_workarounds.end_polls_without_error(SimpleNamespace(_fetcher=fetcher))
        assert turn()() is None
    finally:
        gc.enable()


def test_other_waits_of_the_fetcher_still_time_out(fetcher):
    """A question for offsets that is not answered in time stays an error."""

    async def offsets():
        raise KafkaTimeoutError("of another wait")

    kafka_workarounds.end_polls_without_error(SimpleNamespace(_fetcher=fetcher))
    with pytest.raises(KafkaTimeoutError, match="of another wait"):
        fetcher._net.run(offsets)
