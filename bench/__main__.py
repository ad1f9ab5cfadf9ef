"""`callmood bench WHAT`: measure a part of callmood on this machine."""

import argparse
import sys

from callmood.bench import engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    engine.add_arguments(kinds.add_parser("engine", help="the inference engine", description=engine.__doc__))


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; returns the exit code."""
    return engine.run(arguments)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m callmood.bench", description=__doc__)
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
