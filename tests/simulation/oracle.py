"""Whether what a reader of Redis sees, at any time and in the end, is what must come out."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from callmood.schemas import flat
from callmood.schemas.keys import Keys
from callmood.worker.commits import DeadLetter
from tests.simulation import hostile
from tests.simulation.expected import CallExpected, Expected, content
from tests.simulation.redis_side import by_kind
from tests.simulation.scenario import TOPIC


class Violation(AssertionError):  # noqa: N818 - it is the finding, not an error of ours
    """Something was seen that must never be; the message says what."""


class Oracle:
    """Watches one output of a world, and judges it when it is quiet.

    Args:
        expected: what must come out.
        prefix: of the keys.
        view: the output, as Redis holds it or as a reader of Kafka would lay it out there.
        is_one_step: whether a call and its utterances change together; from Kafka's topics they come one by one.
        is_source: whether the output holds the watermarks of the audio; a projection has others.
    """

    def __init__(
        self, expected: Expected, prefix: str, view: Any, *, is_one_step: bool = True, is_source: bool = True
    ) -> None:
        self._expected = expected
        self._prefix = prefix
        self._keys = Keys(prefix)
        self._view = view
        self._is_one_step = is_one_step
        self._is_source = is_source
        self._watermarks: dict[str, int] = {}

    @property
    def utterances(self) -> int:
        """How many utterances must come out."""
        return sum(len(call.utterances) for call in self._expected.calls.values())

    # -- while it runs

    def forgive(self, store: Any) -> None:
        """This store has lost writes: it may be behind what was seen."""
        if self._view is store:
            self._watermarks.clear()

    def progress(self) -> object:
        """What changes as long as something is still to do."""
        results = [len(self._view.entries_of(self._keys.named(name))) for name in ("utterances", "alerts")]
        return self._watermarks.copy(), results

    def look(self) -> None:
        """A reader's look at what has been written since the last one."""
        touched = by_kind(self._prefix, self._view.touched)
        self._view.touched.clear()
        for name in touched.get("position", ()):
            watermark = int(self._view.hash_of(self._keys.named(f"position:{name}")).get(b"watermark", 0))
            if watermark < self._watermarks.get(name, 0):
                raise Violation(f"the watermark of {name} went from {self._watermarks[name]} to {watermark}")
            self._watermarks[name] = watermark
        for call_id in sorted(touched.get("call", set()) | touched.get("utterances", set()) - {""}):
            if not hostile.is_own(call_id):
                self._look_at(call_id)

    def _look_at(self, call_id: str) -> None:
        found = self._utterances(call_id)
        expected = self._expected.calls.get(call_id, CallExpected([], []))
        if found != expected.utterances[: len(found)]:
            raise Violation(f"{call_id}: {_difference(found, expected.utterances)}")
        fields = content(_text(self._view.hash_of(self._keys.call(call_id))))
        if not fields and (not found or not self._is_one_step):
            return
        described = {name: text for name, text in fields.items() if _is_folded(name)}
        prefixes = [
            {n: t for n, t in prefix.items() if _is_folded(n)}
            for count, prefix in expected.prefixes
            if count == len(found) or not self._is_one_step
        ]
        if described not in prefixes:
            difference = _fields(described, prefixes)
            raise Violation(f"{call_id}: its aggregate is no fold of its first {len(found)} utterances: {difference}")

    def _utterances(self, call_id: str) -> list[dict[str, Any]]:
        entries = self._view.entries_of(self._keys.utterances_of(call_id))
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
        problems = [*self._wrong_calls(), *self._wrong_streams(), *self._wrong_letters(world)]
        for number, end in self._expected.ends.items() if self._is_source and not self._expected.odd else ():
            watermark = self._watermarks.get(f"{TOPIC}:{number}")
            if watermark != end:
                problems.append(f"watermark of partition {number} is {watermark}, the end {end}")
        if problems:
            raise Violation("; ".join(problems))

    def _wrong_calls(self) -> list[str]:
        problems: list[str] = []
        lists: dict[str, set[bytes]] = {name: set() for name in self._keys.lists_of_calls}
        for call_id, expected in self._expected.calls.items():
            if hostile.is_own(call_id):
                continue
            found = self._utterances(call_id)
            if found != expected.utterances:
                problems.append(f"{call_id}: {_difference(found, expected.utterances)}")
            fields = _text(self._view.hash_of(self._keys.call(call_id)))
            if content(fields) != expected.prefixes[-1][1]:
                problems.append(f"{call_id}: final aggregate {_fields(content(fields), [expected.prefixes[-1][1]])}")
            for name in _lists(expected.prefixes[-1][1], self._keys):
                lists[name].add(call_id.encode())
        stored = by_kind(self._prefix, set(self._view.keys))
        foreign = (stored["call"] | stored["utterances"]) - {"", *self._expected.calls}
        problems += [f"{call_id}: foreign" for call_id in sorted(foreign) if not hostile.is_own(call_id)]
        for name, due in lists.items():
            listed = {member for member in self._view.hash_of(name) if not hostile.is_own(member.decode())}
            if listed != due:
                problems.append(f"{name} has {sorted(listed)} instead of {sorted(due)}")
        return problems

    def _wrong_streams(self) -> list[str]:
        """Every utterance and alert stands in the streams for all calls exactly once, too."""
        entries = self._view.entries_of(self._keys.utterances)
        utterances = Counter(json.loads(fields[b"json"])["utterance_id"] for _, fields in entries if _is_good(fields))
        good = {call_id: call for call_id, call in self._expected.calls.items() if not hostile.is_own(call_id)}
        expected = Counter(u["utterance_id"] for call in good.values() for u in call.utterances)
        entries = self._view.entries_of(self._keys.alerts)
        alerts = Counter(json.loads(fields[b"json"])["alert_id"] for _, fields in entries if _is_good(fields))
        problems = []
        for name, seen, due in (("utterances", utterances, expected), ("alerts", alerts, self._good_alerts())):
            if seen != due:
                problems.append(f"stream {name}: missing {_sum(due - seen)}, too many {_sum(seen - due)}")
        return problems

    def _good_alerts(self) -> Counter[str]:
        return Counter({name: count for name, count in self._expected.alerts.items() if not hostile.is_own(name)})

    def _wrong_letters(self, world: Any) -> list[str]:
        """After a crash a letter may stand there twice, but it must be the same letter.

        Whether an odd record goes without its value depends on the pauses of calls whose ids are used again.
        """
        sent = [(_place(letter), letter) for letter in world.letters if not _is_of_own_call(letter)]
        expected = {place: one for place, one in self._expected.letters.items() if not _is_of_own_call(one)}
        problems = [f"dead letter {place} is missing" for place in sorted(expected.keys() - dict(sent).keys())]
        for place, letter in sent:
            wanted = expected.get(place)
            if wanted is not None and place in self._expected.odd:
                wanted = replace(wanted, record=replace(wanted.record, value=letter.record.value))
            if letter != wanted:
                problems.append(f"dead letter {place} is {letter.reason} with value {letter.record.value!r}")
        return problems


