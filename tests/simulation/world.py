"""One simulated world: workers made of the real ingest loop, and everything around them; one seed decides it all.

There are no threads. While a worker is frozen, or sleeps, the rest of the world goes on inside that very call, so
what a worker was about to do is done after others have taken its place.
"""

from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from tests.simulation.kafka_side import Group, Log, SimConsumer, SimDeadLetters
from tests.simulation.model_side import SimInference
from tests.simulation.oracle import Oracle
from tests.simulation.redis_side import Client, Server
from tests.simulation.scenario import EPOCH_MS, SESSION_S, Scenario
from worker.alert import DEFAULT_RULES
from worker.errors import Fenced, InferenceLost
from worker.ingest import Ingest, Outside
from worker.publish import RedisStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.commits import DeadLetter

_DRAIN_S = 5.0
_QUIET_STEP_S = 1.0
_QUIET_S = 15.0
_STUCK_S = 120.0
_STATUS = 0.1


class Killed(BaseException):
    """SIGKILL: no handler runs, nobody leaves the group."""


class Life:
    """One worker process from its start to its end."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.is_busy = False
        self.is_killed = False
        self.is_asked_to_stop = False
        self.silent_since_s: float | None = None
        self.inference = SimInference(world, self)
        self.consumer = SimConsumer(world, self)
        outside = Outside(
            self.consumer,
            RedisStore(Client(world, self), world.settings.redis, name),
            self.inference,
            SimDeadLetters(world, self),
        )
        self.ingest = Ingest(outside, world.settings, DEFAULT_RULES, world.clock, world.sleep)


class World:
    """Everything, and the time."""

    def __init__(self, scenario: Scenario, oracle: Oracle) -> None:
        self.random = Random(f"world {scenario.seed}")
        self.settings, self.faults = scenario.settings, scenario.faults
        self.now_s = 0.0
        self.is_healing = False
        self.is_log_down = False
        self.redis_down_until_s = 0.0
        self.late_requests: list[tuple[float, Callable[[], object]]] = []
        self.letters: list[DeadLetter] = []
        self.history: list[tuple[float, str, tuple[object, ...]]] = []
        self.logs = {number: Log(arrivals) for number, arrivals in scenario.logs.items()}
        self.group = Group(self, self.logs, is_eager=self.faults.is_eager)
        self.redis = Server()
        self._replica = self.redis.dump()
        self._scenario = scenario
        self._oracle = oracle
        self._lives: list[Life | None] = [None] * scenario.workers
        self._starts_s = [0.0] * scenario.workers
        self._names = 0

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
        self._oracle.judge(self)

    @property
    def utterances(self) -> int:
        """How many utterances the logs hold."""
        return self._oracle.utterances

    # -- time

    def clock(self) -> float:
        """Wall clock, in s since 1970."""
        return EPOCH_MS / 1000 + self.now_s

    def sleep(self, _: float) -> None:
        """A worker sleeps: the others go on."""
        self.step()

    def step(self) -> None:
        """A little time passes, something may go wrong, one worker has its turn."""
        self.now_s += _QUIET_STEP_S if self.is_healing else self.random.uniform(0, 2 * self._scenario.step_s)
        self.deliver_late()
        self.group.expire()
        if not self.is_healing:
            self._go_wrong()
        idle = [n for n, life in enumerate(self._lives) if not (life and life.is_busy)]
        for number in idle if self.is_healing else self.random.sample(idle, min(1, len(idle))):
            self._turn(number)
        self._oracle.look(self)

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

    def point(self, life: Life, name: str) -> None:
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

    def _freeze(self, life: Life, seconds: float) -> None:
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
        self._oracle.forgive()

    def _heal(self) -> None:
        self.note("world", "heals")
        self.is_healing, self.is_log_down, self.redis_down_until_s = True, False, 0.0

    def _wait_until_quiet(self) -> None:
        """Quiet is when nothing has been committed for longer than a takeover can last."""
        since_s = began_s = self.now_s
        seen = self._oracle.progress(self)
        while self.now_s - since_s < _QUIET_S:
            self.step()
            now = self._oracle.progress(self)
            if now != seen:
                seen, since_s = now, self.now_s
            assert self.now_s - began_s < _STUCK_S, "no end of changes"

    # -- workers

    def _turn(self, number: int) -> None:
        life = self._lives[number]
        if life is None:
            if self.now_s >= self._starts_s[number]:
                self._lives[number] = self._start()
            return
        life.is_busy = True
        try:
            if life.is_asked_to_stop:
                self.note(life.name, "drains")
                drained = life.ingest.drain(self.clock() + _DRAIN_S)
                self.note(life.name, "drained" if drained else "ran out of time")
                self._end(number, life, leaves=True)
            else:
                life.ingest.turn()
                if self.random.random() < _STATUS:
                    life.ingest.status()
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

    def _start(self) -> Life:
        self._names += 1
        life = Life(self, f"worker-{self._names}")
        self.note(life.name, "started")
        return life

    def _end(self, number: int, life: Life, *, leaves: bool) -> None:
        if leaves:
            life.consumer.close()
        life.silent_since_s = self.now_s
        self._lives[number] = None
        self._starts_s[number] = self.now_s + self.random.choice([0.0, 0.1, 1.0, 4.0])

    def note(self, who: str, what: str, *facts: object) -> None:
        """Keep what happened, for who looks into a seed that failed."""
        self.history.append((self.now_s, who, (what, *facts)))
