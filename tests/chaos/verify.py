"""`python -m tests.chaos.verify --run FILE`: compute all results from the seed, and compare the outputs.

One line per property, with counts; exit code 1 if any property does not hold. With `--tamper` the outputs of a clean
run are then falsified, and exit code 1 also means that the verifier missed it. `expected` names the little that is
shared with the worker; nothing of its commit path is.
"""

# ruff: noqa: T201 - a command prints

import json
import sys
from collections import Counter, defaultdict
from itertools import islice, pairwise
from typing import Any

from callmood.schemas import flat
from tests.chaos import expected, look, recount
from tests.chaos.config import ODD, Run, parser
from tests.chaos.expected import Said
from tests.chaos.findings import Findings
from tests.chaos.look import Outputs
from tests.chaos.tamper import tamper
from tests.chaos.telephone import plans, ticker

_ROUNDING = 2e-6  # of a probability: six digits are published, and another batch may differ in the seventh


class Verifier:
    """One run."""

    def __init__(self, run: Run) -> None:
        self.findings = Findings()
        self._run = run
        self._plans = {plan.call_id: plan for plan in islice(plans(run.seed, run.chunk_ms), run.sent())}
        self._tickers = {ticker(run.seed, number) for number in range(run.partitions)}
        self._begins: dict[str, dict[str, int]] = defaultdict(dict)
        self._bad: dict[tuple[int, int], Any] = {}
        self._odd = dict.fromkeys(map(tuple, json.loads(run.file(ODD).read_text())))
        """Records of the hostile producer, by place."""
        self._said: dict[str, dict[str, Said]] = {}

    def expect(self) -> None:
        """Look at the audio, and compute what must come of it."""
        self._audio()
        for call_id, plan in self._plans.items():
            begins = self._begins[call_id]
            offsets_ms = {name: begin - begins["0"] for name, begin in begins.items()}
            self._said[call_id] = {said.id: said for said in expected.utterances(plan, offsets_ms)}
        expected.judge([said for call in self._said.values() for said in call.values()])

    def compare(self) -> None:
        """Hold the outputs against it."""
        outputs = {}
        if self._run.mode != "redis":
            outputs["kafka"] = look.in_kafka(self._run)
        if self._run.mode != "kafka":
            outputs["redis"] = look.in_redis(self._run)
        for name, found in outputs.items():
            self._utterances(name, found)
            self._calls(name, found)
            self._alerts(name, found)
        self._watermarks()
        self._letters()
        self._transactions()
        self._history(outputs)
        if len(outputs) > 1:
            self._same(outputs["kafka"], outputs["redis"])

    # -- what was sent

    def _audio(self) -> None:
        """The audio topic holds what the seed says, in its order; nothing else here believes the load."""
        sent = defaultdict(list)
        for record in look.read(self._run, "audio"):
            if (record.partition, record.offset) in self._odd:
                self._odd[record.partition, record.offset] = record
                continue
            headers = {name: value.decode() for name, value in record.headers}
            call_id = record.key.decode()
            sent[call_id].append((headers, record.value or b""))
            if "schema" not in headers:
                self._bad[record.partition, record.offset] = record
            elif headers["stream"] not in self._begins[call_id]:
                self._begins[call_id][headers["stream"]] = record.timestamp - round(float(headers.get("media_ms", 0)))
        wrong = [
            call_id
            for call_id, plan in self._plans.items()
            if sent[call_id] != [(record.headers, record.value) for record in plan.records]
        ]
        wrong += sorted(sent.keys() - self._plans.keys() - self._tickers)
        self.findings.look_at("calls on the audio topic that are not as planned", len(self._plans), wrong)

    # -- utterances

    def _utterances(self, output: str, found: Outputs) -> None:
        due = {id_: said for call in self._said.values() for id_, said in call.items()}
        told = [u for utterances in found.utterances.values() for u in utterances]
        seen = Counter(u["utterance_id"] for u in told)
        self.findings.look_at(f"{output}: utterances missing", len(due), sorted(due.keys() - seen.keys()))
        self.findings.look_at(f"{output}: utterances twice", len(told), [i for i, n in seen.items() if n > 1])
        self.findings.look_at(f"{output}: utterances foreign", len(told), sorted(seen.keys() - due.keys()))
        if found.firehose is not None:
            wrong = [f"{i}: {n}" for i, n in Counter(found.firehose).items() if n != seen[i]]
            missing = sorted(seen.keys() - set(found.firehose))
            self.findings.look_at(f"{output}: stream of all calls differs", len(seen), wrong + missing)
        known = [(u, due[u["utterance_id"]]) for u in told if u["utterance_id"] in due]
        differ = [f"{u['utterance_id']}: {d}" for u, said in known if (d := _difference(u, said))]
        self.findings.look_at(f"{output}: utterances with other content", len(known), differ)
        overlapping, unordered = [], []
        for call_id, utterances in found.utterances.items():
            newest_ms: dict[Any, int] = {}
            for u in utterances:
                channel = (u["stream"], u["channel"])
                if u["start_ms"] < newest_ms.get(channel, 0):
                    overlapping.append(u["utterance_id"])
                newest_ms[channel] = u["end_ms"]
            if [u["number"] for u in utterances] != list(range(1, len(utterances) + 1)):
                unordered.append(f"{call_id}: {[u['number'] for u in utterances]}")
        self.findings.look_at(f"{output}: utterances overlapping or out of order", len(told), overlapping)
        self.findings.look_at(f"{output}: calls not numbered 1, 2, 3, …", len(found.utterances), unordered)

    # -- calls

    def _calls(self, output: str, found: Outputs) -> None:
        due = self._plans.keys() | self._tickers
        self.findings.look_at(f"{output}: calls missing", len(due), sorted(due - found.calls.keys()))
        self.findings.look_at(f"{output}: calls foreign", len(found.calls), sorted(found.calls.keys() - due))
        self.findings.look_at(f"{output}: calls still live", len(due), sorted(found.live))
        not_once, wrong, steps = [], [], []
        for call_id, versions in found.calls.items():
            ended = sum(version["status"] != "live" for version in versions)
            if ended != 1 or versions[-1]["status"] == "live":
                not_once.append(f"{call_id}: over {ended} times")
            utterances = found.utterances.get(call_id, [])
            raised = {one["alert_id"]: one for one in found.alerts if one["call_id"] == call_id}
            texts = self._call_differences(call_id, versions[-1], utterances, raised)
            wrong += [f"{call_id}: {text}" for text in texts]
            if len(versions) > 1:
                steps += [f"{call_id}: {text}" for text in _bad_steps(versions, utterances)]
        self.findings.look_at(f"{output}: calls not over exactly once", len(found.calls), not_once)
        self.findings.look_at(f"{output}: aggregates that differ from a recount", len(found.calls), wrong)
        if output == "kafka":
            count = sum(map(len, found.calls.values()))
            self.findings.look_at(f"{output}: versions that are no fold of a prefix", count, steps)

    def _call_differences(
        self,
        call_id: str,
        call: dict[str, Any],
        utterances: list[dict[str, Any]],
        raised: dict[str, dict[str, Any]],
    ) -> list[str]:
        if call_id in self._tickers:
            return recount.differences(call, {"status": "failed", "end_reason": "no_audio", "utterances": 0})
        plan = self._plans.get(call_id)
        if plan is None:
            return ["foreign"]
        begins = self._begins[call_id]
        breaks = [
            (b.kind, *(begins[leg.name] - begins["0"] + round(ms) for ms in (b.start_ms, b.end_ms)))
            for leg in plan.legs
            for b in leg.breaks
        ]
        end_ms = max(begins[leg.name] - begins["0"] + round(leg.end_ms) for leg in plan.legs)
        figures = recount.whole(utterances, breaks, end_ms)
        figures |= {"end_reason": "end" if plan.has_end else "idle", "status": "completed"}
        figures |= {"started_at_ms": begins["0"], "attributes.queue": plan.queue}
        return [
            *recount.differences(call, figures),
            *recount.span_differences(call, breaks),
            *recount.alert_differences(call, utterances, raised, end_ms),
        ]

    def _alerts(self, output: str, found: Outputs) -> None:
        seen = Counter(alert["alert_id"] for alert in found.alerts)
        self.findings.look_at(f"{output}: alerts twice", len(seen), [i for i, n in seen.items() if n > 1])

    # -- positions, letters, transactions

    def _watermarks(self) -> None:
        ends, found = look.ends(self._run, "audio"), look.watermarks(self._run)
        wrong = [f"{p}: {found[p]}, the end is {end}" for p, end in ends.items() if found[p] != end]
        self.findings.look_at("watermarks that are not at the end", len(ends), wrong)

    def _letters(self) -> None:
        """Each unreadable record has its letter with its provenance; twice is allowed (docs/delivery.md)."""
        letters: dict[tuple[int, int], int] = Counter()
        wrong = []
        for letter in look.read(self._run, "dead_letter"):
            told = {name: value.decode() for name, value in letter.headers if name.startswith("dead_letter.")}
            at = int(told["dead_letter.partition"]), int(told["dead_letter.offset"])
            letters[at] += 1
            record = self._bad.get(at)
            if (odd := self._odd.get(at)) is not None:
                left_out = b"" if odd.key is None else None  # of a paused call, or too large
                if letter.key != odd.key or letter.value not in (odd.value, left_out):
                    wrong.append(f"{at}: {told}")
            elif record is None:
                wrong.append(f"{at}: foreign")
            elif (letter.key, letter.value, told["dead_letter.reason"]) != (record.key, record.value, "no_schema"):
                wrong.append(f"{at}: {told}")
        self.findings.look_at(
            "dead letters missing", len(self._bad), sorted(map(str, self._bad.keys() - letters.keys()))
        )
        self.findings.look_at(
            "odd records without a dead letter", len(self._odd), sorted(map(str, self._odd.keys() - letters.keys()))
        )
        self.findings.look_at("dead letters foreign or changed", sum(letters.values()), wrong)

    def _transactions(self) -> None:
        transactions = look.transactions(self._run.bootstrap_servers, self._run.prefix)
        hanging = [f"{name} {state}" for name, state in transactions.items() if state in look.OPEN]
        self.findings.look_at("transactions hanging", len(transactions), hanging)

    # -- what was seen meanwhile

    def _history(self, outputs: dict[str, Outputs]) -> None:
        looks, offsets = [], defaultdict(list)
        for line in self._run.file("history.jsonl").read_text().splitlines():
            seen = json.loads(line)
            if "call" in seen:
                looks.append(seen)
            else:
                offsets[seen["topic"]].append(tuple(seen["at"]))
        if "redis" in outputs:
            told = outputs["redis"].utterances
            wrong = [
                f"{seen['call']}: {d}" for seen in looks if (d := self._bad_look(seen, told.get(seen["call"], [])))
            ]
            self.findings.look_at("redis: looks meanwhile that are no prefix", len(looks), wrong)
        for kind in ("utterance", "call") if "kafka" in outputs else ():
            final = Counter((r.partition, r.offset) for r in look.read(self._run, kind))
            during = Counter(offsets[self._run.topic(kind)])
            wrong = [f"{kind} {at}" for at in during if during[at] != final[at]] + sorted(
                f"{kind} {at} was not seen" for at in final.keys() - during.keys()
            )
            self.findings.look_at("kafka: records seen meanwhile that differ", sum(during.values()), wrong)

    def _bad_look(self, seen: dict[str, Any], told: list[dict[str, Any]]) -> str | None:
        """Why a look at a call and its utterances at one moment shows what never was."""
        count = len(seen["ids"])
        if seen["ids"] != [u["utterance_id"] for u in told[:count]]:
            return "its utterances are no prefix"
        call = flat.unflatten(seen["fields"]).model_dump(mode="json", by_alias=True)
        folded = recount.folded(call)
        if self._run.mode == "redis" and folded != count:
            return f"{count} utterances stand beside an aggregate of {folded}"
        return next(iter(recount.differences(call, recount.prefix(told[:folded]))), None)

    def _same(self, kafka: Outputs, redis: Outputs) -> None:
        """Redis is the projection of what stands in Kafka."""
        wrong = [call_id for call_id in kafka.utterances if kafka.utterances[call_id] != redis.utterances.get(call_id)]
        wrong += [call_id for call_id in kafka.calls if kafka.calls[call_id][-1:] != redis.calls.get(call_id)]
        wrong += [] if Counter(map(str, kafka.alerts)) == Counter(map(str, redis.alerts)) else ["alerts"]
        self.findings.look_at("redis: calls that differ from kafka", len(kafka.calls), wrong)


