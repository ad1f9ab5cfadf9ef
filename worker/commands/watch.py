"""`callmood watch`: the live calls of a Redis, in the terminal."""

import argparse
import sys

import redis

from callmood.dashboard.reader import Dashboard
from callmood.dashboard.terminal import watch
from callmood.worker import settings
from callmood.worker.adapters.redis_client import redis_address
from callmood.worker.errors import CallmoodError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("calls", metavar="CALL", nargs="*", help="call ids; without any, the calls of highest risk")
    parser.add_argument("--limit", type=int, default=20, help="number of calls shown when none is named")


def run(arguments: argparse.Namespace) -> int:
    """Show until Ctrl-C, or until the named calls have ended."""
    try:
        configured = settings.load().redis
        with Dashboard(redis_address(configured), configured.prefix) as dashboard:
            watch(dashboard, until=arguments.calls, limit=arguments.limit)
    except (CallmoodError, redis.RedisError) as error:
        print(f"callmood: {error}", file=sys.stderr)
        return 2
    return 0
