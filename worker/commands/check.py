"""`callmood check`: whether a worker with these settings could work, and if not, why."""

import argparse
import sys

from callmood.worker import settings
from callmood.worker.commands import preflight
from callmood.worker.errors import CallmoodError, ConfigurationError, ModelError

_AGAIN = 75  # as a worker that should be started again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("what", nargs="*", choices=[[], *preflight.CHECKS], help="default: all")


def run(arguments: argparse.Namespace) -> int:
    """Try everything and say a line for each; 2 if something is set wrongly, 75 if something does not answer."""
    try:
        configured = settings.load()
    except ConfigurationError as error:
        print(f"callmood: {error}", file=sys.stderr)
        return 2
    codes = {0}
    for name in arguments.what or preflight.CHECKS:
        try:
            print(f"{name}: ok: {preflight.CHECKS[name](configured)}", flush=True)
        except CallmoodError as error:
            print(f"{name}: {error}", flush=True)
            codes.add(2 if isinstance(error, ConfigurationError | ModelError) else _AGAIN)
    return 2 if 2 in codes else max(codes)  # noqa: PLR2004 - exit codes
