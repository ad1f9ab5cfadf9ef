"""What the seed decides before anything runs: the log of every partition, the settings, and which faults there are."""

from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Literal

from callmood.worker.records import Position, Record
from callmood.worker.settings import (
    CallSettings,
    InputSettings,
    KafkaSettings,
    ModelSettings,
    SegmentSettings,
    Settings,
)
from callmood.worker.settings import WorkerSettings as Work
from tests.simulation import hostile
from tests.simulation.telephony import Arrival, Telephone

TOPIC = "audio"
EPOCH_MS = 1_700_000_000_000
SESSION_S = 3.0
IDLE_S = 9
ENDED_MEMORY_S = 5
RESUME_S = 15
"""Longer than any hold, whatever foreign clocks add: here, no call id begins a second call."""
_HOSTILE = 0.2
"""How many seeds have a hostile producer."""
Output = Literal["redis", "kafka", "both"]
OUTPUTS: tuple[Output, ...] = ("redis", "redis", "redis", "kafka", "kafka", "both")


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong; a rate is a chance per operation of a worker or per step of the world."""

    kill: float
    freeze: float
    lost_model: float
    lost_request: float
    lost_batch: float
    lost_letters: float
    terminate: float
    expel: float
    rebalance: float
    store_outage: float
    failover: float
    log_outage: float
    slowest_model_s: float
    is_eager: bool


@dataclass(frozen=True, slots=True)
class Scenario:
    """All of it; `logs` holds each partition's records with the time (s) at which they arrive.

    `odd` holds the positions of what a hostile producer has sent.
    """

    seed: int
    logs: dict[int, list[tuple[float, Record]]]
    settings: Settings
    faults: Faults
    workers: int
    step_s: float
    end_s: float
    odd: frozenset[tuple[int, int]] = frozenset()

    def without_odd(self) -> "Scenario":
        """The same without the hostile producer."""
        logs = {
            number: [item for item in log if (number, item[1].position.offset) not in self.odd]
            for number, log in self.logs.items()
        }
        return replace(self, logs=logs, odd=frozenset())


def scenario(seed: int, output: Output | None = None, *, is_hostile: bool | None = None) -> Scenario:
    """The scenario of a seed, which chooses the output and whether a producer is hostile if that is left to it."""
    random, second, third = (Random(f"{name} {seed}") for name in ("scenario", "output", "hostile"))
    is_hostile = output is None and third.random() < _HOSTILE if is_hostile is None else is_hostile
    output = output or second.choice(OUTPUTS)
    speed = random.choice([1, 1, 1, 3, 50])
    logs, odd = {}, set()
    for number in range(random.choice([1, 1, 2, 2, 3])):
        arrivals = _arrivals(random, number)
        arrivals = hostile.among(third, arrivals) if is_hostile else arrivals
        logs[number] = _log(random, number, arrivals, speed)
        found = zip(arrivals, logs[number], strict=True)
        odd |= {(number, record.position.offset) for arrival, (_, record) in found if arrival.is_odd}
    return Scenario(
        seed=seed,
        logs=logs,
        settings=_settings(random, output),
        faults=_faults(random, second),
        workers=random.choice([1, 2, 2, 3]),
        step_s=random.choice([0.05, 0.15, 0.4]) if speed == 1 else 0.05,
        end_s=max((arrives_s for log in logs.values() for arrives_s, _ in log), default=0.0),
        odd=frozenset(odd),
    )


def _faults(random: Random, second: Random) -> Faults:
    """Some kinds of fault, not all: what is always there hides what only comes alone."""

    def maybe(*rates: float) -> float:
        return random.choice(rates) if random.random() < 0.45 else 0.0

    return Faults(
        kill=maybe(0.002, 0.01, 0.02),
        freeze=maybe(0.001, 0.005),
        lost_model=maybe(0.002),
        lost_request=maybe(0.02, 0.2),
        lost_batch=second.choice([0.0, 0.0, 0.003, 0.03]),
        lost_letters=maybe(0.3),
        terminate=maybe(0.005, 0.02),
        expel=maybe(0.01),
        rebalance=maybe(0.01, 0.05),
        store_outage=maybe(0.01, 0.05),
        failover=maybe(0.01, 0.03),
        log_outage=maybe(0.02),
        slowest_model_s=random.choice([0.0, 0.3, 1.0, 6.0]),
        is_eager=random.random() < 0.3,
    )


def _settings(random: Random, output: Output) -> Settings:
    return _settings_of(
        random.choice([50, 250, 1000]),
        random.choice([500, 2000]),
        random.choice([1, 2, 512, 512]),
        random.choice([2, 16]),
        random.choice([1.5, 15.0]),
        output,
    )


@cache
def _settings_of(
    commit_interval_ms: int,
    state_interval_ms: int,
    max_in_flight: int,
    reorder_records: int,
    max_utterance_s: float,
    output: Output,
) -> Settings:
    return Settings(
        kafka=KafkaSettings(audio_topic=TOPIC),
        input=InputSettings(reorder_records=reorder_records),
        segment=SegmentSettings(max_utterance_s=max_utterance_s, split_search_s=1.0),
        call=CallSettings(idle_s=IDLE_S, ended_memory_s=ENDED_MEMORY_S, resume_s=RESUME_S),
        model=ModelSettings(max_in_flight=max_in_flight),
        worker=Work(commit_interval_ms=commit_interval_ms, state_interval_ms=state_interval_ms, output=output),
    )


def _arrivals(random: Random, partition: int) -> list[Arrival]:
    """Some calls interleaved on one partition."""
    arrivals: list[Arrival] = []
    for number in range(random.choice([1, 1, 2, 3])):
        arrivals += Telephone(random, f"call-{partition}-{number}", begin_ms=random.uniform(0, 3000)).call()
    if random.random() < 0.8:
        until_ms = max(arrival.arrives_ms for arrival in arrivals) + (IDLE_S + 2) * 1000
        arrivals += Telephone(random, f"ticker-{partition}", begin_ms=0).ticks(until_ms)
    return sorted(arrivals, key=lambda arrival: arrival.arrives_ms)


def _log(random: Random, partition: int, arrivals: list[Arrival], speed: int) -> list[tuple[float, Record]]:
    """The arrivals as they stand on the partition; control records take offsets too."""
    log, offset = [], random.choice([0, 0, 40])
    for arrival in arrivals:
        position = Position(TOPIC, partition, offset)
        timestamp_ms = EPOCH_MS + round(arrival.capture_ms) if arrival.stamp is None else arrival.stamp
        record = Record(position, arrival.key, arrival.value, arrival.headers, timestamp_ms)
        log.append((arrival.arrives_ms / 1000 / speed, record))
        offset += random.choice([1, 1, 1, 2])
    return log
