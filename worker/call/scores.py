"""The emotion of one role in a call: labels in; counts, scores, trend and streak out. Pure.

The formulas, with a worked example, are in docs/aggregates.md. Points are whole numbers so that sums are exact: a
negative label (anger, sadness) counts -2, a positive one (happiness) +2, neutral 0; a label that repeats the valence of
the one before it counts half as much again (-3, +3). The mean of the points of a period, scaled so that an unbroken run
tends to the end of the scale, is its score from -5 to +5.

Points are kept in at most 64 bins of call time whose width doubles as the call grows, so that quarters of a call whose
length is not known yet cost constant space. A bin belongs to the quarter its middle lies in.

The emotion of a role is a plain dict that msgpack can carry. Functions return a new one.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from callmood.schemas.common import EMOTIONS, Emotion
from callmood.worker.records import Prediction

VALENCE: Final = {Emotion.ANGER: -1, Emotion.HAPPINESS: 1, Emotion.NEUTRAL: 0, Emotion.SADNESS: -1}
SCORE_MAX: Final = 5.0

_DIGITS = 6
_BINS = 64
_FIRST_BIN_MS = 250
_POINTS = 2
_POINTS_OF_REPEAT = 3
_QUARTERS = 4

_TREND_MIN_LABELS = 4
_TREND_MIN_CHANGE = 1.0
_TREND_MIN_ERRORS = 1.5
_MS_PER_MIN = 60_000


def empty() -> dict[str, Any]:
    """No utterance yet."""
    return {
        "utterances": 0,
        "abstained": 0,
        "counts": [0] * len(EMOTIONS),
        "durations_ms": [0] * len(EMOTIONS),
        "weighted_ms": [0.0] * len(EMOTIONS),
        "bin_ms": _FIRST_BIN_MS,
        "labels": [],
        "points": [],
        "valences": [],
        "streak": 0,
        "last": None,
    }


def standing(prediction: Prediction) -> tuple[Emotion, list[float]] | None:
    """The label that stands and its probabilities as they are published, or None where the model abstains or failed.

    Rounding first makes the aggregate a function of the published utterances, to the last digit.
    """
    if prediction.reason is not None or prediction.probabilities is None:
        return None
    probabilities = [round(float(p), _DIGITS) for p in prediction.probabilities]
    return EMOTIONS[probabilities.index(max(probabilities))], probabilities


def add(emotion: dict[str, Any], start_ms: int, end_ms: int, prediction: Prediction) -> dict[str, Any]:
    """Add an utterance that the model heard. One without a standing label is counted and changes nothing else."""
    emotion = {**emotion, "utterances": emotion["utterances"] + 1}
    answer = standing(prediction)
    if answer is None:
        return {**emotion, "abstained": emotion["abstained"] + 1}
    label, probabilities = answer
    index, duration_ms, last = EMOTIONS.index(label), end_ms - start_ms, emotion["last"]
    before = EMOTIONS[last[0]] if last else None
    repeats = before is not None and VALENCE[before] == VALENCE[label]
    points = VALENCE[label] * (_POINTS_OF_REPEAT if repeats else _POINTS)
    return {
        **emotion,
        **_binned(emotion, (start_ms + end_ms) // 2, points, VALENCE[label]),
        "counts": _plus(emotion["counts"], index, 1),
        "durations_ms": _plus(emotion["durations_ms"], index, duration_ms),
        "weighted_ms": [
            known + p * duration_ms for known, p in zip(emotion["weighted_ms"], probabilities, strict=True)
        ],
        "streak": emotion["streak"] + 1 if before is label else 1,
        "last": [index, probabilities, end_ms],
    }


def summary(emotion: dict[str, Any], duration_ms: int) -> dict[str, Any]:
    """The `emotion` of a role in call/1, for a call that has lasted `duration_ms` so far."""
    quarters = _quarter_scores(emotion, duration_ms)
    known = [score for score in quarters if score is not None]
    last, labelled_ms = emotion["last"], sum(emotion["durations_ms"])
    return {
        "utterances": emotion["utterances"],
        "abstained": emotion["abstained"],
        "counts": _by_label(emotion["counts"]),
        "durations_ms": _by_label(emotion["durations_ms"]),
        "probabilities": _shares([ms / labelled_ms for ms in emotion["weighted_ms"]]) if labelled_ms else None,
        "quarter_scores": {f"q{number}": score for number, score in enumerate(quarters, 1)},
        "overall_score": _rounded(sum(known) / len(known), 3) if known else None,
        "trend": _trend(emotion),
        "streak": {"label": EMOTIONS[last[0]].value, "count": emotion["streak"]} if last else None,
        "last": {"label": EMOTIONS[last[0]].value, "probabilities": _shares(last[1]), "end_ms": last[2]}
        if last
        else None,
    }


def _binned(emotion: dict[str, Any], at_ms: int, points: int, valence: int) -> dict[str, Any]:
    """The bins with an utterance in them, made wider until the utterance falls into one."""
    bin_ms, bins = emotion["bin_ms"], {"labels": 1, "points": points, "valences": valence}
    sums = {name: emotion[name] for name in bins}
    while at_ms // bin_ms >= _BINS:
        bin_ms, sums = bin_ms * 2, {name: _merge_pairs(values) for name, values in sums.items()}
    index = at_ms // bin_ms
    grow = [0] * (index + 1 - len(sums["labels"]))
    return {"bin_ms": bin_ms, **{name: _plus([*values, *grow], index, bins[name]) for name, values in sums.items()}}


def _merge_pairs(values: list[int]) -> list[int]:
    return [one + other for one, other in zip_longest(values[::2], values[1::2], fillvalue=0)]


def _quarter_scores(emotion: dict[str, Any], duration_ms: int) -> list[float | None]:
    labels, points = [0] * _QUARTERS, [0] * _QUARTERS
    for index, (count, total) in enumerate(zip(emotion["labels"], emotion["points"], strict=True)):
        # the bin's middle is (index + 1/2) * bin_ms, kept whole by doubling both sides
        middle_of_two_ms = (2 * index + 1) * emotion["bin_ms"]
        quarter = min(_QUARTERS - 1, middle_of_two_ms * _QUARTERS // max(1, 2 * duration_ms))
        labels[quarter] += count
        points[quarter] += total
    return [
        _rounded(SCORE_MAX * total / (_POINTS_OF_REPEAT * count), 3) if count else None
        for count, total in zip(labels, points, strict=True)
    ]


def _trend(emotion: dict[str, Any]) -> dict[str, Any] | None:
    """Least squares through the labels, as -5, 0 or +5 at the middles of their bins.

    It is steady unless the fitted line changes by a point over the call and by 1.5 of its standard errors: with few
    labels, chance alone draws steep lines. Repeats do not count here, or a call that stays angry would be worsening.
    """
    bins = [
        ((index + 0.5) * emotion["bin_ms"] / _MS_PER_MIN, count, SCORE_MAX * valence)
        for index, (count, valence) in enumerate(zip(emotion["labels"], emotion["valences"], strict=True))
        if count
    ]
    n = sum(count for _, count, _ in bins)
    if n < _TREND_MIN_LABELS:
        return None
    mean_min, mean_score = sum(c * t for t, c, _ in bins) / n, sum(s for _, _, s in bins) / n
    spread = sum(c * (t - mean_min) ** 2 for t, c, _ in bins)
    if spread == 0:
        return {"direction": "steady", "slope_per_min": 0.0}
    slope = sum((t - mean_min) * (s - c * mean_score) for t, c, s in bins) / spread
    squares = sum(SCORE_MAX**2 * count for count, e in zip(emotion["counts"], EMOTIONS, strict=True) if VALENCE[e])
    unexplained = max(0.0, squares - n * mean_score**2 - slope**2 * spread)
    error = (unexplained / (n - 2) / spread) ** 0.5
    change = slope * (bins[-1][0] - bins[0][0])
    is_clear = abs(change) >= _TREND_MIN_CHANGE and abs(slope) >= _TREND_MIN_ERRORS * error
    direction = ("improving" if slope > 0 else "worsening") if is_clear else "steady"
    return {"direction": direction, "slope_per_min": _rounded(slope, 4)}


def _by_label(values: Sequence[int]) -> dict[str, int]:
    return {emotion.value: value for emotion, value in zip(EMOTIONS, values, strict=True)}


def _shares(values: Sequence[float]) -> dict[str, float]:
    return {emotion.value: _rounded(value, _DIGITS) for emotion, value in zip(EMOTIONS, values, strict=True)}


def _rounded(value: float, digits: int) -> float:
    """Rounded, and never -0.0, so that equal figures have equal text."""
    return round(value, digits) + 0.0


def _plus(values: list[int], index: int, amount: int) -> list[int]:
    return [value + amount if at == index else value for at, value in enumerate(values)]
