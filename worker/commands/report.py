"""`callmood report`: one call as one HTML file, for quality assurance."""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from callmood.dashboard.reader import Dashboard
from callmood.dashboard.report import report
from callmood.schemas.call import CALL_SCHEMA, Call
from callmood.schemas.utterance import UTTERANCE_SCHEMA, Utterance
from callmood.worker import settings
from callmood.worker.adapters.redis_client import redis_address, redis_errors
from callmood.worker.commands.text_file import read_text
from callmood.worker.errors import EXIT_OK, ConfigurationError

_CONTRACTS: Final[dict[str, type[Call] | type[Utterance]]] = {CALL_SCHEMA: Call, UTTERANCE_SCHEMA: Utterance}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("call_id", help="id of the call: its key on the audio topic")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="JSON lines, as `callmood analyze` prints them; default: Redis"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="the HTML file; default: standard output")


def run(arguments: argparse.Namespace) -> int:
    """Write the file; exit code 2 if the call is not known."""
    found = _from_file(arguments.results, arguments.call_id) if arguments.results else _from_redis(arguments.call_id)
    text = report(*found, version("callmood"))
    if arguments.output is None:
        sys.stdout.write(text)
        return EXIT_OK
    try:
        arguments.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{arguments.output}: {error.strerror}") from error
    return EXIT_OK


def _from_redis(call_id: str) -> tuple[Call, list[Utterance]]:
    configured = settings.load()
    with redis_errors(), Dashboard(redis_address(configured.redis), configured.redis.prefix) as dashboard:
        views = dashboard.calls([call_id])
        utterances = dashboard.utterances(call_id)
    if dashboard.unreadable:
        raise ConfigurationError(
            f"cannot read {dashboard.unreadable} records of the call: another version of callmood wrote them"
        )
    if not views:
        raise ConfigurationError(f"Redis has no call {call_id}: check the id, the lifetime and CALLMOOD_REDIS__PREFIX")
    return views[0].call, utterances


def _from_file(path: Path, call_id: str) -> tuple[Call, list[Utterance]]:
    lines = read_text(path).split("\n")
    records = [_record(line, f"{path}, line {number}", call_id) for number, line in enumerate(lines, start=1) if line]
    calls = [record for record in records if isinstance(record, Call)]
    if not calls:
        raise ConfigurationError(f"{path} has no {CALL_SCHEMA} of call {call_id}")
    utterances = [record for record in records if isinstance(record, Utterance)]
    return max(calls, key=lambda call: call.version), sorted(utterances, key=lambda utterance: utterance.number)


def _record(line: str, where: str, call_id: str) -> Call | Utterance | None:
    """What a line says of this call; None for anything else."""
    try:
        record = json.loads(line)
        if not isinstance(record, dict) or record.get("call_id") != call_id:
            return None
        contract: type[Call | Utterance] | None = _CONTRACTS.get(str(record.get("schema")))
        return contract.read(line) if contract else None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{where}: {field}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{where} is not JSON: {error}") from error
