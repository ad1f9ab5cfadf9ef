"""Exactly once, whatever happens: many seeds, each a world of crashes, takeovers, zombies and failing stores."""

from collections import Counter

import pytest
from thorough import IS_NIGHT

from tests.simulation.run import prepare, quiet_logs

SEEDS = 20_000 if IS_NIGHT else 200
EVENTFUL = 100
BATCH = 25


@pytest.fixture(autouse=True)
def _quiet_logs():
    with quiet_logs():
        yield


def lived(seed):
    """The world of a seed at its end. It fails if a reader saw no prefix, or an utterance is not there exactly once."""
    try:
        world = prepare(seed)
        world.run()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a seed is a finding
        pytest.fail(f"{type(error).__name__} {error}\nreproduce: python -m tests.simulation --seed {seed}")
    return world


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(EVENTFUL, SEEDS, BATCH))
def test_nothing_is_lost_doubled_or_foreign(first):
    """Whatever a seed brings, readers see prefixes, and in the end every utterance is there exactly once."""
    for seed in range(first, first + BATCH):
        lived(seed)


def test_a_seed_is_always_the_same_world():
    """A seed that failed once fails again: nothing but the seed decides what happens."""
    for seed in range(10):
        one, other = prepare(seed), prepare(seed)
        one.run()
        other.run()
        assert one.history == other.history
        assert one.redis.keys.keys() == other.redis.keys.keys()


@pytest.mark.timeout(600)
def test_the_worlds_are_eventful():
    """The first seeds bring every kind of event that the simulation knows, in number, and calls enough to lose."""
    events, utterances = Counter(), 0
    for seed in range(EVENTFUL):
        world = lived(seed)
        utterances += world.utterances
        events.update(what[0] for _, _, what in world.history)
    seldom = {name for name in EVENTS if events[name] < 3}
    assert seldom == set(), events
    assert utterances > 500


EVENTS = {
    "assigned",
    "awake",
    "drained",
    "expelled",
    "failover",
    "fenced",
    "frozen",
    "inference lost",
    "killed",
    "redis outage",
    "redis timeout",
    "revoked",
}
