"""What the terminal shows of a call: the same figures as its records, readable without colour."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from callmood.dashboard.reader import CallView
from callmood.dashboard.table import alert_line, banner, call_line, call_table, is_synthetic, screen, utterance_line
from callmood.schemas.alert import Alert
from callmood.schemas.call import Call
from callmood.schemas.common import EMOTIONS, Emotion, Encoding, Role
from callmood.schemas.utterance import Utterance as UtteranceRecord
from callmood.worker.call import aggregate, policy, signs
from callmood.worker.call.render import Stamps, Times, utterance_record
from callmood.worker.records import Acoustics, Cut, ModelInfo, Position, Prediction, Result, Speech, Utterance
from callmood.worker.settings import PolicySettings

_TIMES = Times(10**12 + 100, 10**12 + 200, 10**12 + 420)
_EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"


def _stamps(model_id="demo-tiny"):
    return Stamps(policy.stamp(PolicySettings()), ModelInfo(model_id, "1", "sha256:" + "0" * 64))


def _result(number, label=None, reason=None, speech=None):
    start_ms, position = number * 5_000, Position("audio", 0, number)
    utterance = Utterance(
        id=f"c:0:0:{start_ms}", call_id="c", stream="0", channel=int(label is None),
        role=Role.CUSTOMER if label else Role.AGENT, start_ms=start_ms, end_ms=start_ms + 4_000, capture_end_ms=10**12,
        encoding=Encoding.PCMU, rate_hz=8_000, audio=b"", cut=Cut.SILENCE, missing_ms=0, overlap_ms=0,
        acoustics=Acoustics(-20.0, 20.0, 0.0, 3_400), first=position, last=position,
        withheld=None if label else "policy:role_agent",
    )  # fmt: skip
    prediction = label and Prediction(tuple(0.7 if e is label else 0.1 for e in EMOTIONS), reason)
    return Result(utterance, prediction, speech)


def _view(*labels, end=None, model_id="demo-tiny"):
    state = aggregate.start(aggregate.Aggregate("c"), started_at_ms=10**12)
    for number, label in enumerate(labels):
        state = aggregate.fold(state, _result(number, label))
    if end:
        state = aggregate.finish(state, reason=end, end_ms=len(labels) * 5_000)
    stamps = _stamps(model_id)
    call = aggregate.summary(state, policy=stamps.policy, model=stamps.model)
    return CallView(Call.model_validate(call), None if end else signs.risk(call))


def _record(number, label=None, reason=None, *, times=_TIMES):
    return UtteranceRecord.model_validate(utterance_record(_result(number, label, reason), number, _stamps(), times))


def _text(renderable, width=120):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(renderable)
    return out.getvalue()


def test_a_row_shows_the_figures_of_the_call():
    """Label, confidence, talk of both, score, trend and delay stand in the row."""
    said = [_record(n, Emotion.ANGER) for n in range(1, 5)]
    view = _view(None, *[Emotion.ANGER] * 4)
    score, risk = view.call.roles[Role.CUSTOMER].emotion.overall_score, view.risk
    text = _text(call_table([view], {"c": said}, width=120))
    for figure in ("anger", " 70%", "0:16/0:04", "▂▂▂▂", f"{score:+.1f} →", f"{risk:.0%}", "0.4 s"):
        assert figure in text


@pytest.mark.parametrize("width", [80, 90, 100, 120, 200])
def test_the_table_fits_its_terminal(width):
    """No line is longer than the terminal, and the call, the label and the talk times are always whole."""
    view = _view(None, Emotion.HAPPINESS)
    text = _text(call_table([view], {"c": [_record(1, Emotion.HAPPINESS)]}, width=width), width=width)
    assert max(map(len, text.splitlines())) <= width
    for part in ("c ", "happiness", "0:04/0:04"):
        assert part in text
    assert "…" not in text


def test_a_call_without_emotion_has_a_row_too():
    """A call of which the model has heard nothing shows its dynamics and no label."""
    text = _text(call_table([_view(None)], {}, width=120))
    assert "0:00/0:04" in text
    assert not any(label.value in text for label in EMOTIONS)


def test_doubt_leaves_no_mark_in_the_history():
    """An abstained utterance is not among the answers."""
    view = _view(Emotion.ANGER)
    sure, doubt = _record(1, Emotion.ANGER), _record(2, Emotion.ANGER, "low_confidence")
    with_doubt = _text(call_table([view], {"c": [sure, doubt]}, width=120))
    assert with_doubt == _text(call_table([view], {"c": [sure]}, width=120))


def test_the_bar_is_full_whatever_the_probabilities():
    """The four parts of a bar always add up to its width."""
    for label in EMOTIONS:
        text = _text(call_table([_view(label)], {}, width=120))
        assert text.count("█") == 16


@pytest.mark.parametrize(("end", "mark"), [(None, "c  "), ("end", "c ✓"), ("no_audio", "c ✗")])
def test_ended_calls_are_marked(end, mark):
    """A completed call has a tick, a failed one a cross, a live one nothing."""
    assert mark in _text(call_table([_view(Emotion.NEUTRAL, end=end)], {}, width=120))


def test_the_demo_model_is_named_for_what_it_is():
    """Labels of the synthetic demo never stand without the warning, and real models never have it."""
    assert is_synthetic("demo-tiny")
    assert "synthetic" in _text(screen([_view(Emotion.ANGER)], {}, [], width=120))
    assert banner([_view(Emotion.ANGER, model_id="hubert-large-er")]) is None
    assert banner([_view(None)]) is None


def test_an_utterance_line_says_everything_in_words():
    """One line has the call, the time, the role, the label, all probabilities and the delay."""
    assert utterance_line(_record(3, Emotion.SADNESS)).plain == (
        "c #3 0:15-0:19 customer sadness   0.42 s  anger 0.10  happiness 0.10  neutral 0.10  sadness 0.70"
    )


def test_withheld_and_doubtful_utterances_say_why():
    """Without a standing label the line gives the reason instead."""
    assert "no emotion (policy:role_agent)" in utterance_line(_record(1)).plain
    doubt = utterance_line(_record(1, Emotion.ANGER, "low_confidence", times=None)).plain
    assert "uncertain (low_confidence)  anger 0.70" in doubt


def test_other_sounds_are_named_for_what_they_are():
    """An utterance that is not speech says so, whatever its role; an ended call says how long such sounds were."""
    tune = _result(1, speech=Speech(0.02, 0, 0))
    record = UtteranceRecord.model_validate(utterance_record(tune, 1, _stamps(), None))
    assert utterance_line(record).plain == "c #1 0:05-0:09 agent    not speech"
    state = aggregate.finish(aggregate.fold(aggregate.Aggregate("c"), tune), reason="end", end_ms=9_000)
    call = Call.model_validate(aggregate.summary(state, policy=_stamps().policy, model=None))
    assert call_line(call).plain == "c completed: 0:09, 0 utterances, 0:04 of other sounds"


def test_an_ended_call_in_one_line():
    """The last line of a call has its length, its score and its label counts."""
    line = call_line(_view(Emotion.ANGER, None, Emotion.NEUTRAL, end="end").call).plain
    assert line == "c completed: 0:15, 3 utterances, customer score -1.7 (1 anger, 1 neutral)"
    assert call_line(_view(None, end="end").call).plain == "c completed: 0:05, 1 utterances"


def test_an_alert_line_says_when_and_what():
    """An alert's line has the call, the media time and the message."""
    example = min((_EXAMPLES / "alert" / "valid").glob("*.json"))
    raised = Alert.model_validate(json.loads(example.read_text(encoding="utf-8")))
    line = alert_line(raised).plain
    assert line.startswith(f"ALERT {raised.call_id} ")
    assert line.endswith(raised.message)
