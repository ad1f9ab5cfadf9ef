"""Words that every schema shares: roles, encodings, events, emotions."""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """Who speaks on a channel. Explicit in every record, never guessed from the call's direction."""

    CUSTOMER = "customer"
    AGENT = "agent"
    IVR = "ivr"
    MIXED = "mixed"
    UNKNOWN = "unknown"


class Encoding(StrEnum):
    """Sample encoding of an audio record's value."""

    PCMU = "pcmu"
    PCMA = "pcma"
    S16LE = "s16le"
    S16BE = "s16be"

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of one sample of one channel."""
        return 1 if self in (Encoding.PCMU, Encoding.PCMA) else 2


class Event(StrEnum):
    """What a record of a call means."""

    MEDIA = "media"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    GAP = "gap"
    END = "end"


class Notice(StrEnum):
    """Whether the caller was told that emotion is inferred."""

    GIVEN = "given"
    NOT_GIVEN = "not_given"


class Emotion(StrEnum):
    """The four classes of the model, in the order of every probability vector in this project."""

    ANGER = "anger"
    HAPPINESS = "happiness"
    NEUTRAL = "neutral"
    SADNESS = "sadness"


EMOTIONS: Final = tuple(Emotion)
RATES_HZ: Final = (8000, 16000, 48000)
