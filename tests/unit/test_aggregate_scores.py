"""Labels in; counts, scores, trend and streak out."""

import pytest

from callmood.schemas.common import EMOTIONS, Emotion
from callmood.worker.call import scores
from callmood.worker.records import Prediction

_SURE = {emotion: Prediction(tuple(0.7 if other is emotion else 0.1 for other in EMOTIONS)) for emotion in EMOTIONS}
_LETTERS = {"a": Emotion.ANGER, "h": Emotion.HAPPINESS, "n": Emotion.NEUTRAL, "s": Emotion.SADNESS}


def _said(letters, *, step_ms=10_000, length_ms=4_000):
    """One utterance per letter, one every `step_ms`; a dot abstains."""
    emotion = scores.Scores()
    for number, letter in enumerate(letters):
        prediction = _SURE[_LETTERS[letter]] if letter != "." else Prediction((0.25,) * 4, "low_confidence")
        emotion = scores.add(emotion, number * step_ms, number * step_ms + length_ms, prediction)
    return emotion


def _quarters(letters, step_ms=10_000):
    summary = scores.summary(_said(letters, step_ms=step_ms), len(letters) * step_ms)
    return list(summary["quarter_scores"].values())


@pytest.mark.parametrize(
    ("letters", "score"),
    [("n", 0), ("a", -3.333), ("h", 3.333), ("ah", 0), ("aa", -4.167), ("as", -4.167), ("aaaaaaaa", -4.792)],
)
def test_a_run_weighs_more_than_single_labels(letters, score):
    """One negative label scores -3.333; an unbroken run of negative labels tends to -5, whichever they are."""
    quarters = scores.summary(_said(letters), 4 * 10**6)["quarter_scores"]
    assert quarters == {"q1": score, "q2": None, "q3": None, "q4": None}


def test_the_worked_example_of_the_documentation():
    """The figures of the example in docs/aggregates.md."""
    summary = scores.summary(_said("nnaasnhh"), 80_000)
    assert list(summary["quarter_scores"].values()) == [0.0, -4.167, -2.5, 4.167]
    assert summary["overall_score"] == -0.625
    assert summary["streak"] == {"label": "happiness", "count": 2}
    assert summary["trend"] == {"direction": "improving", "slope_per_min": 5.3571}


def test_quarters_are_quarters_of_the_call_not_of_the_labels():
    """An utterance belongs to the quarter of the call that its middle lies in."""
    assert _quarters("hnna") == [3.333, 0.0, 0.0, -3.333]
    assert scores.summary(_said("h"), 4_000)["quarter_scores"]["q3"] == 3.333


def test_a_bin_belongs_to_the_quarter_of_its_middle():
    """An utterance just behind a quarter's border is not drawn before it by the start of its bin."""
    emotion = scores.add(scores.Scores(), 100, 500, _SURE[Emotion.ANGER])
    assert scores.summary(emotion, 1_100)["quarter_scores"] == {"q1": None, "q2": -3.333, "q3": None, "q4": None}


@pytest.mark.parametrize("length_ms", [16_000, 16_250, 10**9])
def test_there_are_never_more_than_64_bins(length_ms):
    """However long the call, the newest utterance fits into the bins."""
    emotion = scores.add(
        scores.add(scores.Scores(), 0, 2, _SURE[_LETTERS["a"]]), length_ms, length_ms, _SURE[_LETTERS["h"]]
    )
    assert len(emotion.bins) <= 64
    assert sum(counted.labels for counted in emotion.bins) == 2


@pytest.mark.parametrize("step_ms", [100, 10_000, 1_000_000])
def test_quarters_hold_for_calls_of_any_length(step_ms):
    """A call of seconds, of minutes and of days has the same quarter scores."""
    emotion = _said("hhhh" * 8 + "nnnn" * 8 + "aaaa" * 8 + "ssss" * 8, step_ms=step_ms, length_ms=step_ms // 2)
    summary = scores.summary(emotion, 128 * step_ms)
    assert list(summary["quarter_scores"].values()) == pytest.approx([5, 0, -5, -5], abs=0.3)


def test_an_abstained_utterance_is_counted_and_moves_nothing_else():
    """The model's doubt changes no label, score, streak or mean, and neither does a failed inference."""
    with_doubt, without = _said("aa.a"), _said("aa")
    with_doubt = scores.add(_said("aa"), 20_000, 24_000, Prediction(None, "inference_failed"))
    after, before = scores.summary(with_doubt, 30_000), scores.summary(without, 30_000)
    assert (after.pop("abstained"), before.pop("abstained")) == (1, 0)
    assert (after.pop("utterances"), before.pop("utterances")) == (3, 2)
    assert after == before


def test_doubt_does_not_break_a_streak():
    """A streak goes on after an utterance that the model abstained from."""
    assert scores.summary(_said("aa.a"), 40_000)["streak"] == {"label": "anger", "count": 3}


def test_another_negative_label_begins_a_new_streak():
    """A streak is of equal labels, not of equal valence."""
    assert scores.summary(_said("aas"), 30_000)["streak"] == {"label": "sadness", "count": 1}


def test_probabilities_are_weighted_by_duration():
    """A long utterance counts more than a short one in the mean probabilities."""
    emotion = scores.add(scores.Scores(), 0, 3_000, Prediction((1.0, 0.0, 0.0, 0.0)))
    emotion = scores.add(emotion, 5_000, 6_000, Prediction((0.0, 0.0, 1.0, 0.0)))
    summary = scores.summary(emotion, 6_000)
    assert summary["probabilities"] == {"anger": 0.75, "happiness": 0.0, "neutral": 0.25, "sadness": 0.0}
    assert summary["durations_ms"] == {"anger": 3_000, "happiness": 0, "neutral": 1_000, "sadness": 0}


@pytest.mark.parametrize(
    ("letters", "direction"),
    [("hhnnaa", "worsening"), ("aannhh", "improving"), ("nnnn", "steady"), ("ahahahah", "steady"), ("aaaa", "steady")],
)
def test_the_trend_has_a_direction_only_when_the_labels_have_one(letters, direction):
    """A clear change has a direction; labels that go up and down, or stay, are steady."""
    assert scores.summary(_said(letters), 100_000)["trend"]["direction"] == direction


def test_a_steep_line_through_few_labels_is_steady():
    """Four labels that chance alone could line up so have a slope, and no direction: their errors are large."""
    assert scores.summary(_said("aahn"), 40_000)["trend"] == {"direction": "steady", "slope_per_min": 15.0}


def test_three_labels_make_no_trend():
    """The trend is unknown before the fourth label."""
    assert scores.summary(_said("aah"), 30_000)["trend"] is None


def test_the_slope_is_in_points_per_minute():
    """From -5 to 5 in a minute with zeros between: the fitted line rises 8 points per minute."""
    emotion = _said("annnh", step_ms=15_000)
    assert scores.summary(emotion, 80_000)["trend"]["slope_per_min"] == pytest.approx(8)


def test_nothing_labelled_is_null_not_zero():
    """Without a standing label there are no scores, probabilities, trend, streak or last label."""
    summary = scores.summary(_said("."), 10_000)
    assert set(summary["quarter_scores"].values()) == {None}
    rest = ("probabilities", "overall_score", "trend", "streak", "last")
    assert [summary[name] for name in rest] == [None] * len(rest)


def test_a_line_within_its_error_is_no_trend():
    """The error of a slope through n labels has n - 2 degrees of freedom; with n, these labels would be a trend."""
    assert scores.summary(_said("aahah"), 50_000)["trend"] == {"direction": "steady", "slope_per_min": 12.0}
