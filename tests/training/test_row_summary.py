"""A row's summary: mean and deviation over folds, the published figure, the verdict."""

import dataclasses

import numpy as np
import pytest

from callmood.schemas.common import EMOTIONS
from callmood.training import config
from callmood.training.evaluate import softmax
from callmood.training.loop.runs import Outcome
from callmood.training.manifest import Item
from callmood.training.results import calibrate, row, slices
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


def test_the_pooled_figures_are_of_each_fold_s_own_calibration_and_threshold():
    """Each is what its name says: without calibration, and of the utterances that get a label."""
    folds = [dataclasses.replace(fold(0.7), temperature=3.0, abstain_below=limit) for limit in (0.0, 1.0)]
    result = row.summarise(row.Claim("m", "p", ""), ["0", "1"], folds)
    for name in ("ece", "nll", "brier", "coverage"):
        assert result["pooled"][name] == pytest.approx(np.mean([one[name] for one in result["folds"]]), abs=1e-3)
    for name in ("ece_uncalibrated", "nll_uncalibrated", "brier_uncalibrated"):
        assert result["pooled"][name] == pytest.approx(result["folds"][0][name], abs=1e-3)
        assert result["pooled"][name] != pytest.approx(result["pooled"][name.removesuffix("_uncalibrated")], abs=1e-3)
    assert (result["pooled"]["coverage"], result["pooled"]["risk"]) == (0.5, 0.3)


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


def test_temperature_and_threshold_are_those_of_the_validation_split():
    """A model that is overconfident on one split only is calibrated on validation, whatever the test split says."""
    labels = np.arange(200) % 4
    wrong = np.where(np.arange(200) % 3, labels, (labels + 1) % 4)
    sure, unsure = 9.0 * np.eye(4)[wrong], 1.0 * np.eye(4)[labels]
    split = fold(1.0).items[:1] * 200
    items, truth = {"valid": split, "test": split}, {"valid": labels, "test": labels}
    for valid, test in ((sure, unsure), (unsure, sure)):
        outcome = Outcome(items=items, logits={"valid": valid, "test": test}, labels=truth, conditions={})
        judged = row.calibrated(outcome, 0.1)
        temperature = calibrate.fit_temperature(valid, labels)
        assert judged.temperature == temperature
        assert judged.abstain_below == calibrate.fit_threshold(softmax(valid, temperature), labels, 0.1)
        assert judged.logits is test


def test_speakers_are_drawn_for_the_intervals():
    """Two speakers of 200 utterances each, one always right, one never: all that two speakers tell is 0 to 1."""
    items = [dataclasses.replace(fold(1.0).items[0], speaker=f"s{i // 200}") for i in range(400)]
    labels = np.arange(400) % 4
    predicted = np.where(np.arange(400) < 200, labels, (labels + 1) % 4)
    assert slices.intervals(items, labels, predicted)["wa"] == (0.0, 1.0)
