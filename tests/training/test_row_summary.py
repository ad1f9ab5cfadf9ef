"""A row's summary: mean and deviation over folds, the published figure, the verdict."""

import numpy as np
import pytest

from callmood.schemas.common import EMOTIONS
from callmood.training import config
from callmood.training.manifest import Item
from callmood.training.results import row
from callmood.training.results.row import EvaluatedFold

SETTINGS = config.load(config.find("PF-hbt-large"))


def fold(accuracy: float, count: int = 40) -> EvaluatedFold:
    """A test split on which that share is right; of two speakers."""
    labels = np.arange(count) % 4
    predicted = np.where(np.arange(count) < round(accuracy * count), labels, (labels + 1) % 4)
    items = [
        Item(str(i), "", "iemocap", f"s{i % 2}", "en", EMOTIONS[labels[i]], "test", 1.0 + i / 5, gender="FM"[i % 2])
        for i in range(count)
    ]
    return EvaluatedFold(items, 3.0 * np.eye(4)[predicted], labels, 1.0, 0.0, {})


def summary(*accuracies: float, protocol: str = "sd_random") -> dict:
    names = [str(i) for i in range(len(accuracies))]
    claim = row.Claim("PF-hbt-large", protocol, "", SETTINGS.row.published.get(protocol), SETTINGS.row.band)
    return row.summarise(claim, names, [fold(accuracy) for accuracy in accuracies])


def test_the_mean_and_the_deviation_are_over_folds():
    """WA is the mean of the folds' accuracies, the deviation that of a sample."""
    result = summary(0.7, 0.8, 0.9)
    assert (result["wa"], result["wa_std"], result["published"]) == (80.0, 10.0, 79.58)
    assert result["pooled"]["wa"] == pytest.approx(0.8)
    assert [one["wa"] for one in result["folds"]] == [0.7, 0.8, 0.9]


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.8, 0.8), "reproduced (within 78.08 to 81.08)"),
        ((0.7, 0.7), "below the band of 78.08 to 81.08"),
        ((0.9, 0.9), "above the band of 78.08 to 81.08"),
    ],
)
def test_the_verdict_is_about_the_band(accuracies: tuple[float, ...], verdict: str):
    """Within 1.5 points of the published mean a row is reproduced; otherwise the verdict names the side."""
    result = summary(*accuracies)
    assert result["verdict"] == verdict
    assert row.line(result).endswith(f"2 folds; published 79.58; {verdict}")


def test_a_protocol_without_a_figure_has_no_verdict():
    """Where nothing was published, nothing is claimed."""
    assert summary(0.8, 0.8, protocol="loso_session_strict")["verdict"] == "no published figure"


def test_slices_and_intervals_are_of_all_test_utterances():
    """Slices by gender and duration cover all utterances; the interval holds the figure."""
    result = summary(0.6, 0.9)
    assert set(result["slices"]) == {"gender", "duration"}
    for kinds in result["slices"].values():
        assert sum(one["utterances"] for one in kinds.values()) == 80
    low, high = result["pooled"]["intervals"]["wa"]
    assert low <= result["pooled"]["wa"] <= high
