"""One simulated world: workers made of the real ingest loop, and everything around them; one seed decides it all.

There are no threads. While a worker is frozen, or sleeps, the rest of the world goes on inside that very call, so
what a worker was about to do is done after others have taken its place.
"""

import math
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from callmood.worker.commits import TopicPartition
from callmood.worker.errors import Fenced, InferenceLost
from tests.simulation.expected import Expected
from tests.simulation.kafka_side import Group, Log
from tests.simulation.kafka_view import KafkaView
from tests.simulation.lives import Killed, Life, ProjectorLife
from tests.simulation.oracle import Oracle
from tests.simulation.redis_side import Server
from tests.simulation.scenario import EPOCH_MS, SESSION_S, TOPIC, Output, Scenario
from tests.simulation.transactions import Broker

if TYPE_CHECKING:
    from collections.abc import Callable

    from callmood.worker.commits import DeadLetter

_DRAIN_S = 5.0
_QUIET_STEP_S = 1.0
_QUIET_S = 15.0
_STUCK_S = 120.0
_STATUS = 0.1


class World:
    """Everything, and the time."""

    def __init__(self, scenario: Scenario, expected: Expected) -> None:
        self.random = Random(f"world {scenario.seed}")
        self.settings, self.faults = scenario.settings, scenario.faults
        self.now_s = 0.0
        self.is_healing = False
        self.is_log_down = False
        self.redis_down_until_s = 0.0
        self.late_requests: list[tuple[float, Callable[[], object]]] = []
        self.letters: list[DeadLetter] = []
        self.history: list[tuple[float, str, tuple[object, ...]]] = []
        logs = {TopicPartition(TOPIC, number): Log(arrivals) for number, arrivals in scenario.logs.items()}
        self.group = Group(self, logs, is_eager=self.faults.is_eager)
        topics = self.settings.kafka
        results = [topics.utterance_topic, topics.call_topic, topics.alert_topic]
        self.broker = Broker(self, [*results, topics.state_topic], list(scenario.logs))
        outputs = {source: log for source, log in self.broker.logs.items() if source.topic in results}
        self.projector_group = Group(self, outputs, is_eager=self.faults.is_eager)
        self.redis = Server()
        self._replica = self.redis.dump()
        self._scenario = scenario
        self._expected = expected
        self._kafka = KafkaView(self.broker, self.group, self.settings)
        self._oracles = self._make_oracles()
        kinds = [Life] * scenario.workers + [ProjectorLife] * (scenario.workers * (self._output == "both"))
        self._kinds: list[type[Life | ProjectorLife]] = kinds
        self._lives: list[Life | ProjectorLife | None] = [None] * len(kinds)
        self._starts_s = [0.0] * len(kinds)
        self._names = 0

    @property
    def _output(self) -> Output:
        return self.settings.worker.output

    def _make_oracles(self) -> list[Oracle]:
        prefix = self.settings.redis.prefix
        oracles = [Oracle(self._expected, prefix, self._kafka, is_one_step=False)] if self._output != "redis" else []
        if self._output != "kafka":
            is_all = self._output == "redis"
            oracles.append(Oracle(self._expected, prefix, self.redis, is_one_step=is_all, is_source=is_all))
        return oracles

    def run(self) -> None:
        """Live through the scenario, then heal everything and wait until it is quiet.

        Raises:
            Violation: something was seen that must never be.
        """
        heals_s = self._scenario.end_s + self.random.uniform(0, 3)
        while self.now_s < heals_s:
            self.step()
        self._heal()
        self._wait_until_quiet()
        if self.faults.failover and self.random.random() < 0.5:  # when nobody has anything to commit any more
            self._fail_over()
            self._wait_until_quiet()
        for oracle in self._oracles:
            oracle.judge(self)

    @property
    def utterances(self) -> int:
        """How many utterances the logs hold."""
        return sum(len(call.utterances) for call in self._expected.calls.values())

    # -- time

    def clock(self) -> float:
        """Wall clock, in s since 1970."""
        return EPOCH_MS / 1000 + self.now_s

    def monotonic(self) -> float:
        """The clock that is never set, in s."""
        return self.now_s

    def sleep(self, _: float) -> None:
        """A worker sleeps: the others go on."""
        self.step()

    def step(self) -> None:
        """A little time passes, something may go wrong, one worker has its turn."""
        self.now_s += _QUIET_STEP_S if self.is_healing else self.random.uniform(0, 2 * self._scenario.step_s)
        self.deliver_late()
        self.group.expire()
        self.projector_group.expire()
        self.broker.expire()
        if not self.is_healing:
            self._go_wrong()
        idle = [n for n, life in enumerate(self._lives) if not (life and life.is_busy)]
        for number in idle if self.is_healing else self.random.sample(idle, min(1, len(idle))):
            self._turn(number)
        self._kafka.follow(self.now_s)
        for oracle in self._oracles:
            oracle.look()

    def deliver_late(self) -> None:
        """Requests that their senders have given up arrive."""
        due = [request for at_s, request in self.late_requests if at_s <= self.now_s]
        self.late_requests = [late for late in self.late_requests if late[0] > self.now_s]
        for request in due:
            with suppress(ResponseError):  # nobody hears the answer
                request()

    # -- chance

    def dice(self, chance: float) -> bool:
        """Whether something of this chance goes wrong now."""
        return not self.is_healing and chance > 0 and self.random.random() < chance

    def point(self, life: Life | ProjectorLife, name: str) -> None:
        """A worker is about to touch the outside, or has just done so: here it may die, or stand still.

        Raises:
            Killed: it dies.
        """
        if self.dice(self.faults.kill):
            self.note(life.name, "killed", name)
            raise Killed
        if self.dice(self.faults.freeze):
            self._freeze(life, self.random.uniform(0, 2.5 * SESSION_S))
        if life.is_killed:
            raise Killed

    def _freeze(self, life: Life | ProjectorLife, seconds: float) -> None:
        self.note(life.name, "frozen")
        wakes_s = self.now_s + seconds
        life.silent_since_s = self.now_s
        while self.now_s < wakes_s and not self.is_healing:
            self.step()
        life.silent_since_s = None
        self.note(life.name, "awake")

    def _go_wrong(self) -> None:
        faults, random = self.faults, self.random
        if self.dice(faults.rebalance):
            self.group.rebalance()
        if self.dice(faults.expel):
            self.group.expel_one()
        if self.dice(faults.store_outage):
            self.redis_down_until_s = self.now_s + random.uniform(0, 3)
        if self.dice(faults.failover):
            self._replica = self.redis.dump()
        if self.dice(faults.failover / 3):
            self._fail_over()
        if self.dice(0.2 if self.is_log_down else faults.log_outage):
            self.is_log_down = not self.is_log_down
        for life in filter(None, self._lives):
            if self.dice(faults.terminate):
                life.is_asked_to_stop = True
            if life.is_busy and self.dice(faults.kill):
                life.is_killed = True

    def _fail_over(self) -> None:
        """The replica, which is behind, becomes the primary."""
        self.note("redis", "failover")
        self.redis.load(self._replica)
        for oracle in self._oracles:
            oracle.forgive(self.redis)

    def _heal(self) -> None:
        self.note("world", "heals")
        self.is_healing, self.is_log_down, self.redis_down_until_s = True, False, 0.0

    def _wait_until_quiet(self) -> None:
        """Quiet is when nothing has been committed for longer than a takeover can last."""
        since_s = began_s = self.now_s
        seen = self._progress()
        while self.now_s - since_s < _QUIET_S:
            self.step()
            now = self._progress()
            if now != seen:
                seen, since_s = now, self.now_s
            assert self.now_s - began_s < _STUCK_S, "no end of changes"

    def _progress(self) -> object:
        return [oracle.progress() for oracle in self._oracles], len(self.letters)

    # -- workers

    def read_waits(self, life: "Life | ProjectorLife") -> None:
        """A reader waits for more: the others go on, and it may die meanwhile.

        Raises:
            Killed: it dies.
        """
        self.point(life, "reading")
        self.step()

    def _turn(self, number: int) -> None:
        life = self._lives[number]
        if life is None:
            if self.now_s >= self._starts_s[number]:
                self._start(number)
            return
        life.is_busy = True
        try:
            if life.is_asked_to_stop:
                self.note(life.name, "drains")
                drained = life.drain(self.monotonic() + _DRAIN_S)
                self.note(life.name, "drained" if drained else "ran out of time")
                self._end(number, life, leaves=True)
            else:
                life.loop.turn()
                if self.random.random() < _STATUS:
                    life.loop.status()
        except Killed:
            self._end(number, life, leaves=False)
        except Fenced as error:
            self.note(life.name, "fenced", str(error))
            self._end(number, life, leaves=True)
        except InferenceLost:
            self.note(life.name, "inference lost")
            self._end(number, life, leaves=True)
        finally:
            life.is_busy = False

    def _start(self, number: int) -> None:
        self._names += 1
        name = f"worker-{self._names}"
        self.note(name, "started")
        self._starts_s[number] = math.inf  # it may stand still before it has begun, and nobody takes its place
        try:
            self._lives[number] = self._kinds[number](self, name, slot=number)
        except Killed:
            self._starts_s[number] = self.now_s + 1.0

    def _end(self, number: int, life: Life | ProjectorLife, *, leaves: bool) -> None:
        if leaves:
            life.consumer.close()
        life.silent_since_s = self.now_s
        self._lives[number] = None
        self._starts_s[number] = self.now_s + self.random.choice([0.0, 0.1, 1.0, 4.0])

    def note(self, who: str, what: str, *facts: object) -> None:
        """Keep what happened, for who looks into a seed that failed."""
        self.history.append((self.now_s, who, (what, *facts)))
