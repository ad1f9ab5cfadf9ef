"""`callmood`: worker, analyze, replay, check, topics, acls, erase, redrive, watch, demo, bench."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType

_READER_GONE = 141  # what a shell says of a program that ended by SIGPIPE
_COMMANDS = {
    "worker": "consume call audio from Kafka and publish emotions (settings: CALLMOOD_ environment)",
    "analyze": "what the worker would say of recorded calls, without Kafka",
    "replay": "put recorded calls on Kafka, as telephony would",
    "check": "try Kafka, Redis and the model as a worker would, and say what is wrong",
    "topics": "create the Kafka topics that the settings name",
    "acls": "print the least that Kafka must allow a worker, or set it",
    "erase": "remove a call that has ended from Redis and Kafka, with a receipt",
    "redrive": "list the dead letters by reason, or send them back after a fix",
    "watch": "show the live calls of a Redis in the terminal",
    "bench": "measure the inference engine on this machine",
    "demo": "a worker, several calls and the live view, on a running stack (make demo starts one)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 good, 2 wrong input or settings, others by command."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="callmood", description="Voice emotion for call centres.")
    parser.add_argument("--version", action="version", version=version("callmood"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = argv[0] if argv and argv[0] in _COMMANDS else None
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == chosen:  # only the chosen command pays for its imports
            _module(name).add_arguments(command)
    arguments = parser.parse_args(argv)
    try:
        code: int = _module(arguments.command).run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # who read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE
    return code


def _module(command: str) -> ModuleType:
    name = "callmood.bench.__main__" if command == "bench" else f"callmood.worker.commands.{command}"
    return importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
