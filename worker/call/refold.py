"""The aggregate and the alerts of a call, computed again from its stored utterance/1 records. Pure.

It evaluates new rules on past calls, and checks that an aggregate is the fold of its utterances and spans. If a call
has more spans than call/1 holds, the older ones count as silence here.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from callmood.schemas.common import EMOTIONS, Encoding, Kind, LooksLike, Notice, Role
from callmood.worker.call import aggregate, alert
from callmood.worker.call.rule import DEFAULT_RULES, Rule
from callmood.worker.records import Acoustics, Cut, Position, Prediction, Result, Speech, Utterance

_NOWHERE = Position("", 0, 0)


class Refolded(NamedTuple):
    """The call's aggregate, every alert (alert/1) on the way there, and what became of the newest (call/1)."""

    aggregate: aggregate.Aggregate
    alerts: list[dict[str, Any]]
    states: list[dict[str, Any]]


def refold(
    call: Mapping[str, Any], utterances: Iterable[Mapping[str, Any]], rules: Sequence[Rule] = DEFAULT_RULES
) -> Refolded:
    """Fold the utterances of a call in the order of their `number`, and evaluate the rules after each.

    Args:
        call: its call/1, for what utterances do not tell: id, start, attributes, notice and end.
        utterances: all its utterance/1 records.
        rules: what to look for.
    """
    memory, alerts = alert.Memory(), []
    state = aggregate.start(aggregate.Aggregate(call["call_id"]), started_at_ms=call["started_at_ms"])
    notice = Notice(call["notice"]) if call["notice"] else None
    state = aggregate.describe(state, attributes=call["attributes"], notice=notice)
    spans = deque(sorted(call.get("spans", ()), key=itemgetter("end_ms")))
    for record in sorted(utterances, key=itemgetter("number")):
        while spans and spans[0]["end_ms"] <= record["end_ms"]:
            state = _with_span(state, spans.popleft())
        result = result_of(record)
        state = aggregate.fold(state, result)
        memory, raised = alert.evaluate(rules, memory, state, result if result.is_speech else None)
        alerts.extend(raised)
    for span in spans:
        state = _with_span(state, span)
    if call["end_reason"] is not None:
        state = aggregate.finish(state, reason=call["end_reason"], end_ms=call["duration_ms"])
        memory, raised = alert.evaluate(rules, memory, state)
        alerts.extend(raised)
    ended_ms = None if call["end_reason"] is None else state.timeline.end_ms
    return Refolded(state, alerts, alert.states(memory, state.call_id, ended_ms=ended_ms))


def _with_span(state: aggregate.Aggregate, span: Mapping[str, Any]) -> aggregate.Aggregate:
    fold = {"pause": aggregate.fold_pause, "gap": aggregate.fold_gap, "hold": aggregate.fold_hold}[span["kind"]]
    return fold(state, start_ms=span["start_ms"], end_ms=span["end_ms"])


def result_of(record: Mapping[str, Any]) -> Result:
    """The result that an utterance/1 record was made of, as far as the record tells; without its audio."""
    acoustics, quality = record["acoustics"], record["quality"]
    return Result(
        Utterance(
            id=record["utterance_id"],
            call_id=record["call_id"],
            stream=record["stream"],
            channel=record["channel"],
            role=Role(record["role"]),
            start_ms=record["start_ms"],
            end_ms=record["end_ms"],
            capture_end_ms=0,
            encoding=Encoding.S16LE,
            rate_hz=8_000,
            audio=b"",
            cut=Cut(quality["cut"]),
            missing_ms=quality["missing_ms"],
            overlap_ms=quality["overlap_ms"],
            acoustics=Acoustics(**acoustics),
            first=_NOWHERE,
            last=_NOWHERE,
            withheld=record["withheld"],
            voiced_start_ms=record.get("voiced_start_ms"),
            voiced_end_ms=record.get("voiced_end_ms"),
            spoken_at_ms=record.get("spoken_at_ms"),
            attributes=record.get("attributes", {}),
            is_echo=record.get("echo", False),
            looks_like=LooksLike(quality["looks_like"]) if quality.get("looks_like") else None,
        ),
        _prediction(record["emotion"]),
        _speech(record),
        record.get("background", False),
    )


def _speech(record: Mapping[str, Any]) -> Speech | None:
    """The speech check's answer; a record of an earlier version has none."""
    probability = record.get("speech_probability")
    if probability is None:
        return None
    if record["kind"] == Kind.NOT_SPEECH:
        return Speech(probability, 0, 0)
    return Speech(
        probability, record["speech_start_ms"] - record["start_ms"], record["speech_end_ms"] - record["start_ms"]
    )


def _prediction(emotion: Mapping[str, Any] | None) -> Prediction | None:
    if emotion is None:
        return None
    if emotion["probabilities"] is None:
        return Prediction(None, emotion["reason"])
    anger, happiness, neutral, sadness = (emotion["probabilities"][name] for name in EMOTIONS)
    return Prediction((anger, happiness, neutral, sadness), emotion["reason"])
