"""Protocols: which utterances train, validate and test."""

import dataclasses
import time
from collections import Counter

import numpy as np
import pytest

from callmood.schemas.common import EMOTIONS
from callmood.training import manifest, protocols
from callmood.training.manifest import Item
from callmood.training.results import slices
from callmood.worker.errors import ConfigurationError


def corpus(name: str = "iemocap", sessions: int = 5, per_speaker: int = 8) -> list[Item]:
    """Two speakers a session."""
    return [
        Item(
            f"{session}{gender}{i}",
            f"{name}/{session}{gender}{i}.wav",
            name,
            f"Ses{session:02d}{gender}",
            "en",
            EMOTIONS[i % 4],
            "",
            1.0,
            gender=gender,
            session=f"{session:02d}",
        )
        for session in range(1, sessions + 1)
        for gender in "FM"
        for i in range(per_speaker)
    ]


def people(fold: protocols.Fold, split: str) -> set[str]:
    """Speakers of a split."""
    return {item.speaker for item in fold.items if item.split == split}


def test_random_splits_are_80_10_10_and_five():
    """Five seeds, all different, each a partition of all utterances in the paper's shares."""
    made = protocols.folds("sd_random", corpus(), 1)
    assert [Counter(item.split for item in fold.items) for fold in made] == [{"train": 64, "valid": 8, "test": 8}] * 5
    tests = [{item.id for item in fold.items if item.split == "test"} for fold in made]
    assert len({frozenset(test) for test in tests}) == 5
    assert len({fold.seed for fold in made}) == 5


def test_random_splits_of_iemocap_have_the_published_sizes():
    """5,531 utterances become 4,424, 553 and 554."""
    items = [Item(str(i), "", "iemocap", "s", "en", EMOTIONS[i % 4], "", 1.0) for i in range(5531)]
    counts = Counter(item.split for item in protocols.folds("sd_random", items, 1)[0].items)
    assert counts == {"train": 4424, "valid": 553, "test": 554}


def test_leaving_one_speaker_out_validates_on_the_partner():
    """Ten folds; the other speaker of the session validates, the other four sessions train."""
    made = protocols.folds("loso_speaker", corpus(), 1)
    assert len(made) == 10
    for fold in made:
        (test,), (valid,) = people(fold, "test"), people(fold, "valid")
        assert (test[:5], len({test, valid})) == (valid[:5], 2)
        assert len(people(fold, "train")) == 8
    assert {next(iter(people(fold, "test"))) for fold in made} == {item.speaker for item in corpus()}


def test_leaving_one_session_out_shares_speakers_between_training_and_validation_alone():
    """SUPERB's five folds: a random fifth of the other sessions validates; no test speaker is in training."""
    for fold in protocols.folds("loso_session", corpus(), 1):
        counts = Counter(item.split for item in fold.items)
        assert counts == {"train": 51, "valid": 13, "test": 16}
        assert not people(fold, "test") & (people(fold, "train") | people(fold, "valid"))
        assert people(fold, "valid") & people(fold, "train")


def test_the_strict_protocol_shares_nobody():
    """Five folds of 3, 1 and 1 sessions; each session tests once and validates once."""
    made = protocols.folds("loso_session_strict", corpus(), 1)
    for fold in made:
        assert [len(people(fold, split)) for split in manifest.SPLITS] == [6, 2, 2]
        manifest.refuse_shared_speakers(fold.items)
    assert Counter(speaker for fold in made for speaker in people(fold, "valid")) == {
        item.speaker: 1 for item in corpus()
    }


def test_cross_corpus_tests_each_corpus_on_all_others():
    """Every corpus is a test once, whole; equal names of speakers in two corpora are two people."""
    items = corpus("one") + corpus("two") + corpus("three")
    made = protocols.folds("cross_corpus", items, 1)
    assert [fold.name for fold in made] == ["test-one", "test-three", "test-two"]
    for fold in made:
        tested = {item.corpus for item in fold.items if item.split == "test"}
        assert len(tested) == 1
        assert sum(item.split == "test" for item in fold.items) == len(corpus())


