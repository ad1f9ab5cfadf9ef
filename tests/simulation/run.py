"""One seed lived through; many of them."""

import logging

import structlog

from tests.simulation.oracle import Oracle
from tests.simulation.scenario import scenario
from tests.simulation.world import SimInference, World, heard


def prepare(seed: int) -> World:
    """The world of a seed, before anything happens in it."""
    decided = scenario(seed)
    return World(decided, Oracle(decided, heard, SimInference.model))


def quiet_logs() -> None:
    """The worker's logs are no part of it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
