"""The simulated Kafka: logs that grow, consumer groups, and each worker's end of them."""
# ruff: noqa: D102 - methods mean what those of the real ones mean

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from kafka.errors import KafkaTimeoutError

from callmood.worker.adapters.consume import Changes
from callmood.worker.adapters.kafka_batches import Skipped
from callmood.worker.commits import DeadLetter, Origin, TopicPartition
from callmood.worker.errors import Fenced, StoreUnavailable
from callmood.worker.records import Record
from tests.simulation.scenario import SESSION_S

_POLL_RECORDS = (1, 5, 50, 2000)
_JOIN_UNFINISHED = 0.1
"""How often a poll ends when the broker has a new generation, and the client has not heard yet what it is dealt."""


class Readable(Protocol):
    """A partition as a consumer sees it."""

    begin: int

    def end_at(self, now_s: float) -> int:
        """The offset after what is there."""

    def read(self, offset: int, now_s: float, limit: int) -> tuple[list[Record], int]:
        """The next records, and where to go on: what is no record has an offset too."""


class Log:
    """One partition of the audio: its records, each with the time at which it is there."""

    def __init__(self, arrivals: list[tuple[float, Record]]) -> None:
        self._arrives_s = [arrives_s for arrives_s, _ in arrivals]
        self._offsets = [record.position.offset for _, record in arrivals]
        self._records = [record for _, record in arrivals]

    @property
    def begin(self) -> int:
        return self._offsets[0]

    def end_at(self, now_s: float) -> int:
        there = bisect_left(self._arrives_s, now_s)
        return self._offsets[there - 1] + 1 if there else self.begin

    def read(self, offset: int, now_s: float, limit: int) -> tuple[list[Record], int]:
        first = bisect_left(self._offsets, offset)
        records = self._records[first : min(first + limit, bisect_left(self._arrives_s, now_s))]
        return records, records[-1].position.offset + 1 if records else offset


class Membership(NamedTuple):
    """What a member says of itself when it commits; the broker does not check one that says nothing."""

    generation: int
    member: "SimConsumer | None"


NOBODY = Membership(-1, None)


class Group:
    """The coordinator: which member reads which partition. Each rebalance assigns the partitions again, at random."""

    def __init__(self, world, logs: Mapping[TopicPartition, Readable], *, is_eager: bool) -> None:
        self.logs = logs
        self.committed: dict[TopicPartition, int] = {}
        self._world = world
        self._is_eager = is_eager
        self._members: list[SimConsumer] = []
        self._generation = 0
        self._owner: dict[TopicPartition, SimConsumer | None] = dict.fromkeys(logs)
        self._target: dict[TopicPartition, SimConsumer | None] = dict.fromkeys(logs)

    def join(self, consumer: "SimConsumer") -> None:
        self._members.append(consumer)
        self.rebalance()

    def remove(self, consumer: "SimConsumer") -> None:
        """The member has left, or has been silent for too long."""
        if consumer in self._members:
            self._members.remove(consumer)
            self._owner = {p: None if owner is consumer else owner for p, owner in self._owner.items()}
            self.rebalance()

    def is_member(self, membership: Membership) -> bool:
        """Whether the broker takes a transaction's offsets from it (KIP-447)."""
        member = membership.member
        return member is None or (member in self._members and membership.generation == member.generation)

    def is_in(self, membership: Membership) -> bool:
        """Whether it is a member's, of this generation or of an earlier one."""
        return membership.member in self._members

    def rebalance(self) -> None:
        self._world.note("group", "rebalance", len(self._members))
        self._generation += 1
        for source in self._target:
            self._target[source] = self._world.random.choice(self._members) if self._members else None
        for member in self._members:
            owned = {source for source, owner in self._owner.items() if owner is member}
            member.must_revoke = {s for s in owned if self._is_eager or self._target[s] is not member}

    def expire(self) -> None:
        """Members that have not sent a heartbeat for the session are out."""
        for member in list(self._members):
            silent_since_s = member.life.silent_since_s
            if silent_since_s is not None and self._world.now_s - silent_since_s > SESSION_S:
                self.expel(member)

    def expel(self, member: "SimConsumer") -> None:
        """The member finds out at one of its next polls; until then it goes on reading what it has."""
        self._world.note(member.life.name, "expelled")
        self.remove(member)
        member.polls_until_lost = self._world.random.randrange(4)

    def expel_one(self) -> None:
        if self._members:
            self.expel(self._world.random.choice(self._members))

    def sync(self, member: "SimConsumer") -> None:
        """What a poll brings the member: partitions to give back, and those that are free for it."""
        if member not in self._members:
            member.polls_until_lost -= 1
            if member.polls_until_lost < 0:
                member.lose()
            return
        is_news = member.generation != self._generation
        member.generation = self._generation
        member.is_joining = is_news and not self._is_eager and self._world.dice(_JOIN_UNFINISHED)
        if member.is_joining:
            return
        if member.must_revoke:
            gone, member.must_revoke = member.must_revoke, set()
            self._owner.update(dict.fromkeys(gone))
            member.revoke(gone)
        if self._is_eager and any(other.must_revoke for other in self._members):
            return
        free = {s for s, target in self._target.items() if target is member and self._owner[s] is None}
        if free:
            self._owner.update(dict.fromkeys(free, member))
            member.assign(free)


