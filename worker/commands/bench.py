"""`callmood bench engine`: how fast the inference engine is here, beside transformers' pipeline."""

import argparse

from worker import bench


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    bench.add_arguments(kinds.add_parser("engine", help="the inference engine", description=bench.__doc__))


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; returns the exit code."""
    return bench.run(arguments)
