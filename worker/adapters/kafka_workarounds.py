"""Workarounds for faults and gaps of kafka-python 3.0.12. Only this module and its helpers use private names of it.

Every section says what the client does, what we do, and which change upstream would let us delete the section. Each has
its own unit test. docs/decisions/0013-kafka-client.md says why we keep the client.
"""

import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Final

import structlog
from kafka import ConsumerGroupMetadata, KafkaConsumer, KafkaProducer, OffsetAndMetadata
from kafka import TopicPartition as KafkaPartition
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.record.default_records import DefaultRecordBatch
from kafka.structs import MemberState

from callmood.worker.adapters import kafka_codecs, kafka_offsets
from callmood.worker.adapters.kafka_batches import PartitionRecords, Skipped
from callmood.worker.commits import TopicPartition
from callmood.worker.errors import EXIT_AGAIN

log = structlog.get_logger()


def install() -> None:
    """Replace the private methods of sections 1, 2 and 14. To be called before a client is made; again is harmless."""
    for owner, name, repair in (
        (KafkaTCPTransport, "_sock_recv", _with_last_bytes),
        (KafkaSSLTransport, "_sock_recv", _with_last_bytes),
        (DefaultRecordBatch, "_read_msg", _with_any_header_name),
    ):
        method = getattr(owner, name)
        if not hasattr(method, "__wrapped__"):
            setattr(owner, name, repair(method))
    kafka_codecs.install()
    kafka_offsets.install()  # section 14


# -- 1. The last bytes before the end of a connection are lost
#
# kafka-python: `_read_from_sock` in kafka/net/transport.py drops what it has read if the end of the connection came in
# the same read. A broker that refuses a login and hangs up at once is then a lost connection without a reason.
# We: `_sock_recv` returns the bytes first; the next read meets the end again.
# Upstream: no upstream issue found.


def _with_last_bytes(receive: Callable[[Any], tuple[bytes, Any]]) -> Callable[[Any], tuple[bytes, Any]]:
    @wraps(receive)
    def receive_all(transport: Any) -> tuple[bytes, Any]:
        data, error = receive(transport)
        return data, None if data else error

    return receive_all


# -- 2. A header name that is not UTF-8 stops the partition
#
# kafka-python: `_read_msg` in kafka/record/default_records.py decodes header names strictly, and reports the batch as
# corrupt. Names are bytes on the wire, and Go, Rust and C clients send any bytes. `poll` then fails at the same record
# after every restart.
# We: the batch is read again with names in which such bytes are lone surrogates, which no UTF-8 name contains.
# Upstream: no upstream issue found.


