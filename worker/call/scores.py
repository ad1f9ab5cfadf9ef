"""The emotion of one role in a call: labels in; counts, scores, trend and streak out. Pure.

The formulas, with a worked example, are in docs/aggregates.md. Points are whole numbers so that sums are exact: a
negative label (anger, sadness) counts -2, a positive one (happiness) +2, neutral 0; a label that repeats the valence of
the label before it counts one and a half times (-3, +3). The mean of the points of a period, scaled so that an unbroken
run approaches the end of the scale, is the score of the period, from -5 to +5.

Points are kept in at most 64 bins of call time whose width doubles as the call grows, so the quarters need
constant space although the length of the call is not known yet. A bin belongs to the quarter that contains its middle.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from callmood.schemas.call import Direction
from callmood.schemas.common import EMOTIONS, Emotion
from callmood.worker.records import Prediction

Probabilities = tuple[float, float, float, float]
"""One for each of `EMOTIONS`, in that order."""

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


class StandingLabel(NamedTuple):
    """A label that stands, and its probabilities as they are published."""

    emotion: Emotion
    probabilities: Probabilities


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """One emotion in all labelled utterances of a role."""

    count: int = 0
    duration_ms: int = 0
    weighted_ms: float = 0.0
    """Its probability times the duration, summed over all labelled utterances."""


class Bin(msgspec.Struct, frozen=True, array_like=True):
    """The labelled utterances whose middles lie in one stretch of call time."""

    labels: int = 0
    points: int = 0
    valence: int = 0
    """Sum of the labels' valences."""


class Newest(msgspec.Struct, frozen=True, array_like=True):
    """The newest labelled utterance."""

    emotion: Emotion
    probabilities: Probabilities
    end_ms: int
    streak: int
    """How many labelled utterances in a row, this one included, have its label."""


class Scores(msgspec.Struct, frozen=True, array_like=True):
    """The emotion of one role in a call so far."""

    utterances: int = 0
    """Utterances that the model analysed."""
    abstained: int = 0
    """Those of them whose label does not stand."""
    tallies: tuple[Tally, Tally, Tally, Tally] = (Tally(), Tally(), Tally(), Tally())
    """One for each of `EMOTIONS`, in that order."""
    bin_ms: int = _FIRST_BIN_MS
    bins: tuple[Bin, ...] = ()
    """From 0 of the call on."""
    newest: Newest | None = None


_NO_LABELS: Final = Bin()


def standing(prediction: Prediction) -> StandingLabel | None:
    """The label that stands, or None where the model abstains or failed.

    Rounding first makes the aggregate a function of the published utterances, to the last digit.
    """
    if prediction.reason is not None or prediction.probabilities is None:
        return None
    anger, happiness, neutral, sadness = (round(float(p), _DIGITS) for p in prediction.probabilities)
    probabilities = (anger, happiness, neutral, sadness)
    return StandingLabel(EMOTIONS[probabilities.index(max(probabilities))], probabilities)