def _lists(fields: Mapping[str, str], keys: Keys) -> list[str]:
    """The lists in which a call must stand."""
    if fields["status"] != "live":
        return [keys.ended]
    is_alerted = any(alert["state"] == "raised" for alert in json.loads(fields.get("alerts", "[]")))
    return [keys.live_by("update"), keys.live_by("risk"), *([keys.live_by("alert")] if is_alerted else [])]


def _place(letter: DeadLetter) -> tuple[int, int]:
    return letter.record.position.partition, letter.record.position.offset


def _is_of_own_call(letter: DeadLetter) -> bool:
    return (letter.record.key or b"").startswith(hostile.KEY)


def _is_good(fields: Mapping[bytes, bytes]) -> bool:
    return not hostile.is_own(json.loads(fields[b"json"])["call_id"])


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
        f"missing {len(due - seen)}, duplicate {sum(n - 1 for n in seen.values())}, "
        f"foreign {len(seen.keys() - due.keys())}, overlapping {overlapping}, different {different[:3]}"
    )


def _fields(found: Mapping[str, str], expected: list[dict[str, str]]) -> str:
    nearest = min(expected, key=lambda fields: len(fields.items() ^ found.items()), default={})
    return f"{dict(sorted(found.items() - nearest.items()))} instead of {dict(sorted(nearest.items() - found.items()))}"


def _is_folded(name: str) -> bool:
    """Whether a field comes from results; what the producer says of the call counts when it is read."""
    return not name.startswith(flat.ATTRIBUTE_PREFIX) and name != "notice"


def _text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): text.decode() for name, text in fields.items()}


def _sum(counter: Counter[str]) -> int:
    return sum(counter.values())
