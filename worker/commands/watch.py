"""`callmood watch`: live calls from Redis, in the terminal."""

import argparse

from callmood.dashboard.reader import Dashboard
from callmood.dashboard.terminal import watch
from callmood.worker import settings
from callmood.worker.adapters.redis_client import redis_address, redis_errors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("calls", metavar="CALL", nargs="*", help="call id; default: the calls with the highest risk")
    parser.add_argument("--limit", type=int, default=20, help="number of calls to show if no CALL is given")


def run(arguments: argparse.Namespace) -> int:
    """Show until Ctrl-C, or until the named calls have ended."""
    configured = settings.load().redis
    with redis_errors(), Dashboard(redis_address(configured), configured.prefix) as dashboard:
        watch(dashboard, until=arguments.calls, limit=arguments.limit)
    return 0
