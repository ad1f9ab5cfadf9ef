"""`callmood erase`: remove a call that has ended, and say what was found and what is left."""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version

from callmood.worker import settings
from callmood.worker.commands.erasure import erase
from callmood.worker.errors import CallmoodError, ConfigurationError

_AGAIN = 75
_LEFT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("call_id", help="as on the audio topic")


def run(arguments: argparse.Namespace) -> int:
    """Print the receipt, as JSON; 1 if something is left that only retention removes."""
    try:
        lines = erase(settings.load(), arguments.call_id)
    except CallmoodError as error:
        print(f"callmood: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else _AGAIN
    left = sum(line.left for line in lines)
    receipt = {
        "call_id": arguments.call_id,
        "erased_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "callmood": version("callmood"),
        "places": [asdict(line) for line in lines],
        "left_to_retention": left,
    }
    print(json.dumps(receipt, indent=2))
    return _LEFT if left else 0
