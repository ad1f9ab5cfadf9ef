"""Answers of a second model to the same utterances: results of `callmood analyze`, or a table of `predict`."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from callmood.schemas.common import EMOTIONS
from callmood.training.corpora import own
from callmood.training.production import published
from callmood.training.production.sample import Candidate
from callmood.worker.errors import ConfigurationError

_CALL: Final = "callmood.call/1"
_TOLERANCE: Final = 0.01  # by which rounded probabilities may miss a sum of 1
Answers = Mapping[str, Sequence[float]]


def read(source: Path) -> dict[str, tuple[float, ...]]:
    """Probabilities in the order of `EMOTIONS`, by utterance; utterances without an answer are left out.

    Raises:
        ConfigurationError: the file cannot be read, or a row is neither of the two forms; the message has the row.
    """
    found = {}
    for number, row in _rows(source):
        if row.get("schema") == _CALL:
            continue
        try:
            name, probabilities = _answer(row)
        except (KeyError, TypeError, ValueError) as error:
            why = f"no {error.args[0]}" if isinstance(error, KeyError) else error
            raise ConfigurationError(
                f"{source}, row {number}: no utterance of `callmood analyze` or `callmood-train predict`: {why}"
            ) from error
        if probabilities:
            found[name] = probabilities
    return found


def compared(found: Sequence[Candidate], answers: Answers) -> tuple[list[Candidate], int]:
    """Candidates whose margin is small where the two models disagree, and the number without a second answer.

    The margin is 1 less the total variation distance of the two models' probabilities, and 1 without a second answer.

    Raises:
        ConfigurationError: no candidate has a second answer.
    """
    both = [(one, answers.get(one.id, one.probabilities)) for one in found]
    missing = sum(one.id not in answers for one in found)
    if missing == len(found):
        raise ConfigurationError("the second model has answered none of these utterances: the ids must be the same")
    distances = [sum(abs(a - b) for a, b in zip(one.probabilities, other, strict=True)) / 2 for one, other in both]
    return [
        dataclasses.replace(one, margin=1 - distance) for one, distance in zip(found, distances, strict=True)
    ], missing


def _rows(source: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if source.suffix.lower() != ".parquet":
        yield from own.rows(source)
        return
    yield from published.parquet_rows(source)


def _answer(row: Mapping[str, Any]) -> tuple[str, tuple[float, ...]]:
    """Id and probabilities of a row; none where there is an error, or emotion is withheld."""
    if "utterance_id" in row:
        emotion = row["emotion"]
        given, name = emotion["probabilities"] if emotion else None, row["utterance_id"]
    else:
        given, name = None if row["error"] else row, row["id"]
    if given is None:
        return str(name), ()
    probabilities = tuple(float(given[str(emotion)]) for emotion in EMOTIONS)
    if not all(0 <= value <= 1 for value in probabilities) or not math.isclose(
        sum(probabilities), 1, abs_tol=_TOLERANCE
    ):
        raise ValueError(f"{probabilities} are no probabilities")
    return str(name), probabilities
