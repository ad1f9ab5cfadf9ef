"""`callmood`, the command line: `_COMMANDS` lists what it can do."""

import argparse
import importlib
import os
import sys
from collections.abc import Container, Sequence
from importlib.metadata import version
from types import ModuleType

from callmood.worker.errors import CallmoodError, exit_code

_READER_GONE = 141  # the exit code that shells report for a program that SIGPIPE ended
_COMMANDS = {
    "worker": "read call audio from Kafka and publish emotions, until SIGTERM; CALLMOOD_ variables are the settings",
    "analyze": "compute the results of recorded calls as a worker would, without Kafka and Redis",
    "replay": "send recorded calls to Kafka as a telephony system would",
    "check": "test Kafka, Redis, model and CPU cores with the worker's settings, and report what is wrong",
    "topics": "create the Kafka topics that the settings name",
    "acls": "print or set the minimal Kafka ACLs of a worker or of `callmood erase`",
    "erase": "delete an ended call from Redis and Kafka, and print a receipt",
    "redrive": "list dead-letter records by reason, or send them back after a fix",
    "dashboard": "serve the page for supervisors: calls that need a person, and why",
    "watch": "show live calls from Redis in the terminal",
    "report": "write one call as an HTML file: lanes, figures with their definitions, alerts, utterances",
    "export": "write the calls of a day and their utterances as Parquet, CSV or JSON lines",
    "rules": "test alert rules on calls that are over or live",
    "webhooks": "send alerts to other systems, signed, with retries",
    "plan": "compute partitions, processes, cores, GPUs and memory for a number of calls from measured figures",
    "bench": "measure the ingest loop, the inference engine, the speech check or the page on this machine",
    "demo": "run a worker, several calls and the live view on running servers (`make demo` starts them)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0: success. 2: input or settings are wrong. 75: Kafka or Redis does not answer, try again. Others: see the command.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = command_line(argv[:1]).parse_args(argv)
    try:
        code: int = _module(arguments.command).run(arguments)
        sys.stdout.flush()
    except CallmoodError as error:
        print(f"callmood: {error}", file=sys.stderr)
        return exit_code(error)
    except BrokenPipeError:  # the program that reads our output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE
    return code


def command_line(complete: Container[str] = _COMMANDS) -> argparse.ArgumentParser:
    """The parser of all commands; only those in `complete` have their options, which need the command's libraries."""
    parser = argparse.ArgumentParser(prog="callmood", description="Voice emotion for call centres.")
    parser.add_argument("--version", action="version", version=version("callmood"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name in complete:
            _module(name).add_arguments(command)
    return parser


def _module(command: str) -> ModuleType:
    name = "callmood.bench.__main__" if command == "bench" else f"callmood.worker.commands.{command}"
    return importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