def _difference(u: dict[str, Any], said: Said) -> str | None:
    """What an utterance says that was not to be said."""
    for name in ("stream", "channel", "role", "start_ms", "end_ms", "kind", "speech_start_ms", "speech_end_ms"):
        if u[name] != getattr(said, name):
            return f"{name} is {u[name]}, not {getattr(said, name)}"
    if said.role != "customer" or said.kind != "speech":
        return None if u["emotion"] is None else "an emotion that is withheld"
    emotion = u["emotion"]
    if emotion is None or (emotion["probabilities"] is None) != (said.probabilities is None):
        return f"emotion {emotion}, not {said.probabilities}"
    if said.probabilities is None:
        return None
    apart = max(abs(emotion["probabilities"][label] - share) for label, share in said.probabilities.items())
    return f"probabilities {apart:.1e} apart" if apart > _ROUNDING else None


def _bad_steps(versions: list[dict[str, Any]], utterances: list[dict[str, Any]]) -> list[str]:
    """Published versions of a call count up, and each is the fold of the utterances before it."""
    found = [
        f"version {later['version']} came after {call['version']}"
        for call, later in pairwise(versions)
        if later["version"] <= call["version"]
    ]
    for call in versions:
        found += recount.differences(call, recount.prefix(utterances[: recount.folded(call)]))
    return found


def main() -> int:
    """Returns the exit code."""
    arguments = parser(__doc__)
    arguments.add_argument("--tamper", action="store_true", help="falsify the outputs if they are right")
    options = arguments.parse_args()
    verifier = Verifier(options.run)
    verifier.expect()
    verifier.compare()
    print("\n".join(verifier.findings.lines()))
    if not verifier.findings.is_clean:
        return 1
    return 1 if options.tamper and _missed(options.run, verifier) else 0


def _missed(run: Run, verifier: Verifier) -> list[str]:
    falsified = tamper(run)
    verifier.findings = Findings()
    verifier.compare()
    wrong = verifier.findings.counts()
    missed = sorted(name for name in falsified if not wrong.get(name))
    print(f"falsified: {len(falsified)} properties; not noticed: {', '.join(missed) or 'none'}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
