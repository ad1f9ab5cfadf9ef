"""The simulated Kafka: logs that grow, a consumer group, and each worker's end of it."""
# ruff: noqa: D102 - methods mean what those of the real ones mean

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from tests.simulation.scenario import SESSION_S, TOPIC
from worker.commits import DeadLetter, TopicPartition
from worker.consume import Changes
from worker.errors import Fenced, StoreUnavailable
from worker.records import Record

_POLL_RECORDS = (1, 5, 50, 2000)


class Log:
    """One partition: its records, each with the time at which it is there."""

    def __init__(self, arrivals: list[tuple[float, Record]]) -> None:
        self._arrives_s = [arrives_s for arrives_s, _ in arrivals]
        self._offsets = [record.position.offset for _, record in arrivals]
        self._records = [record for _, record in arrivals]

    @property
    def begin(self) -> int:
        return self._offsets[0]

    @property
    def end(self) -> int:
        """The offset after the last record, once all are there."""
        return self._offsets[-1] + 1

    def end_at(self, now_s: float) -> int:
        there = bisect_left(self._arrives_s, now_s)
        return self._offsets[there - 1] + 1 if there else self.begin

    def read(self, offset: int, now_s: float, limit: int) -> list[Record]:
        first = bisect_left(self._offsets, offset)
        return self._records[first : min(first + limit, bisect_left(self._arrives_s, now_s))]


class Group:
    """The coordinator: who may read what. Each rebalance deals the partitions anew, at random."""

    def __init__(self, world, partitions: Iterable[int], *, is_eager: bool) -> None:
        self._world = world
        self._is_eager = is_eager
        self._members: list[SimConsumer] = []
        self._owner: dict[int, SimConsumer | None] = dict.fromkeys(partitions)
        self._target: dict[int, SimConsumer | None] = dict.fromkeys(partitions)
        self.committed: dict[int, int] = {}

    def join(self, consumer: "SimConsumer") -> None:
        self._members.append(consumer)
        self.rebalance()

    def remove(self, consumer: "SimConsumer") -> None:
        """The member has left, or has been silent for too long."""
        if consumer in self._members:
            self._members.remove(consumer)
            self._owner = {p: None if owner is consumer else owner for p, owner in self._owner.items()}
            self.rebalance()

    def rebalance(self) -> None:
        self._world.note("group", "rebalance", len(self._members))
        for partition in self._target:
            self._target[partition] = self._world.random.choice(self._members) if self._members else None
        for member in self._members:
            owned = {p for p, owner in self._owner.items() if owner is member}
            member.must_revoke = {p for p in owned if self._is_eager or self._target[p] is not member}

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
        if member.must_revoke:
            gone, member.must_revoke = member.must_revoke, set()
            self._owner.update(dict.fromkeys(gone))
            member.revoke(gone)
        if self._is_eager and any(other.must_revoke for other in self._members):
            return
        free = {p for p, target in self._target.items() if target is member and self._owner[p] is None}
        if free:
            self._owner.update(dict.fromkeys(free, member))
            member.assign(free)


class SimConsumer:
    """Stands where `AudioConsumer` stands; `life` is the worker process that it belongs to."""

    def __init__(self, world, life) -> None:
        self.life = life
        self.must_revoke: set[int] = set()
        self.polls_until_lost = 0
        self._world = world
        self._is_lost = False
        self._changes = Changes()
        self._is_paused = False
        self._positions: dict[int, int] = {}
        self._started: set[int] = set()
        self._highwater: dict[int, int] = {}
        world.group.join(self)

    # -- what the group does

    def revoke(self, partitions: set[int]) -> None:
        self._world.note(self.life.name, "revoked", *sorted(partitions))
        gone = {TopicPartition(TOPIC, partition) for partition in partitions}
        self._changes.revoked |= gone
        self._changes.assigned -= gone
        self._started -= partitions
        for partition in partitions:
            del self._positions[partition]

    def assign(self, partitions: set[int]) -> None:
        self._world.note(self.life.name, "assigned", *sorted(partitions))
        self._changes.assigned |= {TopicPartition(TOPIC, partition) for partition in partitions}
        for partition in partitions:
            begin = self._world.logs[partition].begin
            self._positions[partition] = self._world.group.committed.get(partition, begin)

    def lose(self) -> None:
        self.revoke(set(self._positions))
        self._is_lost = True

    # -- what the worker calls

    def poll(self, timeout_ms: int) -> Mapping[TopicPartition, list[Record]]:
        assert timeout_ms >= 0
        self._world.point(self.life, "poll")
        self._world.group.sync(self)
        if self._is_lost:
            raise Fenced("simulated: out of the group")
        if self._world.is_log_down:
            return {}
        fetched = {}
        for partition in sorted(self._started):
            log, limit = self._world.logs[partition], self._world.random.choice(_POLL_RECORDS)
            limit = max(_POLL_RECORDS) if self._world.is_healing else limit
            self._highwater[partition] = log.end_at(self._world.now_s)
            records = log.read(self._positions[partition], self._world.now_s, limit)
            if records:
                self._positions[partition] = records[-1].position.offset + 1
                fetched[TopicPartition(TOPIC, partition)] = records
        return fetched

    def take_changes(self) -> Changes:
        changes, self._changes = self._changes, Changes()
        return changes

    def start_of(self, source: TopicPartition) -> int:
        return self.oldest(source)

    def oldest(self, source: TopicPartition) -> int:
        self._world.point(self.life, "oldest")
        return self._world.logs[source.partition].begin

    def start(self, source: TopicPartition, offset: int) -> None:
        self._check([source])
        self._positions[source.partition] = offset
        if not self._is_paused:
            self._started.add(source.partition)

    def pause(self) -> None:
        self._is_paused = True
        self._started.clear()

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        self._is_paused = False
        self._check(sources)
        self._started |= {source.partition for source in sources}

    def show_progress(self, watermarks: Mapping[TopicPartition, int]) -> None:
        self._world.point(self.life, "show_progress")
        self._world.group.committed |= {source.partition: offset for source, offset in watermarks.items()}

    def lag(self, source: TopicPartition) -> int | None:
        self._check([source])
        highwater = self._highwater.get(source.partition)
        return None if highwater is None else max(0, highwater - self._positions[source.partition])

    def close(self) -> None:
        self._world.group.remove(self)

    def _check(self, sources: Iterable[TopicPartition]) -> None:
        """The client refuses to touch what is not assigned."""
        if not {source.partition for source in sources} <= set(self._positions):
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
