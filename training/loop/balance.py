"""Draws the clips of a pass so that classes, and lists within a class, are equally frequent."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


def groups(labels: Sequence[int], corpora: Sequence[str]) -> list[list[Indices]]:
    """Indices of the clips by label, and within a label by corpus; the two are as long as the clips are many."""
    found: dict[int, dict[str, list[int]]] = {}
    for index, (label, corpus) in enumerate(zip(labels, corpora, strict=True)):
        found.setdefault(label, {}).setdefault(corpus, []).append(index)
    return [[np.array(clips) for clips in of_label.values()] for of_label in found.values()]


def draw(by_label: Sequence[Sequence[Indices]], number: int, rng: np.random.Generator) -> Indices:
    """Draw that many clips in random order: of each label equally many, and within it of each corpus, give or take one.

    A clip comes again only after all others of its label and corpus.
    """
    drawn = []
    for by_corpus, of_label in zip(by_label, _shares(number, len(by_label), rng), strict=True):
        for clips, of_corpus in zip(by_corpus, _shares(of_label, len(by_corpus), rng), strict=True):
            whole, rest = divmod(of_corpus, clips.size)
            drawn += [*(rng.permutation(clips) for _ in range(whole)), rng.permutation(clips)[:rest]]
    return rng.permutation(np.concatenate(drawn))


def _shares(number: int, parts: int, rng: np.random.Generator) -> list[int]:
    """Split a number into parts that differ by at most one."""
    shares = np.full(parts, number // parts)
    shares[rng.permutation(parts)[: number % parts]] += 1
    return [int(share) for share in shares]
