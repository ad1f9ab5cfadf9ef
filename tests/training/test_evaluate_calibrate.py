"""Figures of merit, compared with values computed by hand."""

import numpy as np
import pytest

from callmood.training import evaluate
from callmood.training.results import calibrate
from callmood.worker.errors import ConfigurationError

# true class: six of anger, two of happiness, one of neutral, one of sadness
LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 3])
PREDICTED = np.array([0, 0, 0, 0, 0, 1, 1, 0, 2, 2])


def test_the_accuracies_of_a_known_table():
    """WA counts utterances, UA averages recalls, F1 is averaged over classes."""
    counts = evaluate.confusion(LABELS, PREDICTED)
    assert counts.tolist() == [[5, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    assert evaluate.weighted_accuracy(counts) == pytest.approx(7 / 10)
    assert evaluate.unweighted_accuracy(counts) == pytest.approx((5 / 6 + 1 / 2 + 1 + 0) / 4)
    assert evaluate.macro_f1(counts) == pytest.approx((10 / 12 + 2 / 4 + 2 / 3 + 0) / 4)


def test_a_class_that_does_not_occur_has_no_recall():
    """UA averages over the classes that occur."""
    assert evaluate.unweighted_accuracy(evaluate.confusion(np.array([0, 0]), np.array([0, 1]))) == 0.5


def test_the_calibration_error_of_two_bins():
    """ECE weighs each bin's gap between confidence and accuracy by its size."""
    sure, unsure = [0.97, 0.01, 0.01, 0.01], [0.5, 0.3, 0.1, 0.1]
    probabilities = np.array([sure, sure, unsure, unsure])
    error = evaluate.calibration_error(probabilities, np.array([0, 1, 0, 0]))
    assert error == pytest.approx((abs(0.97 - 0.5) * 2 + abs(0.5 - 1.0) * 2) / 4)


def test_the_negative_log_likelihood_is_the_mean_in_nats():
    """NLL is the mean over utterances."""
    probabilities = np.array([[0.5, 0.5, 0, 0], [0.25, 0.75, 0, 0]])
    expected = -(np.log(0.5) + np.log(0.25)) / 2
    assert evaluate.negative_log_likelihood(probabilities, np.array([0, 0])) == pytest.approx(expected)


def drawn(temperature: float) -> tuple[evaluate.Logits, evaluate.Labels]:
    """Logits that are too sure by `temperature`, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=2, size=(4000, 4))
    labels = np.array([rng.choice(4, p=row) for row in evaluate.softmax(logits)])
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(temperature: float):
    """Logits that were scaled get their scale back, and calibration error falls to sampling noise."""
    logits, labels = drawn(temperature)
    fitted = calibrate.fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.08)
    assert evaluate.calibration_error(evaluate.softmax(logits, fitted), labels) < 0.03


@pytest.mark.parametrize("wanted_risk", [0.02, 0.1, 0.2])
def test_the_threshold_keeps_the_risk_and_as_much_as_it_can(wanted_risk: float):
    """At the threshold the risk is kept; the next utterance below it would break it."""
    logits, labels = drawn(1.0)
    probabilities = evaluate.softmax(logits)
    threshold = calibrate.fit_threshold(probabilities, labels, wanted_risk)
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != labels
    assert wrong[confidence >= threshold].mean() <= wanted_risk
    below = confidence[confidence < threshold].max()
    assert wrong[confidence >= below].mean() > wanted_risk


def test_a_model_without_errors_never_abstains():
    """The threshold is zero where all labels together keep the risk."""
    assert calibrate.fit_threshold(np.eye(4) * 0.6 + 0.1, np.arange(4), 0.05) == 0.0


def test_a_risk_that_cannot_be_reached_leaves_the_surest_answer():
    """If even the most confident label is wrong, the threshold is its confidence."""
    probabilities = np.array([[0.9, 0.1, 0, 0], [0.8, 0.2, 0, 0]])
    assert calibrate.fit_threshold(probabilities, np.array([1, 0]), 0.05) == 0.9


def test_coverage_and_risk_count_only_the_labels_that_are_given():
    """An abstained utterance is neither covered nor wrong."""
    logits = np.log(np.array([[0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3], [0.4, 0.3, 0.2, 0.1]]))
    report = evaluate.evaluate(logits, np.array([0, 1]), temperature=1.0, abstain_below=0.5)
    assert (report["coverage"], report["risk"], report["wa"]) == (0.5, 0.0, 0.5)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(broken: float):
    """A model that answers with NaN is not evaluated: the most probable of four NaN is no class."""
    logits = np.zeros((3, 4))
    logits[1, 2] = broken
    with pytest.raises(ConfigurationError, match="logits of 1 of 3 utterances"):
        evaluate.evaluate(logits, np.array([0, 1, 2]), temperature=1.0, abstain_below=0.0)


def test_a_confidence_at_the_threshold_gets_a_label():
    """As in the worker: at equality the label stands, in the report too."""
    logits = np.log(np.array([[0.7, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1]]))
    threshold = float(evaluate.softmax(logits, 1.0).max(axis=1)[0])
    report = evaluate.evaluate(logits, np.array([0, 0]), temperature=1.0, abstain_below=threshold)
    assert report["coverage"] == 0.5
