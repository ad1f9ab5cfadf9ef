"""Figures of merit, compared with values computed by hand."""

import numpy as np
import pytest
from scipy import stats

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


def drawn(temperature: float, scale: float = 2) -> tuple[evaluate.Logits, evaluate.Labels]:
    """Logits that are too sure by `temperature`, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=scale, size=(4000, 4))
    labels = np.array([rng.choice(4, p=row) for row in evaluate.softmax(logits)])
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(temperature: float):
    """Logits that were scaled get their scale back, and calibration error falls to sampling noise."""
    logits, labels = drawn(temperature)
    fitted = calibrate.fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.08)
    assert evaluate.calibration_error(evaluate.softmax(logits, fitted), labels) < 0.03


@pytest.mark.parametrize("utterances", [60, 300, 1000])
def test_the_risk_is_kept_on_new_utterances(utterances: int):
    """In at most 5 % of validation splits, new labels above the fitted threshold are wrong too often."""
    rng = np.random.default_rng(utterances)
    logits, labels = drawn(1.0, scale=4)
    new = evaluate.softmax(logits)
    wrong = new.argmax(axis=1) != labels
    broken = 0
    for _ in range(200):
        chosen = rng.choice(len(labels), utterances)
        threshold = calibrate.fit_threshold(new[chosen], labels[chosen], 0.1, 0.95)
        given = new.max(axis=1) >= threshold
        broken += bool(given.any() and wrong[given].mean() > 0.1)
    assert broken <= 15  # 5 % of 200 are 10, and chance


def test_more_validation_utterances_give_more_labels():
    """The same model abstains less if more utterances show that it is right."""
    logits, labels = drawn(1.0, scale=4)
    probabilities = evaluate.softmax(logits)
    few, many = (calibrate.fit_threshold(probabilities[:n], labels[:n], 0.1) for n in (300, 4000))
    coverages = [(probabilities.max(axis=1) >= threshold).mean() for threshold in (few, many)]
    assert 0.4 < coverages[0] < coverages[1]


def test_a_model_without_errors_never_abstains():
    """The threshold is zero where enough labels show the risk, also if all have the same confidence."""
    probabilities = np.tile(np.eye(4) * 0.6 + 0.1, (25, 1))
    assert calibrate.fit_threshold(probabilities, np.tile(np.arange(4), 25), 0.05) == 0.0


@pytest.mark.parametrize(
    ("utterances", "wrong", "wanted_risk"), [(28, 0, 0.1), (0, 0, 0.1), (100, 26, 0.1), (100, 0, 0.0)]
)
def test_a_risk_that_cannot_be_shown_leaves_no_label(utterances: int, wrong: int, wanted_risk: float):
    """With too few utterances, too many errors or a risk of 0, the threshold is above every probability."""
    probabilities = np.tile([1.0, 0.0, 0.0, 0.0], (utterances, 1))
    labels = (np.arange(utterances) < wrong).astype(np.int64)
    assert calibrate.fit_threshold(probabilities, labels, wanted_risk) > probabilities.max(initial=1.0)


@pytest.mark.parametrize("risk", [0.01, 0.3])
def test_the_bound_is_the_binomial_distribution(risk: float):
    """The test's probability equals scipy's, for few and for many utterances."""
    for wrong, given in ((0, 1), (3, 29), (250, 4000), (7, 7)):
        expected = stats.binom.cdf(wrong, given, risk)
        assert calibrate._at_most(wrong, given, risk) == pytest.approx(expected, rel=1e-9)


def test_confidences_that_four_digits_cannot_tell_apart_are_labelled_together():
    """A threshold of four digits gives a label to exactly those utterances on which it was fitted."""
    top = np.concatenate([np.full(100, 0.9), np.full(40, 0.73128), np.full(60, 0.73121), np.full(100, 0.5)])
    probabilities = np.stack([top, 1 - top, 0 * top, 0 * top], axis=1)
    labels = np.where(np.arange(300) >= 140, 1, 0)  # all that is below 0.73128 is wrong
    threshold = calibrate.fit_threshold(probabilities, labels, 0.1)
    assert threshold == pytest.approx(0.9)
    assert ((top >= threshold) & (labels == 1)).sum() == 0


def test_a_confidence_at_the_threshold_counts_as_it_is_served():
    """0.29 reaches a threshold of 0.29, although 0.29 * 10,000 is less than 2,900 in binary numbers."""
    values = np.array([number / 10_000 for number in range(2500, 10_000)])
    assert (calibrate._floor(values) == values).all()
    below = np.nextafter(values, 0)
    assert (calibrate._floor(below) < values).all()


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
