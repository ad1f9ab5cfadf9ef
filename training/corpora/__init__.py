"""Readers of labelled corpora as distributed, and of your own list: each yields utterances.

Sources of the layouts and names: each corpus' own documentation, as stated in the modules.
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
"""Corpora by the name that `callmood-train prepare` takes."""
