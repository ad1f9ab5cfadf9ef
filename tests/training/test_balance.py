"""Class-balanced sampling: how often a pass draws each class, list and clip."""

from collections import Counter

import pytest

from callmood.training import config
from callmood.training.loop.data import Clip, Plan, Share
from callmood.training.options import TrainConfig
from callmood.worker.errors import ConfigurationError

# 60 clips: a list of 50 that lacks one class, and a list of ten.
HELD = {("large", 0): 40, ("large", 1): 8, ("large", 2): 2, ("small", 0): 1, ("small", 2): 3, ("small", 3): 6}
CLIPS = [Clip(8000, bytes(1600), label, corpus=corpus) for (corpus, label), n in HELD.items() for _ in range(n)]


ALONE = Share()


def passes(balance: str, number: int = 1, *, seed: int = 7, share: Share = ALONE) -> list[int]:
    """Indices of the clips of that many passes, in their order."""
    settings = TrainConfig(
        seed=seed, epochs=1, batch_size=8, train="all", encoder_lr=0.1, head_lr=0.1, bucket_batches=2, balance=balance
    )
    plan = Plan(CLIPS, settings, share)
    return [index for batch in plan.from_step(0, plan.steps_per_pass * number) for _, index in batch]


def test_each_class_is_drawn_equally_often():
    """60 clips of four classes: 15 of each, and none of a class again before all of them were drawn."""
    drawn = passes("classes")
    assert Counter(CLIPS[i].label for i in drawn) == dict.fromkeys(range(4), 15)
    for label in range(4):
        of_clip = Counter(i for i in drawn if CLIPS[i].label == label)
        held = sum(clip.label == label for clip in CLIPS)
        assert len(of_clip) == min(held, 15)
        assert max(of_clip.values()) - min(of_clip.values()) <= 1


def test_each_list_is_drawn_equally_often_within_a_class():
    """Classes stay equal where a list lacks one; within a class, two lists have 15 clips between them, 8 and 7."""
    drawn = Counter((CLIPS[i].corpus, CLIPS[i].label) for i in passes("classes_and_corpora"))
    assert drawn.keys() == HELD.keys()
    assert {label: sum(n for (_, own), n in drawn.items() if own == label) for label in range(4)} == dict.fromkeys(
        range(4), 15
    )
    assert {drawn["large", label] - drawn["small", label] for label in (0, 2)} <= {-1, 1}


def test_without_balance_each_clip_is_drawn_once():
    """The default is a pass over all clips."""
    assert sorted(passes("none")) == list(range(60))


@pytest.mark.parametrize("balance", ["classes", "classes_and_corpora"])
def test_draws_depend_on_seed_and_pass_alone(balance: str):
    """The same seed draws the same; another seed and another pass do not; two processes share what one would draw."""
    two = passes(balance, 2)
    assert two == passes(balance, 2)
    assert two[:60] != two[60:]
    assert two[:60] != passes(balance, seed=8)
    halves = [passes(balance, share=Share(rank, 2)) for rank in range(2)]
    assert Counter(halves[0] + halves[1]) == Counter(two[:60])


def test_classes_are_balanced_in_one_way():
    """Weights in the loss on top of balanced classes would favour rare ones twice, and are refused."""
    with pytest.raises(ConfigurationError, match="use one of them"):
        config.load(config.find("demo_tiny"), ["train.balance='classes'", "loss.class_weights='inverse_frequency'"])
    with pytest.raises(ConfigurationError, match="unknown balance 'all': use none, classes, classes_and_corpora"):
        config.load(config.find("demo_tiny"), ["train.balance='all'"])