def test_folds_repeat_themselves():
    """The same seed gives the same folds; another one gives others where chance decides."""
    for name in ("sd_random", "loso_session"):
        first, second, other = (protocols.folds(name, corpus(), seed) for seed in (1, 1, 9))
        assert first == second
        assert [fold.items for fold in first] != [fold.items for fold in other]


def test_speakers_are_dealt_out_whole():
    """Dealing out by speaker gives three splits near 80, 10 and 10 % without a common speaker, for any seed."""
    items = corpus(sessions=20)
    for seed in range(20):
        dealt = protocols.by_speaker(items, seed)
        manifest.refuse_shared_speakers(dealt)
        counts = Counter(item.split for item in dealt)
        assert set(counts) == set(manifest.SPLITS)
        assert 0.7 < counts["train"] / len(items) < 0.9


@pytest.mark.parametrize(
    ("name", "items", "message"),
    [
        ("loso", corpus(), "unknown protocol 'loso': use sd_random"),
        ("cross_corpus", corpus(), "several corpora"),
        ("loso_session", [*corpus(), Item("x", "", "iemocap", "s", "en", EMOTIONS[0], "", 1.0)], "no sessions"),
        ("loso_session_strict", corpus(sessions=2), "no sessions"),
        ("given", corpus(), "80 items state no split"),
        ("loso_speaker", corpus(sessions=1), "no items for train"),
    ],
)
def test_what_a_protocol_cannot_do_is_refused(name: str, items: list[Item], message: str):
    """A protocol that the corpus does not fit is an error that names what is missing."""
    with pytest.raises(ConfigurationError, match=message):
        protocols.folds(name, items, 1)


def test_a_speaker_in_two_sessions_is_a_leak():
    """A speaker of the test session who is in training under another session is refused, also by SUPERB's protocol."""
    leaking = [*corpus(), Item("x", "", "iemocap", "Ses01F", "en", EMOTIONS[0], "", 1.0, session="02")]
    for name in ("loso_session", "loso_session_strict"):
        with pytest.raises(ConfigurationError, match="speaker Ses01F"):
            protocols.folds(name, leaking, 1)


def test_given_splits_may_share_speakers_only_where_that_is_said():
    """A speaker in two given splits is an error, but not for `given_shared`."""
    items = [Item(split, "", "meld", "Ross", "en", EMOTIONS[0], split, 1.0) for split in manifest.SPLITS]
    with pytest.raises(ConfigurationError, match="Ross"):
        protocols.folds("given", items, 1)
    assert len(protocols.folds("given_shared", items, 1)) == 1


def test_a_speaker_of_most_utterances_trains():
    """A speaker with more than a tenth of the utterances is not dealt to validation or test while others are there."""
    agent = [Item(f"a{i}", "", "own", "agent", "en", EMOTIONS[i % 4], "", 1.0) for i in range(700)]
    others = [Item(f"o{i}", "", "own", f"s{i // 10}", "en", EMOTIONS[i % 4], "", 1.0) for i in range(300)]
    for seed in range(10):
        dealt = protocols.by_speaker(agent + others, seed)
        assert {item.split for item in dealt[:700]} == {"train"}
        assert {item.split for item in dealt} == set(manifest.SPLITS)