class _AnyName(str):
    """A header name, perhaps with lone surrogates; the client encodes it again to count the record's bytes."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        return super().encode(encoding, errors)


class _LenientBytes(bytearray):
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _LenientBytes(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> str:
        return _AnyName(super().decode(encoding, errors))


def sendable(headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    r"""Headers that the client can send: bytes of names that are not UTF-8 are written as `\xff`."""
    return [(name.encode(errors="surrogateescape").decode(errors="backslashreplace"), value) for name, value in headers]


def _with_any_header_name(read: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(read)
    def read_leniently(batch: Any, *args: Any) -> Any:
        try:
            return read(batch, *args)
        except UnicodeDecodeError:
            batch._buffer = _LenientBytes(batch._buffer)  # noqa: SLF001 - there is no other place to set the decoding
            return read(batch, *args)

    return read_leniently


# -- 3. A refused TLS handshake is only logged
#
# kafka-python: `_connect` in kafka/net/manager.py logs the error and tries again, until a timeout that gives no reason.
# We: a handler on the client's loggers keeps the newest refusal among the log arguments, and it is raised instead of
# the timeout.
# Upstream: dpkp/kafka-python#2994 did this for refused logins, by `_auth_failures`; for TLS no upstream issue found.

_LOST: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # the broker is gone: not a refusal
_REFUSALS: Final = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, AuthorizationError, ssl.SSLError)


def refusal_in(error: BaseException | None) -> BaseException | None:
    """The refusal that an error is, or comes from: a lost connection has it among its arguments."""
    if isinstance(error, _LOST):
        return None
    if error is None or isinstance(error, _REFUSALS):
        return error
    causes = [argument for argument in error.args if isinstance(argument, BaseException)]
    causes += [cause for cause in (error.__cause__ or error.__context__,) if cause is not None]
    return next((found for cause in causes if (found := refusal_in(cause)) is not None), None)


class _Refusals(logging.Handler):
    newest: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, BaseException) and (refusal := refusal_in(value)) is not None:
                self.newest = refusal


@contextmanager
def refusals_raised() -> Iterator[None]:
    """Raise the refused login or handshake that ended the block, not the timeout that hides it."""
    refusals, logger = _Refusals(), logging.getLogger("kafka.net")
    logger.addHandler(refusals)
    try:
        yield
    except KafkaError as error:
        if refusals.newest is None or refusal_in(error) is not None:
            raise
        raise refusals.newest from None
    finally:
        logger.removeHandler(refusals)


# -- 4. A group's leader forgets its open join
#
# kafka-python: if a poll ends before the join does, and new topic metadata caused the join (as at every start), then
# `need_rejoin` in kafka/coordinator/consumer.py is false at the next poll. Polls return nothing for ever, without an
# error. With polls of 10 ms, two consumers that started together hung in about one of four starts on Kafka 4.2.
# We: while a join is open, each poll lasts at least 500 ms, so that the join can end within it, and asks for the join
# again. 50 of 50 starts worked.
# Upstream: no upstream issue found; dpkp/kafka-python#2959 changed this poll loop and keeps the fault.

_JOIN_POLL_MS: Final = 500


def poll(consumer: KafkaConsumer, timeout_ms: int) -> Mapping[KafkaPartition, list[Any]]:
    """`consumer.poll` that keeps an open join of the group alive."""
    coordinator = consumer._coordinator  # noqa: SLF001 - there is no public way to know that a join is open
    polled: Mapping[KafkaPartition, list[Any]] = consumer.poll(
        timeout_ms=max(timeout_ms, _JOIN_POLL_MS) if coordinator.rejoining else timeout_ms
    )
    if coordinator.rejoining:
        coordinator.request_rejoin()
    return polled


# -- 5. The end of a transaction has no timeout
#
# kafka-python: `commit_transaction` and `send_offsets_to_transaction` in kafka/producer/kafka.py wait without limit.
# We: a timer ends the process; its successor recovers as after a kill.
# Upstream: no upstream issue found. Java's client had the same fault (KAFKA-7763).

_HANGING_S: Final = 20.0


@contextmanager
def _time_limit() -> Iterator[None]:
    timer = threading.Timer(_HANGING_S, _end_process)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_process() -> None:
    log.error("kafka transaction hangs; stopping the process")
    os._exit(EXIT_AGAIN)


# -- 6. A transaction loses or doubles data silently, in four ways
#
# kafka-python and what we do:
#   a. A batch that failed does not fail its transaction: we check every send before the offsets go in.
#   b. A batch that expires after the broker has aborted the transaction goes into the next one: the time limit of a
#      batch is longer than the transaction's (TRANSACTION_OPTIONS), never the other way round.
#   c. A member that was thrown out of the group has metadata that brokers accept unchecked, and a member that joins
#      again has a generation that brokers may already refuse: the offsets carry the membership that the last poll
#      left (`stable_membership`), never the live one. Only polls join, so brokers wait with a new generation.
#   d. After an error, refused offsets stay in the producer and go along with its next transaction: the caller of
#      `transact` never uses a producer again that has raised. It ends the process.
# Upstream: dpkp/kafka-python#3010 aborts more cleanly; for the rest no upstream issue found.

TRANSACTION_OPTIONS: Final = {
    "transaction_timeout_ms": 10_000,  # also the longest wait of a successor for what a dead process left open
    "request_timeout_ms": 10_000,  # longer than the transaction, and a broker's restart would abort what is in flight
    "delivery_timeout_ms": 30_000,  # more than both together
}
_FLUSH_S: Final = 10.0


def transact(
    producer: KafkaProducer,
    records: Iterable[Mapping[str, Any]],
    offsets: Mapping[KafkaPartition, OffsetAndMetadata],
    membership: ConsumerGroupMetadata,
) -> None:
    """Send records (arguments of `producer.send`) and offsets in one transaction.

    Raises:
        KafkaError: the transaction may not have taken place. Never use this producer again.
    """
    with _time_limit():
        producer.begin_transaction()
        sent = [producer.send(**record) for record in records]
        producer.flush(timeout=_FLUSH_S)
        for future in sent:
            future.get(timeout=0)
        producer.send_offsets_to_transaction(offsets, membership)
        producer.commit_transaction()


def stable_membership(consumer: KafkaConsumer) -> ConsumerGroupMetadata | None:
    """The consumer's place in its group; None while it joins, and once it is out."""
    member, is_joining = consumer.group_metadata(), consumer._coordinator.rejoining  # noqa: SLF001 - as in `poll`
    is_stable = member.state == MemberState.STABLE and member.generation_id >= 0 and member.member_id
    return member if is_stable and not is_joining else None


