"""What must come out, and whether it did.

What is expected comes from one uninterrupted reading of the logs, with every answer there at once: no commit, no store, no
consumer. What is seen is what a reader of Redis sees, at any time.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from schemas import flat
from tests.simulation.redis_side import by_kind
from tests.simulation.scenario import TOPIC, Scenario
from worker import decode, policy
from worker.alert import DEFAULT_RULES
from worker.commits import Commit, DeadLetter, Restored, TopicPartition
from worker.partition import Partition
from worker.records import ModelInfo, Prediction, Record
from worker.render import Stamps
from worker.stream_time import StreamTime

_COUNTERS = ("version",)
"""Fields of call/1 that say how often it was touched, not what it is."""


class Violation(AssertionError):
    """Something was seen that must never be; the message says what."""


class CallExpected(NamedTuple):
    """A call's utterances, and its aggregate after each step: utterances so far and the flat call/1."""

    utterances: list[dict[str, Any]]
    prefixes: list[tuple[int, dict[str, str]]]


class Oracle:
    """Knows the scenario's outcome, watches a world, and judges it."""

    def __init__(self, scenario: Scenario, heard: Callable[[bytes], Prediction], model: ModelInfo) -> None:
        self._prefix = f"{{{scenario.settings.redis.prefix}}}"
        self._stamps = Stamps(policy.stamp(scenario.settings.policy), model)
        self._heard = heard
        self._calls: dict[str, CallExpected] = {}
        self._alerts: Counter[str] = Counter()
        self._letters: dict[tuple[int, int], DeadLetter] = {}
        self._ends: dict[int, int] = {}
        self._watermarks: dict[int, int] = {}
        for number, arrivals in scenario.logs.items():
            self._read(number, [record for _, record in arrivals], scenario)

    @property
    def utterances(self) -> int:
        """How many utterances the logs hold."""
        return sum(len(call.utterances) for call in self._calls.values())

    def _read(self, number: int, log: list[Record], scenario: Scenario) -> None:
        read = partial(decode.decode, input_format="headers", max_record_ms=scenario.settings.input.max_record_ms)
        source = TopicPartition(TOPIC, number)
        restored = Restored(log[0].position.offset, StreamTime(), {})
        partition = Partition(source, restored, read, scenario.settings, DEFAULT_RULES)
        for record in log:
            utterances = partition.take(record, 0.0)
            self._note(number, partition.collect(self._stamps, 0.0))
            for utterance in utterances:  # one by one: each may complete a step that a reader can see
                partition.settle(utterance.call_id, utterance.id, self._heard(utterance.audio), 0.0)
                self._note(number, partition.collect(self._stamps, 0.0))
        if not partition.live_calls:
            self._ends[number] = log[-1].position.offset + 1

    def _note(self, number: int, commit: Commit | None) -> None:
        if commit is None:
            return
        for utterance in commit.utterances:
            call = self._calls.setdefault(utterance["call_id"], CallExpected([], []))
            call.utterances.append({**utterance, "latency_ms": {}})
        for update in commit.calls:
            if update.summary is not None:
                call = self._calls.setdefault(update.call_id, CallExpected([], []))
                call.prefixes.append((len(call.utterances), _content(flat.flatten(update.summary))))
        self._alerts.update(alert["alert_id"] for alert in commit.alerts)
        self._letters |= {(number, letter.record.position.offset): letter for letter in commit.dead_letters}

    # -- while it runs

    def forgive(self) -> None:
        """The store has lost writes: it may be behind what was seen."""
        self._watermarks.clear()

    def progress(self, world: Any) -> object:
        """What changes as long as something is still to do."""
        results = [len(world.redis.entries_of(f"{self._prefix}:{name}")) for name in ("utterances", "alerts")]
        return self._watermarks.copy(), results, len(world.letters)

    def look(self, world: Any) -> None:
        """A reader's look at what has been written since the last one."""
        touched = by_kind(self._prefix[1:-1], world.redis.touched)
        world.redis.touched.clear()
        for name in touched.get("position", ()):
            number = int(name.rpartition(":")[2])
            watermark = int(world.redis.hash_of(f"{self._prefix}:position:{name}").get(b"watermark", 0))
            if watermark < self._watermarks.get(number, 0):
                raise Violation(f"the watermark of {name} went from {self._watermarks[number]} to {watermark}")
            self._watermarks[number] = watermark
        for call_id in sorted(touched.get("call", set()) | touched.get("utterances", set()) - {""}):
            self._look_at(world, call_id)

    def _look_at(self, world: Any, call_id: str) -> None:
        found = self._utterances(world, call_id)
        expected = self._calls.get(call_id, CallExpected([], []))
        if found != expected.utterances[: len(found)]:
            raise Violation(f"{call_id}: {_difference(found, expected.utterances)}")
        fields = _content(_text(world.redis.hash_of(f"{self._prefix}:call:{call_id}")))
        if not fields and not found:
            return
        described = {name: text for name, text in fields.items() if _is_folded(name)}
        prefixes = [{n: t for n, t in prefix.items() if _is_folded(n)} for count, prefix in expected.prefixes if count == len(found)]
        if described not in prefixes:
            raise Violation(f"{call_id}: its aggregate is no fold of its first {len(found)} utterances: {_fields(described, prefixes)}")

    def _utterances(self, world: Any, call_id: str) -> list[dict[str, Any]]:
        entries = world.redis.entries_of(f"{self._prefix}:utterances:{call_id}")
        found = [{**json.loads(fields[b"json"]), "latency_ms": {}} for _, fields in entries]
        if [entry_id for entry_id, _ in entries] != [b"%d-0" % (n + 1) for n in range(len(entries))]:
            raise Violation(f"{call_id}: entries are not numbered 1 to {len(entries)}")
        return found

    # -- at the end

    def judge(self, world: Any) -> None:
        """All is read and quiet: everything must be there, once.

        Raises:
            Violation: it is not.
        """
        problems = [*self._wrong_calls(world), *self._wrong_streams(world), *self._wrong_letters(world)]
        for number, end in self._ends.items():
            if self._watermarks.get(number) != end:
                problems.append(f"watermark of partition {number} is {self._watermarks.get(number)}, the end {end}")
        if problems:
            raise Violation("; ".join(problems))

    def _wrong_calls(self, world: Any) -> list[str]:
        problems, live = [], set()
        for call_id, expected in self._calls.items():
            found = self._utterances(world, call_id)
            if found != expected.utterances:
                problems.append(f"{call_id}: {_difference(found, expected.utterances)}")
            fields = _text(world.redis.hash_of(f"{self._prefix}:call:{call_id}"))
            if _content(fields) != expected.prefixes[-1][1]:
                problems.append(f"{call_id}: final aggregate {_fields(_content(fields), [expected.prefixes[-1][1]])}")
            if expected.prefixes[-1][1]["status"] == "live":
                live.add(call_id.encode())
        stored = by_kind(self._prefix[1:-1], set(world.redis.keys))
        foreign = (stored["call"] | stored["utterances"]) - {"", *self._calls}
        problems += [f"{call_id}: foreign" for call_id in sorted(foreign)]
        for name in ("by_update", "by_risk"):
            listed = set(world.redis.hash_of(f"{self._prefix}:live:{name}"))
            if listed != live:
                problems.append(f"live:{name} has {sorted(listed)} instead of {sorted(live)}")
        return problems

    def _wrong_streams(self, world: Any) -> list[str]:
        """Every utterance and alert stands in the streams for all calls exactly once, too."""
        entries = world.redis.entries_of(f"{self._prefix}:utterances")
        utterances = Counter(json.loads(fields[b"json"])["utterance_id"] for _, fields in entries)
        expected = Counter(u["utterance_id"] for call in self._calls.values() for u in call.utterances)
        entries = world.redis.entries_of(f"{self._prefix}:alerts")
        alerts = Counter(json.loads(fields[b"json"])["alert_id"] for _, fields in entries)
        problems = []
        for name, seen, due in (("utterances", utterances, expected), ("alerts", alerts, self._alerts)):
            if seen != due:
                problems.append(f"stream {name}: missing {_sum(due - seen)}, too many {_sum(seen - due)}")
        return problems

    def _wrong_letters(self, world: Any) -> list[str]:
        """After a crash a letter may stand there twice, but it must be the same letter."""
        sent = [((letter.record.position.partition, letter.record.position.offset), letter) for letter in world.letters]
        missing = self._letters.keys() - dict(sent).keys()
        problems = [f"dead letter {position} is missing" for position in sorted(missing)]
        return problems + [
            f"dead letter {position} is {letter.reason} with value {letter.record.value!r}"
            for position, letter in sent
            if letter != self._letters.get(position)
        ]


