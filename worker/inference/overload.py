"""Which utterances get no emotion while the model is behind: the later, the longer they may be. Pure.

A model that computes less audio than comes is late with all of it, and later every minute. Without the short
utterances, which say least, it is late with the others up to a limit only: the later, the more is skipped.
"""

from callmood.worker.settings import ModelSettings


def is_skipped(settings: ModelSettings, *, age_s: float, voice_s: float) -> bool:
    """Whether an utterance that waits for a busy model is left out.

    Args:
        settings: from which age on, and below which length at that age.
        age_s: time since its end was recorded, s.
        voice_s: its length, s.
    """
    after_s = settings.skip_after_s
    return 0 < after_s <= age_s and voice_s * after_s < settings.skip_below_s * age_s
