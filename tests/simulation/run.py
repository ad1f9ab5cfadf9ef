"""One seed, lived through."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import structlog

from tests.simulation.expected import Expected, refuse_disturbed
from tests.simulation.scenario import Output, Scenario, scenario
from tests.simulation.world import World


def prepare(seed: int, output: Output | None = None, *, is_hostile: bool | None = None) -> World:
    """The world of a seed, before anything happens in it; the seed chooses what is left to it.

    Raises:
        AssertionError: a hostile producer changes what comes out of the calls of others, without any fault.
    """
    return World(*_known(seed, output, is_hostile))


@lru_cache(maxsize=64)
def _known(seed: int, output: Output | None, is_hostile: bool | None) -> tuple[Scenario, Expected]:  # noqa: FBT001 - cached
    decided = scenario(seed, output, is_hostile=is_hostile)
    expected = Expected(decided)
    if decided.odd:
        refuse_disturbed(decided, expected)
    return decided, expected


@contextmanager
def quiet_logs() -> Iterator[None]:
    """The worker's logs are no part of it."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)
