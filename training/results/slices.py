"""Figures of a classifier by slice of the corpus, and their confidence intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from callmood.schemas.common import EMOTIONS
from callmood.training.evaluate import Labels, macro_f1, unweighted_accuracy, weighted_accuracy
from callmood.training.manifest import Item

_RESAMPLES: Final = 1000
_MOST_KINDS: Final = 50  # each call of a list may be a session of its own: too many for a table
_INTERVAL: Final = (2.5, 97.5)
_SHORT_S, _LONG_S = 3.0, 6.0

_BY: Final[Mapping[str, Callable[[Item], str]]] = {
    "gender": lambda item: item.gender,
    "duration": lambda item: _duration(item.seconds),
    "style": lambda item: item.style,
    "language": lambda item: item.language,
    "corpus": lambda item: item.corpus,
    "session": lambda item: item.session,
}


def slices(items: Sequence[Item], labels: Labels, predicted: Labels) -> dict[str, dict[str, dict[str, Any]]]:
    """Count, WA, UA and macro-F1 by gender, duration, style, language, corpus and session; those with 2 to 50 values.

    Args:
        items: of the utterances.
        labels: [n], the truth.
        predicted: [n].
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, value in _BY.items():
        kinds, index = np.unique([value(item) for item in items], return_inverse=True)
        if len(kinds) > _MOST_KINDS:
            continue
        counts = np.zeros((len(kinds), len(EMOTIONS), len(EMOTIONS)), dtype=np.int64)
        np.add.at(counts, (index, labels, predicted), 1)
        figures = {str(kind): _figures(table) for kind, table in zip(kinds, counts, strict=True) if kind}
        if len(figures) > 1:
            found[name] = figures
    return found


def intervals(items: Sequence[Item], labels: Labels, predicted: Labels) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of WA, UA and macro-F1: speakers are drawn, for utterances are not independent."""
    index_of = {person: i for i, person in enumerate(sorted({item.person for item in items}))}
    index = np.array([index_of[item.person] for item in items])
    counts = np.zeros((len(index_of), len(EMOTIONS), len(EMOTIONS)), dtype=np.int64)
    np.add.at(counts, (index, labels, predicted), 1)
    flat = counts.reshape(len(index_of), -1).astype(float)  # matrix products of floats are fast
    rng = np.random.default_rng(0)
    tables = []
    for _ in range(_RESAMPLES):
        often = np.bincount(rng.integers(len(index_of), size=len(index_of)), minlength=len(index_of))
        tables.append((often @ flat).reshape(counts.shape[1:]))
    figures: dict[str, Callable[[Any], float]] = {
        "wa": weighted_accuracy,
        "ua": unweighted_accuracy,
        "macro_f1": macro_f1,
    }
    found = {}
    for name, figure in figures.items():
        low, high = np.percentile([figure(table) for table in tables], _INTERVAL)
        found[name] = (round(float(low), 4), round(float(high), 4))
    return found


def _figures(counts: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "utterances": int(counts.sum()),
        "wa": round(weighted_accuracy(counts), 4),
        "ua": round(unweighted_accuracy(counts), 4),
        "macro_f1": round(macro_f1(counts), 4),
    }


def _duration(seconds: float) -> str:
    if seconds < _SHORT_S:
        return f"under {_SHORT_S:g} s"
    return f"{_SHORT_S:g} to {_LONG_S:g} s" if seconds <= _LONG_S else f"over {_LONG_S:g} s"
