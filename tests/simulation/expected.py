"""What must come out: one uninterrupted reading of the logs, with every answer there at once.

No commit, no store, no consumer: nothing of what is tested.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from callmood.schemas import flat
from callmood.worker.call import policy
from callmood.worker.call.render import Stamps
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import DeadLetter, Restored, TopicPartition
from callmood.worker.intake import decode
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Record
from callmood.worker.stream_time import StreamTime
from tests.simulation import hostile
from tests.simulation.model_side import MODEL, heard
from tests.simulation.scenario import TOPIC, Scenario

_COUNTERS = ("version",)
"""Fields of call/1 that say how often it was touched, not what it is."""


class CallExpected(NamedTuple):
    """A call's utterances, and its aggregate after each step: utterances so far and the flat call/1."""

    utterances: list[dict[str, Any]]
    prefixes: list[tuple[int, dict[str, str]]]


class Expected:
    """The outcome of a scenario: what any run of it must come to."""

    def __init__(self, scenario: Scenario) -> None:
        self.calls: dict[str, CallExpected] = {}
        self.alerts: Counter[str] = Counter()
        self.letters: dict[tuple[int, int], DeadLetter] = {}
        self.ends: dict[int, int] = {}
        """Where the watermark must come to stand, of partitions whose calls are all over."""
        self.unaccounted: list[tuple[int, int]] = []
        """Odd records that are neither dead-lettered nor skipped nor in a call of their producer."""
        self._scenario = scenario
        self.odd = scenario.odd
        self._stamps = Stamps(policy.stamp(scenario.settings.policy), MODEL)
        for number, arrivals in scenario.logs.items():
            self._read(number, [record for _, record in arrivals])

    def _read(self, number: int, log: list[Record]) -> None:
        settings = self._scenario.settings
        read = partial(decode.decode, input_format="headers", max_record_ms=settings.input.max_record_ms)
        source = TopicPartition(TOPIC, number)
        restored = Restored(log[0].position.offset, StreamTime(), {})
        partition = Partition(source, restored, read, settings, DEFAULT_RULES)
        for record in log:
            utterances = list(partition.take((record,), 0.0))
            self._note(number, partition)
            self._account(record, sum(partition.take_skipped().values()))
            for utterance in utterances:  # one by one: each may complete a step that a reader can see
                partition.answer(utterance.call_id, utterance.id, heard(utterance), 0.0)
                self._note(number, partition)
        if not partition.live_calls:
            self.ends[number] = log[-1].position.offset + 1

    def _account(self, record: Record, skipped: int) -> None:
        place = (record.position.partition, record.position.offset)
        is_own = (record.key or b"").startswith(hostile.KEY)
        if place in self._scenario.odd and not (place in self.letters or skipped or is_own):
            self.unaccounted.append(place)

    def _note(self, number: int, partition: Partition) -> None:
        commit = partition.collect(self._stamps, 0.0)
        partition.confirm(commit)
        for utterance in commit.utterances:
            call = self.calls.setdefault(utterance["call_id"], CallExpected([], []))
            call.utterances.append({**utterance, "latency_ms": {}})
        for update in commit.calls:
            if update.summary is not None:
                call = self.calls.setdefault(update.call_id, CallExpected([], []))
                call.prefixes.append((len(call.utterances), content(flat.flatten(update.summary))))
        self.alerts.update(alert["alert_id"] for alert in commit.alerts)
        self.letters |= {(number, letter.record.position.offset): letter for letter in commit.dead_letters}


def refuse_disturbed(scenario: Scenario, expected: Expected) -> None:
    """What comes out beside a hostile producer must be what comes out without it.

    Raises:
        AssertionError: a good call differs, or a record of the hostile producer is not accounted for.
    """
    alone = Expected(scenario.without_odd())
    assert not expected.unaccounted, f"odd records that nothing shows: {expected.unaccounted[:5]}"
    own = {call_id for call_id in expected.calls if call_id.startswith(hostile.KEY.decode())}
    assert expected.calls.keys() - own == alone.calls.keys()
    for call_id, call in alone.calls.items():
        assert expected.calls[call_id].utterances == call.utterances, f"{call_id}: other utterances beside odd records"
        assert _last(expected.calls[call_id]) == _last(call), f"{call_id}: another aggregate beside odd records"
    good = Counter({name: n for name, n in expected.alerts.items() if not name.startswith(hostile.KEY.decode())})
    assert good == alone.alerts
    assert alone.letters.items() <= expected.letters.items()


def _last(call: CallExpected) -> dict[str, str]:
    return call.prefixes[-1][1] if call.prefixes else {}


def content(fields: Mapping[str, str]) -> dict[str, str]:
    """A flat call/1 without its counters of change."""
    return {name: text for name, text in fields.items() if name not in _COUNTERS}