def _difference(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> str:
    """In the words of the promise: missing, duplicate, foreign, overlapping, different."""
    seen, due = (Counter(u["utterance_id"] for u in utterances) for utterances in (found, expected))
    overlapping = 0
    ends: dict[tuple[str, int], int] = {}
    for u in found:
        channel = (u["stream"], u["channel"])
        overlapping += u["start_ms"] < ends.get(channel, 0)
        ends[channel] = max(ends.get(channel, 0), u["end_ms"])
    different = [
        f"{one['utterance_id']} {name}: {one[name]} for {other[name]}"
        for one, other in zip(found, expected, strict=False)
        for name in one
        if one[name] != other[name]
    ]
    return (
        f"missing {len(due - seen)}, duplicate {sum(n - 1 for n in seen.values())}, foreign {len(seen.keys() - due.keys())}, "
        f"overlapping {overlapping}, different {different[:3]}"
    )


def _fields(found: Mapping[str, str], expected: list[dict[str, str]]) -> str:
    nearest = min(expected, key=lambda fields: len(fields.items() ^ found.items()), default={})
    return f"{dict(sorted(found.items() - nearest.items()))} instead of {dict(sorted(nearest.items() - found.items()))}"


def _content(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in fields.items() if name not in _COUNTERS}


def _is_folded(name: str) -> bool:
    """Whether a field comes from results; what the producer says of the call counts when it is read."""
    return not name.startswith(flat.ATTRIBUTE_PREFIX) and name != "notice"


def _text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): text.decode() for name, text in fields.items()}


def _sum(counter: Counter[str]) -> int:
    return sum(counter.values())