# -- 7. A batch that cannot be parsed stops the partition
#
# kafka-python: `_unpack_records` in kafka/consumer/fetcher.py raises from `poll` if a batch fails its checksum, needs
# a codec that is not installed or is cut short. The position stays: the next poll, and every successor, raises again.
# We: the rest of such a batch is skipped and reported. A batch that fails its checksum says nothing that can be
# trusted, its number of records included: it is skipped offset by offset, until the broker sends the batch after it.
# Upstream: no upstream issue found.


def skip_unreadable_batches(consumer: KafkaConsumer) -> list[Skipped]:
    """Make this consumer skip what it cannot parse; returns the list to which it appends what it skipped.

    Its `poll` then gives records as the worker reads them (`Record`), not the client's own.
    """
    skipped: list[Skipped] = []
    consumer._fetcher.PartitionRecords = partial(PartitionRecords, skipped)  # noqa: SLF001 - there is no public way
    return skipped


# -- 8. A reset of the position is silent
#
# kafka-python: where retention has deleted what a consumer reads next, the fetcher calls `request_offset_reset` of
# kafka/consumer/subscription_state.py and goes on at the oldest record. With `auto_offset_reset="none"` it raises from
# `poll`, but then also for each new partition of the group.
# We: the position before the reset is noted.
# Upstream: no upstream issue found.


def note_resets(consumer: KafkaConsumer) -> dict[TopicPartition, int]:
    """Note the position from which this consumer was reset, for each partition; the caller clears it."""
    noted: dict[TopicPartition, int] = {}
    subscription = consumer._subscription  # noqa: SLF001 - there is no public way
    reset = subscription.request_offset_reset

    def note(partition: Any, *args: Any) -> None:
        position = subscription.assignment[partition].position if partition in subscription.assignment else None
        if position is not None:
            noted.setdefault(TopicPartition(partition.topic, partition.partition), int(position.offset))
        reset(partition, *args)

    subscription.request_offset_reset = note
    return noted


# -- 9. One partition without a leader stops the questions about all others
#
# kafka-python: `KafkaConsumer.position` first waits until every assigned partition has a position that a leader has
# confirmed, for as long as one has none. Whether a partition has a leader is in the metadata, without a public method.
# We: both are read where the consumer keeps them.
# Upstream: no upstream issue found.


def position(consumer: KafkaConsumer, partition: KafkaPartition) -> int | None:
    """The next offset to read of an assigned partition; None until a seek or a reset of the position is done."""
    known = consumer._subscription.assignment[partition].position  # noqa: SLF001 - there is no public way
    return None if known is None else int(known.offset)


