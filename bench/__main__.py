"""`callmood bench WHAT`: measure a part of callmood on this machine."""

import argparse
import sys

from callmood.bench import (
    capacity,
    engine,
    field,
    idle,
    inference,
    ingest,
    latency,
    live,
    memory,
    page,
    realtime,
    servers,
)
from callmood.bench.temporary import end_on_sigterm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    for name, what, about in (
        ("capacity", capacity, "calls within a limit of latency, beside other programs"),
        ("engine", engine, "the inference engine"),
        ("field", field, "the speech check"),
        ("idle", idle, "an idle ingest process"),
        ("inference", inference, "the inference process, without the model"),
        ("ingest", ingest, "the ingest process, without the model"),
        ("latency", latency, "from the last word to Redis, by stage"),
        ("live", live, "a commit beside many live calls"),
        ("memory", memory, "the memory of a live call"),
        ("page", page, "the page for supervisors"),
        ("realtime", realtime, "ingest processes with a real Kafka and Redis"),
        ("servers", servers, "what Kafka and Redis cost"),
    ):
        measure = what.add_arguments(kinds.add_parser(name, help=about, description=what.__doc__))
        measure.set_defaults(measure=what.run)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables; returns the exit code."""
    end_on_sigterm()
    code: int = arguments.measure(arguments)
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m callmood.bench", description=__doc__)
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
