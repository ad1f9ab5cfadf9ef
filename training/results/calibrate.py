"""Fit the temperature and the abstention threshold of a model, both on the validation split."""

import numpy as np
from numpy.typing import NDArray

from callmood.training.evaluate import Labels, Logits, negative_log_likelihood, softmax

_LOG_TEMPERATURE = (-3.0, 3.0)
_STEPS = 60  # each shrinks the interval to 2/3: far below float precision of the result's use


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


def fit_threshold(probabilities: NDArray[np.float64], labels: Labels, wanted_risk: float) -> float:
    """The lowest top probability at which to give a label, so that the share of wrong labels is at most `wanted_risk`.

    Returns:
        0 if no abstention is needed; the highest confidence seen if the risk cannot be reached.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    risk = np.cumsum(wrong) / np.arange(1, len(labels) + 1)
    enough = np.flatnonzero(risk <= wanted_risk)
    if enough.size and enough[-1] == len(labels) - 1:
        return 0.0
    return float(confidence[order][enough[-1] if enough.size else 0])


def _loss(logits: Logits, labels: Labels, log_temperature: float) -> float:
    return negative_log_likelihood(softmax(logits, float(np.exp(log_temperature))), labels)