def has_leader(consumer: KafkaConsumer, partition: KafkaPartition) -> bool:
    """False if the newest metadata says that the partition has none; True if it has one, or if that is unknown."""
    return bool(consumer._cluster.leader_for_partition(partition) != -1)  # noqa: SLF001 - there is no public way


# -- 10. The ids of the cluster and of topics are not public
#
# kafka-python: the consumer keeps them in its metadata (KIP-78, KIP-516), without a method that returns them.
# We: they are read from there. They are empty before the first answer, and for topics of brokers before Kafka 2.8.
# Upstream: no upstream issue found.


def cluster_id(consumer: KafkaConsumer) -> str:
    """Id of the cluster, empty if unknown."""
    return str(consumer._cluster.cluster_id or "")  # noqa: SLF001 - there is no public way


def topic_id(consumer: KafkaConsumer, topic: str) -> str:
    """Id of the topic, empty if unknown."""
    found = consumer._cluster.topic_id(topic)  # noqa: SLF001 - as above
    return found.hex if found is not None and found.int else ""


# -- 11. What a fetch waits for cannot be changed
#
# kafka-python: `_create_fetch_requests` in kafka/consumer/fetcher.py reads it from a configuration without a setter.
# We: change that configuration; from the next fetch on it counts.
# Upstream: no upstream issue found.


def wait_for(consumer: KafkaConsumer, *, min_bytes: int, wait_ms: int) -> None:
    """A fetch ends with so many bytes, or after this time."""
    consumer._fetcher.config.update(fetch_min_bytes=min_bytes, fetch_max_wait_ms=wait_ms)  # noqa: SLF001 - as above


# -- 12. A consumer that is behind serves some partitions half as often
#
# kafka-python: `fetched_records` in kafka/consumer/fetcher.py says that all is drained while records of the last
# partition are left. The next fetch is then sent without that partition, which waits for the one after. If each fetch
# is full, the same partitions are left out every other time, and fall behind for ever while others stay fresh.
# We: what is left counts. So each fetch asks for all partitions.
# Upstream: no upstream issue found.


def fetch_in_turn(consumer: KafkaConsumer) -> None:
    """Send a fetch only when nothing of the one before is left."""
    fetcher = consumer._fetcher  # noqa: SLF001 - there is no public way
    fetched = fetcher.fetched_records

    @wraps(fetched)
    def fetched_records(*args: Any, **options: Any) -> tuple[Any, bool]:
        records, is_partial = fetched(*args, **options)
        return records, is_partial or bool(fetcher._next_partition_records)  # noqa: SLF001 - as above

    fetcher.fetched_records = fetched_records


# -- 13. A poll that ends without records leaves garbage in a circle
#
# kafka-python: `run` in kafka/net/selector.py raises the timeout of such a poll in the caller's thread. The error
# refers to the frames of all callers, and one of these frames to the error. So what the callers hold, audio among it,
# stays in memory until the garbage collector looks at it: with 400 calls of 20 s, 97 MB in 70 s.
# We: the fetcher ignores this error anyway, and gets none.
# Upstream: no upstream issue found.


def end_polls_without_error(consumer: KafkaConsumer) -> None:
    """Let the fetcher's wait for records return when its time is up."""
    fetcher = consumer._fetcher  # noqa: SLF001 - there is no public way
    fetcher._net = _WithoutTimeout(fetcher._net, fetcher._manager.wait_for)  # noqa: SLF001 - as above


class _WithoutTimeout:
    """A network whose `run` returns None when this wait times out, and leaves no trace of the error."""

    def __init__(self, net: Any, wait: Callable[..., Any]) -> None:
        self._net, self._wait = net, wait

    def run(self, coroutine: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._net.run(coroutine, *args)
        except KafkaTimeoutError as error:
            if coroutine != self._wait:
                raise
            error.__traceback__ = None
            return None
