"""The simulation can fail: it finds bugs that were planted on purpose."""

import pytest

from tests.simulation import bugs_of_delivery, bugs_of_kafka, bugs_of_state
from tests.simulation.planting import BUGS
from tests.simulation.run import prepare, quiet_logs

SEEDS = 300
LISTS = (bugs_of_delivery, bugs_of_kafka, bugs_of_state)  # importing them fills BUGS


@pytest.fixture(autouse=True)
def _quiet_logs():
    with quiet_logs():
        yield


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name):
    """Each bug of the list is found within the first 300 seeds."""
    assert found_by(name) is not None


def found_by(name):
    """The first seed that finds the bug, and how it shows."""
    bug = BUGS[name]
    for seed in range(SEEDS):
        world = prepare(seed, bug.output)
        try:
            with bug.plant():
                world.run()
        except Exception as error:  # noqa: BLE001 - however it shows, it is found
            return seed, f"{type(error).__name__} {error}"
    return None
