"""What the verifier counts again of a call: figures, spans, and what became of its alerts."""

from collections import defaultdict
from copy import deepcopy

import pytest

from tests.chaos import recount
from tests.chaos.telephone import Break, Leg, Plan
from tests.chaos.verify import Verifier

_END_MS = 20_000
_BREAKS = [("pause", 1_000, 2_500), ("gap", 7_000, 7_900)]


def said(number, label, start_ms):
    """A customer's utterance of half a second."""
    end_ms = start_ms + 500
    return {
        "utterance_id": f"call:0:0:{start_ms}", "number": number, "stream": "0", "channel": 0, "role": "customer",
        "kind": "speech", "start_ms": start_ms, "end_ms": end_ms, "voiced_start_ms": start_ms, "voiced_end_ms": end_ms,
        "speech_start_ms": start_ms, "speech_end_ms": end_ms, "acoustics": {"rms_dbfs": -20.0},
        "emotion": {"abstained": label is None, "label": label, "probabilities": dict.fromkeys(_LABELS, 0.25)},
    }  # fmt: skip


_LABELS = ("anger", "happiness", "neutral", "sadness")
_SAID = [
    said(n, label, 9_000 + 1_000 * n) for n, label in enumerate(["anger", "sadness", "anger", "anger", "neutral"], 1)
]
_RAISED = {
    "call:negative_run:1": {"rule": "negative_run", "severity": "warning", "since_ms": 10_000, "raised_ms": 13_500}
}


@pytest.fixture
def verifier():
    """One that expects a single call with a pause and a gap."""
    leg = Leg("0", 0.0, [], [Break(kind, start, end) for kind, start, end in _BREAKS], _END_MS)
    made = Verifier.__new__(Verifier)
    made._plans = {"call": Plan("call", ("customer",), None, [leg], [], "billing", has_end=True)}
    made._tickers, made._begins = set(), {"call": {"0": 0}}
    return made


@pytest.fixture
def call():
    """call/1 as it must be."""
    figures = recount.whole(_SAID, _BREAKS, _END_MS)
    figures |= {"end_reason": "end", "status": "completed", "started_at_ms": 0, "attributes.queue": "billing"}
    made = defaultdict(dict)
    for name, value in figures.items():
        *parts, last = name.split(".")
        place = made
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    alert = {"alert_id": "call:negative_run:1", "state": "cleared", "over_ms": 14_500, **_RAISED["call:negative_run:1"]}
    spans = [{"kind": kind, "start_ms": start, "end_ms": end} for kind, start, end in _BREAKS]
    return {**made, "alerts": [alert], "spans": spans}


def differences(verifier, call, raised=_RAISED):
    return verifier._call_differences("call", call, _SAID, raised)


def test_a_right_call_has_no_difference(verifier, call):
    """Also one whose pause is told in two parts that touch."""
    assert differences(verifier, call) == []
    call["spans"][:1] = [{"kind": "pause", "start_ms": s, "end_ms": e} for s, e in ((1_000, 1_500), (1_500, 2_500))]
    assert differences(verifier, call) == []


@pytest.mark.parametrize(
    ("spans", "named"),
    [
        ([("pause", 1_000, 2_501), ("gap", 7_000, 7_900)], "pause spans"),
        ([("pause", 1_000, 2_500)], "gap spans"),
        ([("gap", 1_000, 2_500), ("gap", 7_000, 7_900)], "pause spans"),
        ([*_BREAKS, ("hold", 100, 200)], "hold spans"),
    ],
)
def test_a_wrong_span_is_found(verifier, call, spans, named):
    """A millisecond too much, one that is missing, another kind, and one that was not."""
    call["spans"] = [{"kind": kind, "start_ms": start, "end_ms": end} for kind, start, end in spans]
    assert differences(verifier, call)[0].startswith(named)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"state": "raised", "over_ms": None}, "is raised"),
        ({"state": "ended", "over_ms": 14_500}, "is ended"),
        ({"state": "ended", "over_ms": _END_MS}, "the first negative run"),
        ({"over_ms": _END_MS + 1}, "is cleared at"),
        ({"since_ms": 11_000}, "is not as it was published"),
        ({"alert_id": "call:negative_run:2"}, "is not as it was published"),
    ],
)
def test_a_wrong_alert_is_found(verifier, call, changes, named):
    """Still raised after the end, ended at another time, cleared after the end or not at all, or never published."""
    call = deepcopy(call)
    call["alerts"][0] |= changes
    assert any(named in text for text in differences(verifier, call))


def test_an_alert_that_is_missing_is_found(verifier, call):
    """Of a call/1, and of the published alerts."""
    assert "1 alerts were published" in differences(verifier, call | {"alerts": []})
    assert any("0 alerts were published" in text for text in differences(verifier, call, {}))
