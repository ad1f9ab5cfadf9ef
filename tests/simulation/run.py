"""One seed, lived through."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import structlog

from tests.simulation.expected import Expected
from tests.simulation.oracle import Oracle
from tests.simulation.scenario import Scenario, scenario
from tests.simulation.world import World


def prepare(seed: int) -> World:
    """The world of a seed, before anything happens in it."""
    decided, expected = _known(seed)
    return World(decided, Oracle(expected, decided.settings.redis.prefix))


@lru_cache(maxsize=64)
def _known(seed: int) -> tuple[Scenario, Expected]:
    decided = scenario(seed)
    return decided, Expected(decided)


@contextmanager
def quiet_logs() -> Iterator[None]:
    """The worker's logs are no part of it."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)
