"""Choosing utterances on which two models disagree."""

import json
from pathlib import Path
from typing import Any

import pytest

from callmood.schemas.common import EMOTIONS
from callmood.training.production import sample, second
from callmood.training.production.sample import Rules
from callmood.training.results import predict
from callmood.worker.errors import ConfigurationError

FIRST = {"a": (0.5, 0.4, 0.1, 0.0), "b": (0.9, 0.1, 0.0, 0.0), "c": (0.6, 0.4, 0.0, 0.0), "d": (0.4, 0.4, 0.1, 0.1)}
SECOND = {"a": (0.5, 0.4, 0.1, 0.0), "b": (0.0, 0.1, 0.9, 0.0), "c": (0.4, 0.6, 0.0, 0.0)}


def published(answers: dict[str, tuple[float, ...]]) -> list[dict[str, Any]]:
    """Records of utterances, each of a call of its own, and one without an answer."""
    common = {
        "schema": "callmood.utterance/1",
        "stream": "0",
        "channel": 0,
        "role": "customer",
        "start_ms": 0,
        "end_ms": 900,
    }
    known = [
        {
            **common,
            "utterance_id": name,
            "call_id": f"call-{name}",
            "emotion": {"probabilities": dict(zip(EMOTIONS, values, strict=True))},
            "policy": {"emotion_roles": ["customer"]},
        }
        for name, values in answers.items()
    ]
    return [*known, {**common, "utterance_id": "none", "call_id": "call-x", "emotion": None, "withheld": "role"}]


def table(answers: dict[str, tuple[float, ...]]) -> list[predict.Row]:
    """The same as `callmood-train predict` writes it, and an utterance with an error."""
    common: dict[str, Any] = {"corpus": "own", "speaker": "", "split": "", "label": "", "start_s": 0.0, "model": "sha"}
    rows = [
        predict.Row(
            id=name,
            **common,
            end_s=0.9,
            predicted="x",
            confidence=0.9,
            abstained=False,
            error="",
            **dict(zip(EMOTIONS, values, strict=True)),
        )
        for name, values in answers.items()
    ]
    nothing: dict[str, Any] = dict.fromkeys(("end_s", "predicted", "confidence", "abstained", *EMOTIONS))
    return [*rows, predict.Row(id="none", **common, **nothing, error="audio missing")]


@pytest.mark.parametrize("name", ["second.jsonl", "second.csv", "second.parquet", "results.jsonl"])
def test_answers_of_a_second_model_are_read_in_each_form(tmp_path: Path, name: str):
    """Tables of `predict` and results of `analyze` give the same; what has no answer is left out."""
    path = tmp_path / name
    if name == "results.jsonl":
        records = [*published(SECOND), {"schema": "callmood.call/1", "call_id": "call-a"}]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        predict.write(table(SECOND), path)
    assert second.read(path) == SECOND


def test_utterances_are_chosen_by_the_distance_of_two_answers():
    """A sure answer that the other model contradicts comes first; one that it shares, or has none to, comes last."""
    found, _ = sample.candidates(published(FIRST), Rules())
    compared, missing = second.compared(found, SECOND)
    assert missing == 1
    assert {one.id: round(1 - one.margin, 6) for one in compared} == {"a": 0, "b": 0.9, "c": 0.2, "d": 0}
    chosen = sample.choose(compared, 2, 0.0, Rules(), seed=0)
    assert [one.candidate.id for one in chosen] == ["b", "c"]


def test_erased_calls_are_not_chosen_whatever_the_models_say():
    """A second answer to an erased call does not bring it back."""
    found, refused = sample.candidates(published(FIRST), Rules(erased=frozenset({"call-b"})))
    compared, _ = second.compared(found, SECOND)
    assert refused["call is erased"] == 1
    assert "b" not in {one.candidate.id for one in sample.choose(compared, 9, 0.0, Rules(), seed=0)}


def test_answers_to_other_utterances_are_refused():
    """Without a common id, nothing can be compared."""
    found, _ = sample.candidates(published(FIRST), Rules())
    with pytest.raises(ConfigurationError, match="answered none of these"):
        second.compared(found, {"other": SECOND["a"]})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"id": "a", "error": ""}\n', "row 1: no utterance of .*: no anger$"),
        ("a.jsonl", '{"path": "a.wav"}\n', "row 1: no utterance"),
        ("a.jsonl", "\n[]\n", "row 2: not a JSON object"),
        ("a.csv", "id,error,anger,happiness,neutral,sadness\na,,1,0,0,0\nb,,nan,0,0,0\n", "row 2: .*no probabilities"),
        ("a.csv", "id,error,anger,happiness,neutral,sadness\na,,90,10,0,0\n", "row 1: .*no probabilities"),
        ("a.csv", "id,error,anger,happiness,neutral,sadness\na,,much,0,0,0\n", "row 1: .*could not convert"),
        ("a.parquet", "no Parquet", "a.parquet: "),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, name: str, text: str, message: str):
    """A missing column, percentages, texts and broken files are errors with the row."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        second.read(tmp_path / name)
    with pytest.raises(ConfigurationError, match="No such file"):
        second.read(tmp_path / "missing.csv")
