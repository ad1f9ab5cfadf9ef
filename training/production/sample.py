"""Selects published utterances to label: uncertain ones, and a random share for an unbiased test. Pure."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from callmood.schemas.common import EMOTIONS, Kind

_SCHEMA: Final = "callmood.utterance/1"


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A published utterance that may be labelled.

    Attributes:
        id: as published.
        call_id: of its call.
        stream: of its call.
        channel: in the stream, from 0.
        start_s: on the call's time line; and `end_s`.
        margin: difference of the two highest probabilities, 0 to 1; see `second.compared` for two models.
        speaker: the person, or the call and the role.
        queue: of its call, or empty.
        probabilities: the answer, in the order of `EMOTIONS`.
    """

    id: str
    call_id: str
    stream: str
    channel: int
    start_s: float
    end_s: float
    margin: float
    speaker: str
    queue: str = ""
    probabilities: tuple[float, ...] = ()


class Chosen(NamedTuple):
    """An utterance to label, and its split: `test`, or empty for training."""

    candidate: Candidate
    split: str


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """What may be labelled, and how much of it.

    Attributes:
        roles: roles whose utterances may be labelled, if the record's own policy allows their emotion, too.
        erased: ids of calls that must not be used.
        speaker: attribute of a call that has its customer's id; without it, each call has a speaker of its own.
        queue: attribute of a call that has its queue.
        per_speaker: highest number of uncertain utterances of a speaker; 0: no limit.
        per_call: the same of a call.
        per_queue: the same of a queue.
    """

    roles: Sequence[str] = ("customer",)
    erased: frozenset[str] = frozenset()
    speaker: str = ""
    queue: str = ""
    per_speaker: int = 0
    per_call: int = 0
    per_queue: int = 0


def candidates(records: Iterable[Mapping[str, Any]], rules: Rules) -> tuple[list[Candidate], Counter[str]]:
    """The utterances that may be labelled, each once; and how many others there are, by reason.

    Args:
        records: utterance/1 and call/1 records in any order; others are ignored.
        rules: what may be labelled.
    """
    utterances, attributes = {}, {}
    for record in records:
        if record.get("schema") == _SCHEMA:
            utterances[record.get("utterance_id")] = record
        else:
            attributes[record.get("call_id")] = record.get("attributes") or {}
    refused: Counter[str] = Counter()
    found = []
    for record in utterances.values():
        try:
            reason = _refusal(record, rules)
            if not reason:
                found.append(_candidate(record, attributes.get(record["call_id"], {}), rules))
        except (KeyError, TypeError):
            reason = "record is incomplete"
        if reason:
            refused[reason] += 1
    return found, refused


def choose(found: Sequence[Candidate], number: int, random_share: float, rules: Rules, seed: int) -> list[Chosen]:
    """Draw utterances to label.

    A share of them is drawn at random from all, without limits, so that figures on it hold for all: the test. The rest
    are the most uncertain ones of other speakers, within the limits.
    """
    order = np.random.default_rng(seed).permutation(len(found))
    test = [found[i] for i in order[: round(number * random_share)]]
    heard = {one.speaker for one in test}
    limits = {"speaker": rules.per_speaker, "call_id": rules.per_call, "queue": rules.per_queue if rules.queue else 0}
    taken: dict[str, Counter[str]] = {name: Counter() for name, limit in limits.items() if limit}
    uncertain: list[Candidate] = []
    for one in sorted((found[i] for i in order), key=lambda one: one.margin):
        if len(uncertain) == number - len(test):
            break
        if one.speaker in heard or any(count[getattr(one, name)] >= limits[name] for name, count in taken.items()):
            continue
        uncertain.append(one)
        for name, count in taken.items():
            count[getattr(one, name)] += 1
    return [*(Chosen(one, "test") for one in test), *(Chosen(one, "") for one in uncertain)]


def _refusal(record: Mapping[str, Any], rules: Rules) -> str:
    """Why an utterance must not be labelled, or cannot be ranked; empty if neither."""
    if record["call_id"] in rules.erased:
        return "call is erased"
    if record["role"] not in rules.roles:
        return f"role {record['role']}"
    if record["role"] not in record["policy"]["emotion_roles"]:
        return f"policy withholds emotion of {record['role']}"
    if (record.get("kind") or Kind.SPEECH) != Kind.SPEECH:
        return "not speech"
    if record["emotion"] is None:
        return str(record["withheld"])
    return "" if record["emotion"]["probabilities"] else "no probabilities"


def _candidate(record: Mapping[str, Any], attributes: Mapping[str, str], rules: Rules) -> Candidate:
    probabilities = tuple(record["emotion"]["probabilities"][emotion] for emotion in EMOTIONS)
    second, first = sorted(probabilities)[-2:]
    call_id = record["call_id"]
    return Candidate(
        id=record["utterance_id"],
        call_id=call_id,
        stream=record["stream"],
        channel=record["channel"],
        start_s=record["start_ms"] / 1000,
        end_s=record["end_ms"] / 1000,
        margin=first - second,
        speaker=attributes.get(rules.speaker) or f"{call_id}:{record['role']}",
        queue=attributes.get(rules.queue) or "",
        probabilities=probabilities,
    )
