"""A call's figures, counted again from all of its utterances: no fold, millisecond by millisecond."""

from collections.abc import Mapping, Sequence
from itertools import combinations, groupby
from typing import Any

import numpy as np

from callmood.schemas.call import MAX_ALERTS

_NEVER_INTERRUPTS = {"ivr", "mixed"}
_INTERRUPTION_MS = 500
_SILENCE_MS = 3_000
_NEGATIVE, _RUN = {"anger", "sadness"}, 4
_ROUNDING = 1e-5
_Utterances = Sequence[dict[str, Any]]


def prefix(utterances: _Utterances) -> dict[str, Any]:
    """Figures that hold at any moment: of the utterances so far, in their order."""
    spoken = [u for u in utterances if u["kind"] == "speech"]
    figures: dict[str, Any] = {"utterances": len(spoken)}
    for role in sorted({u["role"] for u in utterances}):
        all_mine = [u for u in utterances if u["role"] == role]
        mine = [u for u in spoken if u["role"] == role]
        figures[f"roles.{role}.utterances"] = len(mine)
        figures[f"roles.{role}.other_sounds"] = len(all_mine) - len(mine)
        figures[f"roles.{role}.talk_ms"] = sum(_ms(u) for u in mine)
        whole_ms = sum(u["voiced_end_ms"] - u["voiced_start_ms"] for u in all_mine)
        figures[f"roles.{role}.other_sound_ms"] = whole_ms - figures[f"roles.{role}.talk_ms"]
        if not mine:
            continue
        powers = [(_ms(u), 10 ** (u["acoustics"]["rms_dbfs"] / 10)) for u in mine]
        mean = sum(ms * power for ms, power in powers) / sum(ms for ms, _ in powers)
        figures[f"roles.{role}.loudness.mean_dbfs"] = 10 * np.log10(mean)
        figures |= {f"roles.{role}.emotion.{name}": value for name, value in _emotion(mine).items()}
    speech = _speech(utterances)
    figures["talk_ms"], figures["overlap_ms"] = int((speech > 0).sum()), int((speech > 1).sum())
    return figures


def folded(call: dict[str, Any]) -> int:
    """How many utterances a call/1 counts, speech or not."""
    return int(call["utterances"]) + sum(int(role["other_sounds"]) for role in call["roles"].values())


def whole(utterances: _Utterances, breaks: Sequence[tuple[str, int, int]], end_ms: int) -> dict[str, Any]:
    """Figures of a call that is over; `breaks` are (pause or gap, start, end) on the call's time line, in ms."""
    figures = prefix(utterances)
    speech = _speech(utterances, end_ms)
    unheard = np.zeros(len(speech), dtype=bool)
    for _, start_ms, stop_ms in breaks:
        unheard[start_ms:stop_ms] = True
    quiet = (speech == 0) & ~unheard
    silences_ms, overlaps_ms = _lengths(quiet), _lengths(speech > 1)
    return figures | {
        "duration_ms": end_ms,
        "non_talk_ms": int(quiet.sum()),
        "longest_silence_ms": max(silences_ms, default=0),
        **_stretches("silences", silences_ms, _SILENCE_MS),
        **_stretches("overlaps", overlaps_ms, _INTERRUPTION_MS),
        "redacted_ms": sum(stop - start for kind, start, stop in breaks if kind == "pause"),
        "missing_ms": sum(stop - start for kind, start, stop in breaks if kind == "gap"),
        **_interruptions(utterances),
    }


def span_differences(call: dict[str, Any], breaks: Sequence[tuple[str, int, int]]) -> list[str]:
    """Where `spans` of a call/1 that is over covers other times than the breaks; `breaks` as in `whole`."""
    told = [(span["kind"], span["start_ms"], span["end_ms"]) for span in call["spans"]]
    return [
        f"{kind} spans are {_covered(told, kind)}, counted {_covered(breaks, kind)}"
        for kind in ("pause", "gap", "hold")
        if _covered(told, kind) != _covered(breaks, kind)
    ]


def _covered(spans: Sequence[tuple[str, int, int]], kind: str) -> list[list[int]]:
    """The times of a kind, those that touch as one."""
    covered: list[list[int]] = []
    for start_ms, end_ms in sorted((start, end) for name, start, end in spans if name == kind):
        if covered and start_ms <= covered[-1][1]:
            covered[-1][1] = max(covered[-1][1], end_ms)
        else:
            covered.append([start_ms, end_ms])
    return covered


def alert_differences(
    call: dict[str, Any], utterances: _Utterances, raised: Mapping[str, dict[str, Any]], end_ms: int
) -> list[str]:
    """Where `alerts` of a call/1 that is over contradicts the alert/1 records, its end or its labels.

    Every rule's alerts are those that were published, cleared within the call or ended with it. For the rule
    `negative_run`, the first alert and what became of it are counted again from the labels.
    """
    found = [] if len(call["alerts"]) == min(len(raised), MAX_ALERTS) else [f"{len(raised)} alerts were published"]
    for alert in call["alerts"]:
        name, state, over_ms = alert["alert_id"], alert["state"], alert["over_ms"]
        same = ("rule", "severity", "since_ms", "raised_ms")
        if [alert[part] for part in same] != [raised.get(name, {}).get(part) for part in same]:
            found.append(f"{name} is not as it was published")
        is_right = (
            over_ms == end_ms if state == "ended" else state == "cleared" and alert["since_ms"] <= over_ms <= end_ms
        )
        if not is_right:
            found.append(f"{name} is {state} at {over_ms}, and the call ended at {end_ms}")
    run = next((alert for alert in call["alerts"] if alert["rule"] == "negative_run"), None)
    told = run and (run["since_ms"], run["state"])
    if len(raised) <= MAX_ALERTS and told != (counted := _negative_run(utterances)):
        found.append(f"the first negative run is {told}, counted {counted}")
    return found


