"""Protocols: how published work splits a corpus into train, valid and test. Items in, folds out.

A speaker in two splits is an error, unless the protocol allows it.
"""

import dataclasses
import enum
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from callmood.schemas.common import EMOTIONS
from callmood.training import manifest
from callmood.training.manifest import Item
from callmood.worker.errors import ConfigurationError

SEEDS: Final = 5
_TRAIN, _VALID = 0.8, 0.1
_DEV: Final = 0.2  # SUPERB's
_FOLDS: Final = 5
_MOST_MODELS: Final = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Fold:
    """One split of the corpus, and the seed of its training."""

    name: str
    items: Sequence[Item]
    seed: int


class Shared(enum.Enum):
    """Which splits may have speakers in common."""

    NONE = enum.auto()
    TRAIN_AND_VALID = enum.auto()
    ALL = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Protocol:
    """How folds are made, and which of their splits may share speakers."""

    folds: Callable[[Sequence[Item], int], Iterator[Fold]]
    shared: Shared
    summary: str


def folds(name: str, items: Sequence[Item], seed: int) -> list[Fold]:
    """The folds of a protocol.

    Raises:
        ConfigurationError: the protocol is unknown, the corpus lacks what it needs, a split is empty, or a speaker is
            in two splits.
    """
    if name not in PROTOCOLS:
        raise ConfigurationError(f"unknown protocol {name!r}: use {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    made = list(protocol.folds(items, seed))
    for fold in made:
        manifest.refuse_empty_splits(fold.items, f"{name}, {fold.name}")
        if protocol.shared is Shared.NONE:
            manifest.refuse_shared_speakers(fold.items)
        elif protocol.shared is Shared.TRAIN_AND_VALID:
            seen = (dataclasses.replace(item, split="train") if item.split == "valid" else item for item in fold.items)
            manifest.refuse_shared_speakers(seen)
    return made


def by_speaker(items: Sequence[Item], seed: int) -> list[Item]:
    """Assign speakers to train, valid and test, about 80, 10 and 10 % of the utterances.

    A speaker with a split keeps it, for all their utterances. The others fill the splits that no item states; what is
    left trains. Speakers of more than a tenth of the utterances train, as long as enough others are there.

    Raises:
        ConfigurationError: there are too few speakers, or one has two splits.
    """
    stated = [item for item in items if item.split]
    manifest.refuse_shared_speakers(stated)
    split_of = {item.person: item.split for item in stated}
    missing = [split for split in manifest.SPLITS if split not in split_of.values()]
    counts = Counter(item.person for item in items)
    free = sorted(counts.keys() - split_of.keys())
    if len(free) < len(missing):
        raise ConfigurationError(f"{len(free)} speakers are too few for {', '.join(missing)}")
    order = [free[i] for i in np.random.default_rng(seed).permutation(len(free))]
    room = (1 - _TRAIN - _VALID) * len(items)
    order.sort(key=lambda person: counts[person] <= room)  # stable: the largest are assigned last
    kept = len(missing)
    for split in ("test", "valid"):
        taken = 0
        while split in missing and (not taken or (taken < room and len(order) > kept)):
            person = order.pop()
            split_of[person] = split
            taken += counts[person]
    return [dataclasses.replace(item, split=split_of.get(item.person, "train")) for item in items]


def _sd_random(items: Sequence[Item], seed: int) -> Iterator[Fold]:
    for number in range(SEEDS):
        order = np.random.default_rng((seed, number)).permutation(len(items))
        train, valid = int(len(items) * _TRAIN), int(len(items) * _VALID)
        split_of = np.full(len(items), "test", dtype=object)
        split_of[order[:train]] = "train"
        split_of[order[train : train + valid]] = "valid"
        yield _fold(f"seed-{number + 1}", items, list(split_of), seed + number)


def _loso_speaker(items: Sequence[Item], seed: int) -> Iterator[Fold]:
    """The partner in the same session validates; in a session of one or of several, the next speaker does."""
    people = sorted({item.person for item in items})
    _refuse_many("loso_speaker", len(people))
    several = len({corpus for corpus, _ in people}) > 1
    session_of = {item.person: item.session for item in items}
    sessions: dict[str, list[tuple[str, str]]] = {}
    for person in people:
        sessions.setdefault(session_of[person], []).append(person)
    for index, person in enumerate(people):
        session = sessions[session_of[person]]
        valid = people[(index + 1) % len(people)]
        if len(session) == 2 and session_of[person]:  # noqa: PLR2004 - a pair
            valid = session[0] if session[1] == person else session[1]
        splits = [{person: "test", valid: "valid"}.get(item.person, "train") for item in items]
        yield _fold("-".join(["test", *(person if several else person[1:])]), items, splits, seed)


def _loso_session(items: Sequence[Item], seed: int) -> Iterator[Fold]:
    for session in _sessions(items):
        inside = [i for i, item in enumerate(items) if item.session != session]
        order = np.random.default_rng(seed).permutation(len(inside))
        valid = {inside[i] for i in order[: round(len(inside) * _DEV)]}
        splits = [
            "test" if item.session == session else "valid" if i in valid else "train" for i, item in enumerate(items)
        ]
        yield _fold(f"test-session-{session}", items, splits, seed)


def _loso_session_strict(items: Sequence[Item], seed: int) -> Iterator[Fold]:
    sessions = _sessions(items)
    for index, session in enumerate(sessions):
        valid = sessions[(index + 1) % len(sessions)]
        splits = [{session: "test", valid: "valid"}.get(item.session, "train") for item in items]
        yield _fold(f"test-session-{session}", items, splits, seed)


def _speaker_folds(items: Sequence[Item], seed: int) -> Iterator[Fold]:
    """Each group of speakers tests once, and the next one validates; fewer speakers than folds test alone."""
    group_of = _groups(items, seed)
    number = max(group_of.values()) + 1
    for tested in range(number):
        split_of = {(tested + 1) % number: "valid", tested: "test"}
        splits = [split_of.get(group_of[item.person], "train") for item in items]
        yield _fold(f"fold-{tested + 1}", items, splits, seed)


def _groups(items: Sequence[Item], seed: int) -> dict[tuple[str, str], int]:
    """Assign speakers to `_FOLDS` groups that have about the same number of utterances of each label.

    Speakers with most utterances are assigned first, each to the group that has fewest of their labels. This keeps the
    sum of squares of the groups' counts small.
    """
    people = sorted({item.person for item in items})
    people = [people[i] for i in np.random.default_rng(seed).permutation(len(people))]
    index = {person: i for i, person in enumerate(people)}
    counts = np.zeros((len(people), len(EMOTIONS) + 1))  # of each label, and of all
    for item in items:
        counts[index[item.person], [EMOTIONS.index(item.label), -1]] += 1
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    held = np.zeros((min(_FOLDS, len(people)), counts.shape[1]))
    group_of = {}
    for i in np.argsort(-counts[:, -1], kind="stable"):
        group = int(np.argmin(held @ shares[i]))
        held[group] += shares[i]
        group_of[people[i]] = group
    return group_of


def _cross_corpus(items: Sequence[Item], seed: int) -> Iterator[Fold]:
    """Each corpus tests what was trained on all others, some speakers of which validate."""
    corpora = sorted({item.corpus for item in items})
    if len(corpora) == 1:
        raise ConfigurationError(
            "cross_corpus needs several corpora: give --data more than once; own lists need a name (`prepare --name`)"
        )
    for corpus in corpora:
        people = sorted({item.person for item in items if item.corpus != corpus})
        order = np.random.default_rng(seed).permutation(len(people))
        valid = {people[i] for i in order[: max(1, round(len(people) * _VALID))]}
        splits = ["test" if item.corpus == corpus else "valid" if item.person in valid else "train" for item in items]
        yield _fold(f"test-{corpus}", items, splits, seed)


def _given(items: Sequence[Item], seed: int) -> Iterator[Fold]:
    if without := sum(not item.split for item in items):
        raise ConfigurationError(f"{without} items state no split: use a protocol that makes one")
    yield Fold("given", items, seed)


def _sessions(items: Sequence[Item]) -> list[str]:
    """Sessions in order."""
    sessions = sorted({item.session for item in items})
    if "" in sessions or len(sessions) < len(manifest.SPLITS):
        raise ConfigurationError("the corpus has no sessions (or folds) to leave out: use loso_speaker")
    _refuse_many("the protocol", len(sessions))
    return sessions


def _refuse_many(name: str, models: int) -> None:
    """Refuse to train more models than anyone waits for; their folds alone would fill the memory."""
    if models > _MOST_MODELS:
        raise ConfigurationError(f"{name} trains {models} models, one for each part left out: use speaker_folds")


def _fold(name: str, items: Sequence[Item], splits: Sequence[str], seed: int) -> Fold:
    return Fold(name, [dataclasses.replace(item, split=split) for item, split in zip(items, splits, strict=True)], seed)


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "sd_random": Protocol(_sd_random, Shared.ALL, "random 80/10/10, five seeds: the paper's speaker-dependent figures"),
    "loso_speaker": Protocol(
        _loso_speaker, Shared.NONE, "leave one speaker out: the paper's speaker-independent figures"
    ),
    "loso_session": Protocol(
        _loso_session, Shared.TRAIN_AND_VALID, "leave one session out, a random fifth of the rest validates: SUPERB"
    ),
    "loso_session_strict": Protocol(_loso_session_strict, Shared.NONE, "leave one session out, another one validates"),
    "speaker_folds": Protocol(
        _speaker_folds,
        Shared.NONE,
        "five folds of speakers with about equal shares of each label",
    ),
    "cross_corpus": Protocol(_cross_corpus, Shared.NONE, "leave one corpus out"),
    "given": Protocol(_given, Shared.NONE, "as the manifest says"),
    "given_shared": Protocol(_given, Shared.ALL, "as the manifest says, speakers shared (MELD)"),
}