def test_time_grows_with_utterances_and_not_with_speakers_times_utterances():
    """100,000 utterances of 50,000 speakers are dealt out and judged in seconds."""
    items = [
        Item(str(i), "", "own", f"s{i // 2}", "en", EMOTIONS[i % 4], "", 1.0, session=str(i // 2))
        for i in range(100_000)
    ]
    labels = np.arange(len(items)) % 4
    started_s = time.process_time()
    counts = Counter(item.split for item in protocols.by_speaker(items, 1))
    found = slices.intervals(items, labels, np.zeros_like(labels))
    assert slices.slices(items, labels, labels) == {}  # 50,000 sessions are no table
    assert time.process_time() - started_s < 20
    assert counts["train"] == pytest.approx(80_000, rel=0.01)
    assert found["wa"][0] < 0.25 < found["wa"][1]


def test_speakers_of_two_corpora_with_one_name_are_two():
    """Speaker 1 of one corpus is not speaker 1 of another, in each protocol that deals speakers."""
    items = [
        Item(f"{name}{i}", "", name, str(i % 10), "en", EMOTIONS[i % 4], "", 1.0)
        for name in ("one", "two", "three")
        for i in range(200)
    ]
    for fold in protocols.folds("cross_corpus", items, 1):
        splits = {item.person: item.split for item in fold.items}
        assert all(item.split == splits[item.person] for item in fold.items)
        by_name = {}
        for item in fold.items:
            if item.split != "test":
                by_name.setdefault(item.speaker, set()).add(item.split)
        assert any(len(found) == 2 for found in by_name.values())
    dealt = {(item.person, item.split) for item in protocols.by_speaker(items, 1)}
    assert len(dealt) == 30
    assert any(len({split for person, split in dealt if person[1] == name}) > 1 for name in map(str, range(10)))


@pytest.mark.parametrize("seed", range(3))
def test_folds_of_speakers_have_equal_shares_of_each_label(seed: int):
    """Each utterance tests once, no speaker is in two splits, and each fold has close to a fifth of each label."""
    rng = np.random.default_rng(seed)
    items = [
        dataclasses.replace(item, id=f"{call}-{item.id}", speaker=f"caller-{call}", session="", label=EMOTIONS[label])
        for call in range(60)
        for item, label in zip(
            corpus(), rng.choice(4, size=rng.integers(1, 15), p=[0.1, 0.05, 0.7, 0.15]), strict=False
        )
    ]
    folds = protocols.folds("speaker_folds", items, seed)
    tested = [item for fold in folds for item in fold.items if item.split == "test"]
    assert sorted(item.id for item in tested) == sorted(item.id for item in items)
    of_all = Counter(item.label for item in items)
    for fold in folds:
        splits = [people(fold, split) for split in manifest.SPLITS]
        assert len(set.union(*splits)) == sum(map(len, splits)) == 60
        of_fold = Counter(item.label for item in fold.items if item.split == "test")
        assert all(abs(of_fold[label] - of_all[label] / 5) <= 2 for label in EMOTIONS), of_fold
        assert {item.split for item in fold.items} == set(manifest.SPLITS)


def test_folds_of_speakers_are_as_many_as_speakers_allow():
    """Three speakers make three folds, whatever the order of the list; two are refused."""
    items = [item for item in corpus() if item.speaker in ("Ses01F", "Ses01M", "Ses02F")]
    folds = protocols.folds("speaker_folds", items, seed=0)
    assert [len(people(fold, "test")) for fold in folds] == [1, 1, 1]
    backwards = protocols.folds("speaker_folds", items[::-1], seed=0)
    assert [people(fold, "test") for fold in backwards] == [people(fold, "test") for fold in folds]
    with pytest.raises(ConfigurationError, match="no items for train"):
        protocols.folds("speaker_folds", items[:16], seed=0)


@pytest.mark.parametrize("name", ["loso_speaker", "loso_session", "loso_session_strict"])
def test_a_model_for_each_of_many_speakers_is_refused(name: str):
    """Nobody trains thousands of models: the error names the protocol for many speakers, before a fold is made."""
    names = [str(speaker) for speaker in range(300)]
    items = [manifest.Item(one, "", "own", one, "", EMOTIONS[0], "", 1.0, session=one) for one in names]
    with pytest.raises(ConfigurationError, match="trains 300 models, one for each part left out: use speaker_folds"):
        protocols.folds(name, items, 1)