def _negative_run(utterances: _Utterances) -> tuple[int, str] | None:
    """Where the customer's first four negative labels in a row begin, and what becomes of the alert."""
    labelled = [
        u
        for u in utterances
        if u["role"] == "customer" and u["kind"] == "speech" and u["emotion"] and not u["emotion"]["abstained"]
    ]
    runs = groupby(labelled, lambda u: u["emotion"]["label"] in _NEGATIVE)
    long = next((run for is_negative, group in runs if is_negative and len(run := list(group)) >= _RUN), None)
    return long and (_part(long[0])[0], "ended" if long[-1] is labelled[-1] else "cleared")


def _lengths(is_on: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[int]:
    """How long each unbroken stretch is."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_on.astype(np.int8), [0]])))
    return [int(length) for length in edges[1::2] - edges[::2]]


def _stretches(name: str, lengths_ms: list[int], threshold_ms: int) -> dict[str, int]:
    counted = [ms for ms in lengths_ms if ms >= threshold_ms]
    return {
        f"{name}.count": len(counted),
        f"{name}.total_ms": sum(counted),
        f"{name}.longest_ms": max(counted, default=0),
    }


def _emotion(utterances: _Utterances) -> dict[str, Any]:
    heard = [u for u in utterances if u["emotion"]]
    if not heard:
        return {}
    labelled = [u for u in heard if not u["emotion"]["abstained"]]
    figures: dict[str, Any] = {"utterances": len(heard), "abstained": len(heard) - len(labelled)}
    total_ms = sum(_ms(u) for u in labelled)
    for label in ("anger", "happiness", "neutral", "sadness"):
        mine = [u for u in labelled if u["emotion"]["label"] == label]
        figures[f"counts.{label}"] = len(mine)
        figures[f"durations_ms.{label}"] = sum(_ms(u) for u in mine)
        if labelled:
            share = sum(_ms(u) * u["emotion"]["probabilities"][label] for u in labelled) / total_ms
            figures[f"probabilities.{label}"] = share
    if labelled:
        newest = labelled[-1]["emotion"]["label"]
        run = next((n for n, u in enumerate(reversed(labelled)) if u["emotion"]["label"] != newest), len(labelled))
        figures |= {"streak.label": newest, "streak.count": run, "last.end_ms": _part(labelled[-1])[1]}
    return figures


def _interruptions(utterances: _Utterances) -> dict[str, Any]:
    figures = {f"roles.{u['role']}.interruptions.{name}": 0 for u in utterances for name in ("count", "total_ms")}
    turns: list[list[Any]] = []
    for u in sorted(utterances, key=lambda u: (u["stream"], u["channel"], u["start_ms"])):
        if u["kind"] != "speech":
            continue
        channel, (start_ms, end_ms) = (u["stream"], u["channel"]), _part(u)
        if turns and turns[-1][0] == channel and turns[-1][3] == start_ms:
            turns[-1][3] = end_ms
        else:
            turns.append([channel, u["role"], start_ms, end_ms])
    for one, other in combinations(turns, 2):
        first, later = (one, other) if one[2] < other[2] else (other, one)
        both_ms = min(first[3], later[3]) - later[2]
        apart = one[0] == other[0] or one[2] == other[2] or {one[1], other[1]} & _NEVER_INTERRUPTS
        if not apart and both_ms >= _INTERRUPTION_MS:
            figures[f"roles.{later[1]}.interruptions.count"] += 1
            figures[f"roles.{later[1]}.interruptions.total_ms"] += both_ms
    return figures


def _speech(utterances: _Utterances, end_ms: int = 0) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How many channels speak, per millisecond."""
    speech = np.zeros(max([end_ms, *(u["voiced_end_ms"] for u in utterances)]), dtype=np.int64)
    for u in utterances:
        if u["kind"] == "speech":
            start_ms, stop_ms = _part(u)
            speech[start_ms:stop_ms] += 1
    return speech


def _part(utterance: dict[str, Any]) -> tuple[int, int]:
    """The part that counts as speech."""
    return utterance["speech_start_ms"], utterance["speech_end_ms"]


def _ms(utterance: dict[str, Any]) -> int:
    start_ms, end_ms = _part(utterance)
    return int(end_ms - start_ms)


def differences(call: dict[str, Any], figures: dict[str, Any]) -> list[str]:
    """Where a call/1 says something else than the recount."""
    found = []
    for name, expected in figures.items():
        value: Any = call
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        is_same = abs(value - expected) <= _tolerance(name) if isinstance(value, float | int) else value == expected
        if not is_same:
            found.append(f"{name} is {value}, counted {expected}")
    return found


def _tolerance(name: str) -> float:
    return 0.02 if name.endswith("dbfs") else _ROUNDING if "probabilities" in name else 0.0
