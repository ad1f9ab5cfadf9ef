"""Results as published: files of `callmood analyze`, other JSON lines of the contract, or Redis."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from callmood.worker.errors import ConfigurationError

REDIS: Final = "redis"
_URL: Final = "CALLMOOD_REDIS__URL"


def records(source: str, prefix: str) -> Iterator[Mapping[str, Any]]:
    """The utterance/1 and call/1 records of a source.

    Args:
        source: a file of JSON lines, `-` for standard input, or `redis` for the Redis of `CALLMOOD_REDIS__URL`.
        prefix: of the keys in Redis.

    Raises:
        ConfigurationError: the source cannot be read; of a file, the message has the line.
    """
    if source == REDIS:
        return _redis(prefix)
    return _lines(source)


def _lines(source: str) -> Iterator[Mapping[str, Any]]:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{source}: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ConfigurationError(f"{source}, line {number}: {error}") from error
        if not isinstance(record, dict) or "schema" not in record:
            raise ConfigurationError(f"{source}, line {number}: not a record of callmood")
        yield record


def _redis(prefix: str) -> Iterator[Mapping[str, Any]]:
    """The utterances of all calls that Redis still has, oldest first, and their calls."""
    from redis import RedisError  # noqa: PLC0415 - training images lack it; files need none

    from callmood.dashboard import Dashboard  # noqa: PLC0415 - as above

    if not (url := os.environ.get(_URL)):
        raise ConfigurationError(f"set {_URL}, or give a file of results")
    try:
        with Dashboard(url, prefix) as dashboard:
            calls: set[str] = set()
            for news in dashboard.follow(from_start=True, timeout_s=0.01):
                if not news.utterances and not news.alerts:
                    break
                calls.update(utterance.call_id for utterance in news.utterances)
                yield from (utterance.model_dump(mode="json", by_alias=True) for utterance in news.utterances)
            views = dashboard.calls(sorted(calls))
            yield from (view.call.model_dump(mode="json", by_alias=True) for view in views)
    except (RedisError, ValueError) as error:
        raise ConfigurationError(f"{_URL}: {error}") from error