def add(scores: Scores, start_ms: int, end_ms: int, prediction: Prediction) -> Scores:
    """Add an utterance that the model analysed. One without a label to act on is counted only."""
    label = standing(prediction)
    if label is None:
        return replace(scores, utterances=scores.utterances + 1, abstained=scores.abstained + 1)
    valence, newest = VALENCE[label.emotion], scores.newest
    is_repeat = newest is not None and VALENCE[newest.emotion] == valence
    points = valence * (_POINTS_OF_REPEAT if is_repeat else _POINTS)
    bin_ms, bins = _binned(scores, (start_ms + end_ms) // 2, Bin(1, points, valence))
    streak = newest.streak + 1 if newest and newest.emotion is label.emotion else 1
    return Scores(
        utterances=scores.utterances + 1,
        abstained=scores.abstained,
        tallies=_tallied(scores.tallies, label, end_ms - start_ms),
        bin_ms=bin_ms,
        bins=bins,
        newest=Newest(label.emotion, label.probabilities, end_ms, streak),
    )


def summary(scores: Scores, duration_ms: int) -> dict[str, Any]:
    """The `emotion` of a role in call/1, for a call that has lasted `duration_ms` so far."""
    quarters = _quarter_scores(scores, duration_ms)
    known = [score for score in quarters if score is not None]
    newest, labelled_ms = scores.newest, sum(tally.duration_ms for tally in scores.tallies)
    return {
        "utterances": scores.utterances,
        "abstained": scores.abstained,
        "counts": _by_label([tally.count for tally in scores.tallies]),
        "durations_ms": _by_label([tally.duration_ms for tally in scores.tallies]),
        "probabilities": _shares([tally.weighted_ms / labelled_ms for tally in scores.tallies])
        if labelled_ms
        else None,
        "quarter_scores": {f"q{number}": score for number, score in enumerate(quarters, 1)},
        "overall_score": _rounded(sum(known) / len(known), 3) if known else None,
        "trend": _trend(scores),
        "streak": newest and {"label": newest.emotion.value, "count": newest.streak},
        "last": newest
        and {
            "label": newest.emotion.value,
            "probabilities": _shares(newest.probabilities),
            "end_ms": newest.end_ms,
        },
    }


def _tallied(
    tallies: tuple[Tally, Tally, Tally, Tally], label: StandingLabel, duration_ms: int
) -> tuple[Tally, Tally, Tally, Tally]:
    anger, happiness, neutral, sadness = (
        Tally(
            tally.count + (emotion is label.emotion),
            tally.duration_ms + (duration_ms if emotion is label.emotion else 0),
            tally.weighted_ms + share * duration_ms,
        )
        for emotion, tally, share in zip(EMOTIONS, tallies, label.probabilities, strict=True)
    )
    return anger, happiness, neutral, sadness


def _binned(scores: Scores, at_ms: int, one: Bin) -> tuple[int, tuple[Bin, ...]]:
    """The bins with one more utterance in them, and their width: doubled until the utterance falls into one."""
    bin_ms, bins = scores.bin_ms, scores.bins
    while at_ms // bin_ms >= _BINS:
        bin_ms *= 2
        bins = tuple(_sum(*pair) for pair in zip_longest(bins[::2], bins[1::2], fillvalue=_NO_LABELS))
    index = at_ms // bin_ms
    bins += (_NO_LABELS,) * (index + 1 - len(bins))
    return bin_ms, (*bins[:index], _sum(bins[index], one), *bins[index + 1 :])


def _sum(one: Bin, other: Bin) -> Bin:
    return Bin(one.labels + other.labels, one.points + other.points, one.valence + other.valence)


def _quarter_scores(scores: Scores, duration_ms: int) -> list[float | None]:
    labels, points = [0] * _QUARTERS, [0] * _QUARTERS
    two_calls_ms = max(1, 2 * duration_ms)
    for index, counted in enumerate(scores.bins):
        # the bin's middle is (index + 1/2) * bin_ms; twice that is a whole number
        two_middles_ms = (2 * index + 1) * scores.bin_ms
        quarter = min(_QUARTERS - 1, two_middles_ms * _QUARTERS // two_calls_ms)
        labels[quarter] += counted.labels
        points[quarter] += counted.points
    return [
        _rounded(SCORE_MAX * total / (_POINTS_OF_REPEAT * count), 3) if count else None
        for count, total in zip(labels, points, strict=True)
    ]


def _trend(scores: Scores) -> dict[str, Any] | None:
    """Least squares through the labels, as -5, 0 or +5 at the middles of their bins.

    It is steady unless the fitted line changes by a point over the call and by 1.5 of its standard errors: with few
    labels, chance alone draws steep lines. Repeats do not count here, or a call that stays angry would be worsening.
    """
    bins = [
        ((index + 0.5) * scores.bin_ms / _MS_PER_MIN, counted.labels, SCORE_MAX * counted.valence)
        for index, counted in enumerate(scores.bins)
        if counted.labels
    ]
    n = sum(count for _, count, _ in bins)
    if n < _TREND_MIN_LABELS:
        return None
    mean_min, mean_score = sum(c * t for t, c, _ in bins) / n, sum(s for _, _, s in bins) / n
    spread = sum(c * (t - mean_min) ** 2 for t, c, _ in bins)
    if spread == 0:
        return {"direction": Direction.STEADY.value, "slope_per_min": 0.0}
    slope = sum((t - mean_min) * (s - c * mean_score) for t, c, s in bins) / spread
    squares = sum(SCORE_MAX**2 * tally.count for tally, e in zip(scores.tallies, EMOTIONS, strict=True) if VALENCE[e])
    unexplained = max(0.0, squares - n * mean_score**2 - slope**2 * spread)
    error = (unexplained / (n - 2) / spread) ** 0.5
    change = slope * (bins[-1][0] - bins[0][0])
    is_clear = abs(change) >= _TREND_MIN_CHANGE and abs(slope) >= _TREND_MIN_ERRORS * error
    direction = Direction.STEADY
    if is_clear:
        direction = Direction.IMPROVING if slope > 0 else Direction.WORSENING
    return {"direction": direction.value, "slope_per_min": _rounded(slope, 4)}


def _by_label(values: Sequence[int]) -> dict[str, int]:
    return {emotion.value: value for emotion, value in zip(EMOTIONS, values, strict=True)}


def _shares(values: Sequence[float]) -> dict[str, float]:
    return {emotion.value: _rounded(value, _DIGITS) for emotion, value in zip(EMOTIONS, values, strict=True)}


def _rounded(value: float, digits: int) -> float:
    """Rounded, and never -0.0, so that equal figures have equal text."""
    return round(value, digits) + 0.0
