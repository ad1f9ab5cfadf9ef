"""Bugs that somebody could write tomorrow: the store, and taking over."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from unittest.mock import patch

from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.adapters.store import Committed
from callmood.worker.commits import Commit
from callmood.worker.errors import StoreUnavailable
from callmood.worker.partition.partition import Partition
from callmood.worker.run.ingest import Ingest
from callmood.worker.stream_time import StreamTime
from tests.simulation.kafka_side import SimConsumer
from tests.simulation.planting import around, around_script, planted, without

_UNPACK = "local p = cmsgpack.unpack(ARGV[3])\n"

# -- the store


@planted(13)
def watermark_before_results() -> Iterator[None]:
    """The position is moved in a request of its own, before the results."""

    def commit(original, self, commits):
        moved = original(self, [Commit(c.source, c.watermark, c.time) for c in commits])
        return moved if moved.fenced or moved.failure else original(self, commits)

    with around(RedisStore, "commit", commit):
        yield


@planted(3)
def two_scripts() -> Iterator[None]:
    """Results and states are written by one script, position and token by another."""
    position = "redis.call('HSET', KEYS[1], 'token'"

    def commit(send, script):
        answer = send(without(script, position, "\n"))
        return send(without(script, "local kinds", position, _UNPACK)) if answer == b"ok" else answer

    with around_script(commit):
        yield


@planted(2)
def no_token_check() -> Iterator[None]:
    """A commit of an owner that was fenced is taken."""
    with around_script(lambda send, script: send(without(script, "if found ~= ARGV[1]", "\n"))):
        yield


@planted(12)
def fence_is_ignored() -> Iterator[None]:
    """The loop does not look at what the store refused."""

    def commit(original, self, commits):
        committed = original(self, commits)
        return committed if committed.failure else Committed(tuple(commits))

    with around(RedisStore, "commit", commit):
        yield


@planted(74)
def claim_does_not_fence() -> Iterator[None]:
    """A claim joins the earlier owner's token instead of replacing it."""

    def claim(original, self, source):
        server, key = self._redis._world.redis, self._keys.position(*source).encode()
        before = server.keys.get(key, {}).get(b"token")
        restored = original(self, source)
        if before is not None:
            server.keys[key][b"token"] = before
            token, _, number = before.decode().partition(":")
            self._tokens[source] = (token, int(number))
        return restored

    with around(RedisStore, "claim", claim):
        yield


@planted(36)
def answered_commits_are_sent_again() -> Iterator[None]:
    """A round in which one partition got no answer is repeated for all."""

    def commit(original, self, commits):
        committed = original(self, commits)
        return committed._replace(durable=()) if committed.failure else committed

    with around(RedisStore, "commit", commit):
        yield


@planted(38)
def retry_with_new_content() -> Iterator[None]:
    """A commit without an answer is given up, and a newer one takes its place."""

    def commit(original, self):
        original(self)
        if not self._is_store_healthy:
            self._pending = []

    with around(Ingest, "_commit", commit):
        yield


@planted(14)
def idle_partitions_are_not_confirmed() -> Iterator[None]:
    """A failover that lost the last writes of a quiet partition is never noticed."""

    def collect(self, partition, now_s):
        commit = partition.collect(self._stamps._replace(model=self._inference.model), now_s * 1000)
        return commit if commit.is_news else None

    with patch.object(Ingest, "_collect", collect):
        yield


# -- taking over


@planted(5)
def position_is_stored_on_revoke() -> Iterator[None]:
    """Giving a partition back stores the position, but not the states that belong to it."""

    def drop(original, self, source):
        partition = self._partitions.get(source)
        if partition:
            with suppress(StoreUnavailable):
                self._store.commit([Commit(source, partition.position, partition._time)])
        original(self, source)

    with around(Ingest, "_drop", drop):
        yield


@planted(3)
def pending_survives_revoke() -> Iterator[None]:
    """What a partition had not committed is committed when it comes back."""

    def drop(original, self, source):
        pending = self._pending
        original(self, source)
        self._pending = pending

    with around(Ingest, "_drop", drop):
        yield


@planted(0)
def position_of_the_group() -> Iterator[None]:
    """Reading resumes at the offset committed to the group, not at the store's."""

    def start(original, self, source, _):
        original(self, source, self._positions[source.partition])

    with around(SimConsumer, "start", start):
        yield


@planted(16)
def clock_starts_again() -> Iterator[None]:
    """The partition's clock is not restored."""

    def begin(original, self, source, restored, *rest):
        original(self, source, replace(restored, time=StreamTime()), *rest)

    with around(Partition, "__init__", begin):
        yield


@planted(2)
def paused_for_ever() -> Iterator[None]:
    """Reading goes on once half of what may be in flight is: with a limit of one, that is fewer than none."""

    def throttle(_, self):
        limit = self._settings.model.max_in_flight
        is_full = len(self._waiting) >= (limit // 2 if self._is_paused else limit)
        if is_full and not self._is_paused:
            self._consumer.pause()
        elif self._is_paused and not is_full:
            self._consumer.resume(self._partitions)
        self._is_paused = is_full

    with around(Ingest, "_throttle", throttle):
        yield
