"""Which published utterances are chosen for labelling."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest

from callmood.training.production import sample
from callmood.training.production.sample import Rules


def record(number: int, call: int, probabilities=(0.4, 0.3, 0.2, 0.1), **changes: Any) -> dict[str, Any]:
    """An utterance/1 record of a customer."""
    names = ("anger", "happiness", "neutral", "sadness")
    return {
        "schema": "callmood.utterance/1",
        "utterance_id": f"c{call}:0:0:{number}",
        "call_id": f"c{call}",
        "stream": "0",
        "channel": 0,
        "role": "customer",
        "start_ms": 1000,
        "end_ms": 3500,
        "kind": "speech",
        "emotion": {"probabilities": dict(zip(names, probabilities, strict=True))},
        "withheld": None,
        "policy": {"emotion_roles": ["customer"]},
        **changes,
    }


@pytest.fixture
def many() -> list[sample.Candidate]:
    """400 utterances of 100 calls, two calls a customer, from sure to unsure."""
    rng = np.random.default_rng(1)
    records = [record(i, i // 4, rng.dirichlet([1, 1, 1, 1]).tolist()) for i in range(400)]
    records += [
        {
            "schema": "callmood.call/1",
            "call_id": f"c{i}",
            "attributes": {"customer": f"p{i // 2}", "queue": f"q{i % 3}"},
        }
        for i in range(100)
    ]
    return sample.candidates(records, Rules(speaker="customer", queue="queue"))[0]


def test_what_must_not_be_labelled_is_refused_by_reason():
    """Other roles, roles that the policy withholds, erased calls and what is not speech are never candidates."""
    records = [
        record(0, 0),
        record(1, 0, role="agent"),
        record(2, 0, policy={"emotion_roles": []}),
        record(3, 1),
        record(4, 0, kind="not_speech", emotion=None, withheld="not_speech"),
        record(5, 0, emotion=None, withheld="policy:no_notice"),
        record(6, 0, emotion={"probabilities": None, "reason": "too_short"}),
        {"schema": "callmood.utterance/1", "utterance_id": "x"},
        record(0, 0),  # published twice
        {"schema": "callmood.alert/1", "call_id": "c0"},
    ]
    found, refused = sample.candidates(records, Rules(erased=frozenset({"c1"})))
    assert [one.id for one in found] == ["c0:0:0:0"]
    assert refused == {
        "role agent": 1,
        "policy withholds emotion of customer": 1,
        "call is erased": 1,
        "not speech": 1,
        "policy:no_notice": 1,
        "no probabilities": 1,
        "record is incomplete": 1,
    }


def test_an_agent_is_labelled_only_where_policy_and_user_allow_it():
    """A role must be asked for, and be among the roles of the policy under which its record was made."""
    records = [record(i, 0, role="agent", policy={"emotion_roles": roles}) for i, roles in enumerate((["agent"], []))]
    assert sample.candidates(records, Rules())[0] == []
    assert [one.id for one in sample.candidates(records, Rules(roles=("agent",)))[0]] == ["c0:0:0:0"]


def test_a_candidate_has_the_times_and_the_speaker_of_its_call():
    """The margin is that of the two highest probabilities; without an attribute, a call has a speaker of its own."""
    (one,), _ = sample.candidates([record(7, 3)], Rules(speaker="customer"))
    assert (one.start_s, one.end_s, one.speaker, one.queue) == (1.0, 3.5, "c3:customer", "")
    assert one.margin == pytest.approx(0.1)


def test_uncertain_utterances_come_first_and_no_speaker_is_in_both_parts(many):
    """The test is a random part; the rest are the least certain utterances of all other speakers."""
    chosen = sample.choose(many, 100, 0.3, Rules(), seed=1)
    test = [one.candidate for one in chosen if one.split == "test"]
    rest = [one.candidate for one in chosen if one.split == ""]
    assert (len(test), len(rest)) == (30, 70)
    heard = {one.speaker for one in test}
    others = sorted((one for one in many if one.speaker not in heard), key=lambda one: one.margin)
    assert {one.id for one in rest} == {one.id for one in others[:70]}


def test_the_random_part_is_drawn_from_all_alike(many):
    """Certain and uncertain utterances are as likely in the test: its mean margin is that of all, over many seeds."""
    margins = [
        np.mean([one.candidate.margin for one in sample.choose(many, 60, 1.0, Rules(), seed)]) for seed in range(60)
    ]
    everyone = np.array([one.margin for one in many])
    assert np.mean(margins) == pytest.approx(everyone.mean(), abs=3 * everyone.std() / 60)
    assert sample.choose(many, 60, 0.5, Rules(), 3) == sample.choose(many, 60, 0.5, Rules(), 3)


@pytest.mark.parametrize(
    ("limit", "name", "highest"), [("per_speaker", "speaker", 2), ("per_call", "call_id", 1), ("per_queue", "queue", 9)]
)
def test_limits_are_kept_for_the_uncertain_part(many, limit: str, name: str, highest: int):
    """No speaker, call or queue fills the sample: the next uncertain utterances of others are taken."""
    chosen = sample.choose(many, 60, 0.1, Rules(queue="queue", **{limit: highest}), seed=2)
    counts = Counter(getattr(one.candidate, name) for one in chosen if one.split == "")
    assert max(counts.values()) == highest


def test_fewer_candidates_than_wanted_are_all_taken(many):
    """A small pool gives what it has, each utterance once."""
    chosen = sample.choose(many[:10], 50, 0.2, Rules(), seed=1)
    assert len({one.candidate.id for one in chosen}) == len(chosen) <= 10
    assert sum(one.split == "test" for one in chosen) == 10


def test_a_limit_by_queue_needs_the_attribute_of_the_queue(many):
    """Without one, all calls would be of one queue."""
    alone = [dataclasses.replace(one, queue="") for one in many]
    chosen = sample.choose(alone, 60, 0.1, Rules(per_queue=9), seed=2)
    assert sum(one.split == "" for one in chosen) == 54
