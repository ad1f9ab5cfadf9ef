"""`callmood rules test`: the alerts that rules would have raised for live and ended calls."""

import argparse
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from callmood.dashboard.reader import Dashboard
from callmood.worker import settings
from callmood.worker.adapters.redis_client import redis_address, redis_errors
from callmood.worker.call.refold import refold
from callmood.worker.call.rule import Rule, parse_rules
from callmood.worker.commands.text_file import read_text
from callmood.worker.errors import EXIT_OK

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_HOUR_MS: Final = 3_600_000
_EXAMPLES: Final = 3
_MOST: Final = 100_000


@dataclass
class Found:
    """What a rule would have said."""

    alerts: int = 0
    calls: dict[str, None] = field(default_factory=dict)
    """Ids, in the order in which the calls were read."""
    queues: Counter[str] = field(default_factory=Counter)
    """Alerts by queue."""


class Trial:
    """Rules over calls that are read one by one."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.calls = 0
        self.found = {rule.name: Found() for rule in rules}
        self._rules = rules
        self._from_ms, self._to_ms = math.inf, -math.inf

    def add(self, call: Mapping[str, Any], utterances: Iterable[Mapping[str, Any]]) -> None:
        """The next call/1 with its utterance/1 records."""
        self.calls += 1
        self._from_ms, self._to_ms = min(self._from_ms, call["started_at_ms"]), max(self._to_ms, call["updated_at_ms"])
        for alert in refold(call, utterances, self._rules).alerts:
            one = self.found[alert["rule"]]
            one.alerts += 1
            one.calls[call["call_id"]] = None
            one.queues[call["attributes"].get("queue", "")] += 1

    @property
    def hours(self) -> float:
        """Time from the beginning of the first call to the newest audio, by the clocks of the producers."""
        return max(1.0, self._to_ms - self._from_ms) / _HOUR_MS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    actions = parser.add_subparsers(dest="action", required=True)
    text = "replay rules over the calls in Redis: how often they would have raised an alert, and in which calls"
    test = actions.add_parser("test", help=text, description=text)
    test.add_argument("rules", type=Path, help="TOML file with rules (docs/aggregates.md)")
    test.add_argument(
        "--since",
        type=_seconds,
        default=3600.0,
        metavar="TIME",
        help="also calls that ended within this time, for example 30m; default: 1h",
    )
    test.add_argument("--supervisors", type=int, default=1, help="supervisors who share the alerts; default: 1")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each rule; exit code 2 if the rules are wrong."""
    rules = parse_rules(read_text(arguments.rules))
    configured = settings.load()
    with redis_errors(), Dashboard(redis_address(configured.redis), configured.redis.prefix) as dashboard:
        trial = Trial(rules)
        for call, utterances in _stored(dashboard, time.time() - arguments.since):
            trial.add(call, utterances)
    for line in _lines(trial, max(1, arguments.supervisors)):
        print(line)
    return EXIT_OK


def _stored(dashboard: Dashboard, since_s: float) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Calls that have ended since, and all that are live."""
    for view in [*dashboard.ended_calls(round(since_s * 1000)), *dashboard.live_calls(limit=_MOST)]:
        said = dashboard.utterances(view.call.call_id)
        utterances = [one.model_dump(mode="json", by_alias=True) for one in said]
        yield view.call.model_dump(mode="json", by_alias=True), utterances


def _lines(trial: Trial, supervisors: int) -> Iterator[str]:
    if not trial.calls:
        yield "no calls: Redis keeps a call for an hour after its end (CALLMOOD_REDIS__ENDED_TTL_S)"
        return
    yield f"{trial.calls} calls within {trial.hours:.2f} h, {supervisors} supervisors"
    for name, one in trial.found.items():
        rate = one.alerts / trial.hours / supervisors
        yield f"{name}: {one.alerts} alerts in {len(one.calls)} calls, {rate:.1f} per supervisor and hour"
        for queue, count in one.queues.most_common():
            yield f"  {queue or 'no queue'}: {count}"
        if one.calls:
            yield f"  for example: {', '.join(islice(one.calls, _EXAMPLES))}"


def _seconds(text: str) -> float:
    """A length of time such as 30m.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m, 2h or 1d")
    return float(match[1]) * _UNITS_S[match[2]]
