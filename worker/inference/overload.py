"""Which utterances get no emotion while the model is behind: the later, the longer they may be, up to a limit. Pure.

A model that computes less audio than comes is late with all of it, and later every minute. Without the short
utterances, which say least, it is less late with the others.
"""

from typing import Final

from callmood.worker.settings import ModelSettings

MOST_TIMES: Final = 3.0
"""An utterance so many times as long as `skip_below_s` is never skipped."""


def is_skipped(settings: ModelSettings, *, age_s: float, voice_s: float) -> bool:
    """Whether an utterance that waits for a busy model is left out.

    Args:
        settings: from which age on, and below which length at that age.
        age_s: time since its end was recorded, s.
        voice_s: its length, s.
    """
    after_s = settings.skip_after_s
    return 0 < after_s <= age_s and voice_s < settings.skip_below_s * min(age_s / after_s, MOST_TIMES)
