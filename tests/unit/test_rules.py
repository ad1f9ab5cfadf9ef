"""Rules on calls that are stored, and the lines of a file that are wrong."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from callmood import schemas
from callmood.__main__ import main
from callmood.worker.call import timeline
from callmood.worker.call.refold import refold
from callmood.worker.call.rule import parse_rules
from callmood.worker.commands import rules
from callmood.worker.commands.rules import Trial
from callmood.worker.errors import ConfigurationError

EXAMPLES = Path(schemas.__file__).parent / "examples"
CALL = json.loads((EXAMPLES / "call/valid/completed.json").read_text(encoding="utf-8"))
SAID = json.loads((EXAMPLES / "utterance/valid/labelled.json").read_text(encoding="utf-8"))
ANGRY = """
[angry]
measure = "negative_run"
role = "customer"
raise_at = 2
clear_at = 0

[quiet]
measure = "silence"
raise_at = 20
clear_at = 0
"""


def utterance(number, start_ms):
    """Four seconds of an angry customer."""
    times = {"start_ms": start_ms, "end_ms": start_ms + 4_000}
    voice = {f"{kind}_{side}": times[side] for kind in ("voiced", "speech") for side in ("start_ms", "end_ms")}
    return SAID | times | voice | {"number": number, "call_id": "call-1", "utterance_id": f"call-1:0:0:{number}"}


def call(call_id="call-1", queue="billing", spans=()):
    """A call of a minute."""
    more = {"call_id": call_id, "attributes": {"queue": queue} if queue else {}, "spans": list(spans), "alerts": []}
    return CALL | more | {"started_at_ms": 0, "updated_at_ms": 3_600_000, "duration_ms": 60_000}


def test_a_trial_says_how_often_and_where():
    """Alerts, calls and queues of each rule, also of one that never alerts."""
    trial = Trial(parse_rules(ANGRY))
    said = [utterance(1, 0), utterance(2, 5_000), utterance(3, 10_000)]
    trial.add(call("one"), said)
    trial.add(call("two", queue=""), said)
    trial.add(call("three"), said[:1])
    found = trial.found["angry"]
    assert (trial.calls, trial.hours, found.alerts, list(found.calls)) == (3, 1.0, 2, ["one", "two"])
    assert found.queues == {"billing": 1, "": 1}
    assert trial.found["quiet"].alerts == 3


def test_a_hold_that_ends_with_an_utterance_is_known_before_it():
    """As live: what is said on hold finds the hold on the time line, and no part of it is silence."""
    spans = [{"kind": "hold", "start_ms": 4_000, "end_ms": 50_000}]
    state = refold(call(spans=spans), [utterance(1, 0), utterance(2, 46_000)], ()).aggregate
    assert timeline.figures(state.timeline).non_talk_ms == 10_000  # after the hold


def test_the_lines_say_how_often_for_each_supervisor():
    """Two alerts in an hour, shared by two people, are one for each; the queue with most alerts comes first."""
    trial = Trial(parse_rules(ANGRY))
    said = [utterance(1, 0), utterance(2, 5_000)]
    for name, queue in (("one", ""), ("two", "billing"), ("three", "billing"), ("four", "billing")):
        trial.add(call(name, queue=queue, spans=[{"kind": "hold", "start_ms": 9_000, "end_ms": 60_000}]), said)
    assert list(rules._lines(trial, 2)) == [
        "4 calls within 1.00 h, 2 supervisors",
        "angry: 4 alerts in 4 calls, 2.0 per supervisor and hour",
        "  billing: 3",
        "  no queue: 1",
        "  for example: one, two, three",
        "quiet: 0 alerts in 0 calls, 0.0 per supervisor and hour",
    ]
    assert list(rules._lines(Trial(()), 1)) == [
        "no calls: Redis keeps a call for an hour after its end (CALLMOOD_REDIS__ENDED_TTL_S)"
    ]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1_800), ("2h", 7_200), ("1d", 86_400)])
def test_since_is_a_length_of_time(text, seconds):
    """Calls that have ended since then are read, by the clock of Redis in ms."""
    parser = argparse.ArgumentParser()
    rules.add_arguments(parser)
    assert parser.parse_args(["test", "file"]).since == 3_600
    assert parser.parse_args(["test", "file", "--since", text]).since == seconds
    asked = []
    dashboard = SimpleNamespace(ended_calls=lambda since_ms: asked.append(since_ms) or [], live_calls=lambda **_: [])
    assert list(rules._stored(dashboard, float(seconds))) == []
    assert asked == [1_000 * seconds]


@pytest.mark.parametrize("kind", ["pause", "hold", "gap"])
def test_what_was_no_silence_raises_no_alert(kind):
    """The spans of a call/1 are folded with its utterances."""
    said = [utterance(1, 0), utterance(2, 50_000)]
    rules = parse_rules(ANGRY)
    spans = [{"kind": kind, "start_ms": 4_000, "end_ms": 50_000}]
    assert [alert["rule"] for alert in refold(call(spans=spans), said, rules).alerts] == ["angry"]
    assert [alert["rule"] for alert in refold(call(), said, rules).alerts] == ["angry", "quiet"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[a]\nmeasure = "negativity"\nraise_at = "x"\nclear_at = 1', r"line 3: \[a\] raise_at"),
        ('\n\n[ "a" ]  # a rule\nmeasure = "shouting"\nraise_at = 3\nclear_at = 1', r"line 4: \[a\] measure"),
        ('[a]\nmeasure = "negativity"\nraise_at = 1\nclear_at = 3', r"line 1: \[a\]: .*clear_at must be below"),
        ('[a]\nmeasure = "negativity"\nraise_at = 3\n[b]\nclear_at = 1', r"line 1: \[a\] clear_at"),
        ('\n["a:b"]\nmeasure = "negativity"\nraise_at = 3\nclear_at = 1', r"line 2: \[a:b\] name: .*no colon"),
        ('[a]\nname = "a:b"\nmeasure = "negativity"\nraise_at = 3\nclear_at = 1', r"line 2: \[a\] name: .*no colon"),
        ("x = 1", "line 1: put x into the table"),
        ('a = {measure = "negativity", raise_at = 3}', r"line 1: \[a\] clear_at"),
        ("[a]\nmeasure = ?\n", "line 2"),
    ],
)
def test_an_error_in_the_rules_names_the_line(text, message):
    """And the rule and the field."""
    with pytest.raises(ConfigurationError, match=message):
        parse_rules(text)


@pytest.mark.parametrize("words", [["test", "none.toml"], ["test", "rules.toml", "--since", "yesterday"], []])
def test_a_command_that_makes_no_sense_is_refused(tmp_path, monkeypatch, words):
    """Exit code 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.toml").write_text(ANGRY)
    try:
        code = main(["rules", *words])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
