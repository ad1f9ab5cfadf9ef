"""One seed, lived through."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import structlog

from tests.simulation.expected import Expected
from tests.simulation.scenario import Output, Scenario, scenario
from tests.simulation.world import World


def prepare(seed: int, output: Output | None = None) -> World:
    """The world of a seed, before anything happens in it; the seed chooses the output if that is left to it."""
    return World(*_known(seed, output))


@lru_cache(maxsize=64)
def _known(seed: int, output: Output | None) -> tuple[Scenario, Expected]:
    decided = scenario(seed, output)
    return decided, Expected(decided)


@contextmanager
def quiet_logs() -> Iterator[None]:
    """The worker's logs are no part of it."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)
