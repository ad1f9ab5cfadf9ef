"""Fit the temperature and the abstention threshold of a model, both on the validation split."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from callmood.training.evaluate import Labels, Logits, negative_log_likelihood, softmax

ABSTAIN_ALWAYS: Final = 1.0001
"""A threshold that no probability reaches."""
_LOG_TEMPERATURE: Final = (-3.0, 3.0)
_STEPS: Final = 60  # each shrinks the interval to 2/3: far below float precision of the result's use
_FIRST, _STEP = 0.2, 0.05  # shares of the validation utterances
_GRID: Final = 10_000  # a threshold has four digits; what they cannot tell apart is given a label together


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The softmax temperature with the lowest negative log-likelihood, by ternary search: it has one minimum."""
    low, high = _LOG_TEMPERATURE
    for _ in range(_STEPS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if _loss(logits, labels, left) < _loss(logits, labels, right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def fit_threshold(
    probabilities: NDArray[np.float64], labels: Labels, wanted_risk: float, confidence: float = 0.95
) -> float:
    """A low top probability from which to give a label, so that few labels are wrong on new utterances.

    With probability `confidence` over the draw of the validation utterances, the share of wrong labels among those
    given to new utterances of the same kind is at most `wanted_risk`. The test is exact (Clopper & Pearson). It begins
    with the most confident fifth of the utterances and adds a twentieth at a time until it fails, so that all steps
    together have the error of one (fixed-sequence testing: Angelopoulos et al. 2021, "Learn then Test").

    Returns:
        0 if no abstention is needed; `ABSTAIN_ALWAYS` if the validation split cannot show the risk, for example because
        it is too small.
    """
    top = probabilities.max(axis=1)
    wrong = probabilities.argmax(axis=1) != labels
    candidates = np.sort(_floor(top))[::-1]
    threshold = ABSTAIN_ALWAYS
    for count in _counts(len(labels), wanted_risk, confidence):
        given = top >= candidates[count - 1]  # ties included
        if _at_most(int(wrong[given].sum()), int(given.sum()), wanted_risk) > 1 - confidence:
            return threshold
        threshold = 0.0 if given.all() else float(candidates[count - 1])
    return threshold


def _floor(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest threshold of four digits that each value reaches."""
    found: NDArray[np.float64] = np.floor(values * _GRID)  # the product is rounded: it may be off by one
    found -= found / _GRID > values
    found += (found + 1) / _GRID <= values
    return found / _GRID


def _counts(utterances: int, wanted_risk: float, confidence: float) -> list[int]:
    """How many utterances get a label at each step; at first enough that no error among them would show the risk."""
    least = next((n for n in range(1, utterances + 1) if _at_most(0, n, wanted_risk) <= 1 - confidence), None)
    if least is None:
        return []
    first = max(least, round(_FIRST * utterances))
    return [*range(first, utterances, max(1, round(_STEP * utterances))), utterances]


def _at_most(wrong: int, given: int, risk: float) -> float:
    """The probability of at most `wrong` errors among `given` labels that are wrong with probability `risk` each."""
    if risk in (0.0, 1.0):
        return 1.0 - risk
    numbers = np.arange(wrong)
    ratios = np.log((given - numbers) / (numbers + 1)) + math.log(risk / (1 - risk))  # of neighbouring terms
    return float(np.exp(given * math.log1p(-risk) + np.append(0.0, np.cumsum(ratios))).sum())


def _loss(logits: Logits, labels: Labels, log_temperature: float) -> float:
    return negative_log_likelihood(softmax(logits, float(np.exp(log_temperature))), labels)