class SimConsumer:
    """Stands where `AudioConsumer` stands; `life` is the worker process that it belongs to."""

    def __init__(self, world, life, group: Group) -> None:
        self.life = life
        self.must_revoke: set[TopicPartition] = set()
        self.polls_until_lost = 0
        self.generation = 0
        """That it has joined last, as the broker knows it."""
        self.is_joining = False
        self.membership: Membership | None = None
        self._world = world
        self._group = group
        self._is_lost = False
        self._changes = Changes()
        self._is_paused = False
        self._positions: dict[TopicPartition, int] = {}
        self._started: set[TopicPartition] = set()
        self._highwater: dict[TopicPartition, int] = {}
        self._has_joined = False

    # -- what the group does

    def revoke(self, sources: set[TopicPartition]) -> None:
        self._world.note(self.life.name, "revoked", *sorted(sources))
        self._changes.revoked |= sources
        self._changes.assigned -= sources
        self._started -= sources
        for source in sources:
            del self._positions[source]

    def assign(self, sources: set[TopicPartition]) -> None:
        self._world.note(self.life.name, "assigned", *sorted(sources))
        self._changes.assigned |= sources
        for source in sources:
            self._positions[source] = self._group.committed.get(source, self._group.logs[source].begin)

    def lose(self) -> None:
        self.revoke(set(self._positions))
        self._is_lost = True

    @property
    def live_membership(self) -> Membership:
        """What the real client says of itself now: once it is out, nothing."""
        own = Membership(self.generation, self)
        return own if self._group.is_member(own) else NOBODY

    # -- what the worker calls

    def poll(self, timeout_ms: int) -> Mapping[TopicPartition, list[Record]]:
        assert timeout_ms >= 0
        self._world.point(self.life, "poll")
        if not self._has_joined:
            self._has_joined = True
            self._group.join(self)
        self._group.sync(self)
        if self._is_lost:
            raise Fenced("simulated: out of the group")
        is_stable = self.live_membership != NOBODY and not self.is_joining
        self.membership = self.live_membership if is_stable else None
        if self._world.is_log_down:
            return {}
        fetched = {}
        for source in sorted(self._started):
            log, limit = self._group.logs[source], self._world.random.choice(_POLL_RECORDS)
            limit = max(_POLL_RECORDS) if self._world.is_healing else limit
            self._highwater[source] = log.end_at(self._world.now_s)
            records, self._positions[source] = log.read(self._positions[source], self._world.now_s, limit)
            if records:
                fetched[source] = records
        return fetched

    def take_skipped(self) -> list[Skipped]:
        """The simulated client parses everything."""
        return []

    def take_changes(self) -> Changes:
        changes, self._changes = self._changes, Changes()
        return changes

    def start_of(self, source: TopicPartition) -> int:
        return self.oldest(source)

    def oldest(self, source: TopicPartition) -> int:
        self._world.point(self.life, "oldest")
        return self._group.logs[source].begin

    def committed(self, source: TopicPartition, *, timeout_ms: int) -> int | None:
        assert timeout_ms > 0
        self._world.point(self.life, "committed")
        if self._world.broker.holds_offset(source):
            raise KafkaTimeoutError("simulated: a transaction holds a newer offset")
        return self._group.committed.get(source)

    def origin(self, source: TopicPartition) -> Origin:
        return Origin("simulated", source.topic, "group", len(self._group.logs))

    def position(self, source: TopicPartition) -> int:
        return self._positions[source]

    def start(self, source: TopicPartition, offset: int) -> None:
        self._check([source])
        self._positions[source] = offset
        if not self._is_paused:
            self._started.add(source)

    def pause(self) -> None:
        self._is_paused = True
        self._started.clear()

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        self._is_paused = False
        self._check(sources)
        self._started |= set(sources)

    def show_progress(self, watermarks: Mapping[TopicPartition, int]) -> None:
        self._world.point(self.life, "show_progress")
        self._group.committed |= watermarks

    def lag(self, source: TopicPartition) -> int | None:
        self._check([source])
        highwater = self._highwater.get(source)
        return None if highwater is None else max(0, highwater - self._positions[source])

    def stable_ends(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        is_down, now_s = self._world.is_log_down, self._world.now_s
        return {} if is_down else {source: self._group.logs[source].end_at(now_s) for source in sources}

    def close(self) -> None:
        self._group.remove(self)

    def _check(self, sources: Iterable[TopicPartition]) -> None:
        """The client refuses to touch what is not assigned."""
        if not set(sources) <= set(self._positions):
            raise ValueError("simulated: unassigned partition")


class SimDeadLetters:
    """The dead-letter topic; it keeps what was sent, even by who has died or was told that it failed."""

    def __init__(self, world, life) -> None:
        self._world = world
        self._life = life

    def send(self, letters: list[DeadLetter]) -> None:
        self._world.point(self._life, "before letters")
        fails = bool(letters) and self._world.dice(self._world.faults.lost_letters)
        for letter in letters[: self._world.random.randrange(len(letters) + 1)] if fails else letters:
            self._world.letters.append(letter)
        self._world.point(self._life, "after letters")
        if fails:
            raise StoreUnavailable("dead-letter topic: no answer")
