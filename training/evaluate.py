"""Metrics of a classifier: accuracies, confusion, calibration. Logits and labels in, plain numbers out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from callmood.schemas.common import EMOTIONS
from callmood.worker.errors import ConfigurationError

Logits = NDArray[np.float64]
Labels = NDArray[np.int64]
_ECE_BINS = 15


def softmax(logits: Logits, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities of logits [n, 4] at a temperature."""
    scaled = logits / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = scaled / scaled.sum(axis=1, keepdims=True)
    return probabilities


def confusion(labels: Labels, predicted: Labels) -> NDArray[np.int64]:
    """Counts [true, predicted], both in the order of `EMOTIONS`."""
    counts = np.zeros((len(EMOTIONS), len(EMOTIONS)), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def weighted_accuracy(counts: NDArray[np.int64]) -> float:
    """WA: the share of utterances that are right."""
    return float(np.trace(counts) / counts.sum())


def unweighted_accuracy(counts: NDArray[np.int64]) -> float:
    """UA: the mean recall of the classes that occur."""
    present = counts.sum(axis=1) > 0
    return float((np.diag(counts)[present] / counts.sum(axis=1)[present]).mean())


def macro_f1(counts: NDArray[np.int64]) -> float:
    """Mean F1 of the classes that occur or are predicted."""
    total = counts.sum(axis=1) + counts.sum(axis=0)
    return float((2 * np.diag(counts)[total > 0] / total[total > 0]).mean())


def calibration_error(probabilities: NDArray[np.float64], labels: Labels) -> float:
    """ECE: how far the top probability is from the accuracy, over 15 equal bins weighted by their size."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _ECE_BINS).astype(int), _ECE_BINS - 1)
    gaps = [abs(float((confidence - right)[bins == i].sum())) for i in range(_ECE_BINS)]
    return sum(gaps) / len(labels)


def negative_log_likelihood(probabilities: NDArray[np.float64], labels: Labels) -> float:
    """Mean negative log of the true class's probability, in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def brier(probabilities: NDArray[np.float64], labels: Labels) -> float:
    """Brier score: the mean squared distance from the one-hot truth, summed over classes; 0 to 2."""
    return float(np.square(probabilities - np.eye(len(EMOTIONS))[labels]).sum(axis=1).mean())


def reliability(probabilities: NDArray[np.float64], labels: Labels) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and count of each of the ECE's bins that is not empty."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _ECE_BINS).astype(int), _ECE_BINS - 1)
    held = [bins == i for i in range(_ECE_BINS) if (bins == i).any()]
    return [(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum())) for inside in held]


def risk_coverage(probabilities: NDArray[np.float64], labels: Labels) -> list[tuple[float, float]]:
    """Coverage and risk as labels are given to the most confident utterances first: one point for each utterance."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    given = np.arange(1, len(labels) + 1)
    return list(zip((given / len(labels)).tolist(), (np.cumsum(wrong) / given).tolist(), strict=True))


def refuse_not_finite(logits: Logits) -> None:
    """Check that a model answered with numbers.

    Raises:
        ConfigurationError: a logit is NaN or infinite.
    """
    if broken := int((~np.isfinite(logits).all(axis=1)).sum()):
        raise ConfigurationError(f"the model's logits of {broken} of {len(logits)} utterances are not finite")


def evaluate(logits: Logits, labels: Labels, *, temperature: float, abstain_below: float) -> dict[str, Any]:
    """All figures of one split in a report.

    `coverage` is the share of utterances that get a label, `risk` the share of wrong ones among those labels.

    Raises:
        ConfigurationError: a logit is not finite.
    """
    refuse_not_finite(logits)
    calibrated = softmax(logits, temperature)
    return figures(softmax(logits), calibrated, labels, given=calibrated.max(axis=1) >= abstain_below)


def figures(
    raw: NDArray[np.float64], calibrated: NDArray[np.float64], labels: Labels, *, given: NDArray[np.bool_]
) -> dict[str, Any]:
    """The figures of `evaluate`. `raw` and `calibrated` are probabilities; `given`: which utterances get a label."""
    counts = confusion(labels, raw.argmax(axis=1))
    wrong = calibrated.argmax(axis=1) != labels
    return {
        "utterances": len(labels),
        "wa": round(weighted_accuracy(counts), 4),
        "ua": round(unweighted_accuracy(counts), 4),
        "macro_f1": round(macro_f1(counts), 4),
        "ece_uncalibrated": round(calibration_error(raw, labels), 4),
        "ece": round(calibration_error(calibrated, labels), 4),
        "nll_uncalibrated": round(negative_log_likelihood(raw, labels), 4),
        "nll": round(negative_log_likelihood(calibrated, labels), 4),
        "brier_uncalibrated": round(brier(raw, labels), 4),
        "brier": round(brier(calibrated, labels), 4),
        "coverage": round(float(given.mean()), 4),
        "risk": round(float(wrong[given].mean()), 4) if given.any() else 0.0,
        "labels": list(EMOTIONS),
        "confusion": counts.tolist(),
    }
