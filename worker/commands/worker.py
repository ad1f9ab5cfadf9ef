"""`callmood worker`: the worker itself."""

import argparse
import sys

from callmood.worker import settings
from callmood.worker.errors import ConfigurationError
from callmood.worker.run import supervise


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """None: a worker is set up by its environment."""


def run(_arguments: argparse.Namespace) -> int:
    """Run until SIGTERM."""
    try:
        configured = settings.load()
    except ConfigurationError as error:
        print(f"callmood: {error}", file=sys.stderr)
        return 2
    return supervise.run(configured)
