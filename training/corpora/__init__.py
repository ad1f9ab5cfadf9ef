"""Labelled corpora of others, and your own: each as it is distributed, to one list of utterances.

Sources of the layouts and names: each corpus' own documentation, as told in the modules.
"""

from collections.abc import Mapping
from typing import Final

from callmood.training.corpora import acted, iemocap, meld, own, podcast
from callmood.training.corpora.found import Corpus

CORPORA: Final[Mapping[str, Corpus]] = {
    corpus.name: corpus
    for corpus in (
        iemocap.CORPUS,
        acted.CREMA_D,
        acted.RAVDESS,
        acted.EMODB,
        acted.SAVEE,
        acted.TESS,
        podcast.CORPUS,
        meld.CORPUS,
        own.CORPUS,
    )
}
"""By name, as `callmood-train prepare` takes it."""
