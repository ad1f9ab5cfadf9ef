"""`callmood worker`: the worker itself."""

import argparse

from callmood.worker import settings
from callmood.worker.run import supervise


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """None: the settings come from the environment."""


def run(_arguments: argparse.Namespace) -> int:
    """Run until SIGTERM."""
    return supervise.run(settings.load())
