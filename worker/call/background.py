"""Speech in the background of a channel: far quieter than what was said on it shortly before. Pure.

A colleague, a television or a person beside the caller is on the caller's channel, but is not the caller. One channel
has one speaker, so the loudest speech of the last minute is taken for this speaker's. A speaker whose voice has become
so much quieter, for example after a change to a loudspeaker, is heard again after this minute.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from callmood.schemas.common import Role, WithheldReason
from callmood.worker.records import Result

QUIETER_DB: Final = 18
"""Than the loudest speech; bench/RESULTS.md has the errors."""
WINDOW_MS: Final = 60_000
_MOST: Final = 64
"""Channels that are remembered: those that spoke last."""
_MANY_SPEAKERS: Final = (Role.MIXED, Role.UNKNOWN)

Levels = Mapping[str, tuple[tuple[int, int], ...]]
"""Of each channel: end in ms and level in whole dBFS of its loudest speech lately, and of the loudest after each."""


def judge(levels: Levels, result: Result) -> tuple[Levels, Result]:
    """The levels with an utterance, and its result: in the background, it is not the speech of its role.

    Without an answer of the speech check, a tone could be the loudest: then nothing is compared.
    """
    utterance = result.utterance
    if utterance.role in _MANY_SPEAKERS or result.speech is None or not result.is_speech:
        return levels, result
    since_ms, own_dbfs = utterance.start_ms - WINDOW_MS, round(utterance.acoustics.rms_dbfs)
    lately = {name: kept for name, known in levels.items() if (kept := tuple(o for o in known if o[0] >= since_ms))}
    speaker = f"{utterance.stream}/{utterance.channel}"
    known = lately.get(speaker, ())
    if known and known[0][1] - own_dbfs >= QUIETER_DB:
        if utterance.withheld == WithheldReason.OVERLOADED:  # the model's answer would have been dropped, too
            utterance = replace(utterance, withheld=None)
        result = replace(result, utterance=utterance, prediction=None, is_background=True)
    louder = tuple(one for one in known if one[1] > own_dbfs)
    lately[speaker] = (*louder, (utterance.end_ms, own_dbfs))
    if len(lately) > _MOST:
        del lately[min(lately, key=lambda name: lately[name][-1])]
    return lately, result
