"""Values that schemas share: roles, encodings, events, emotions, reasons. The engine uses them too."""

from enum import StrEnum
from typing import Final, Self


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
    SILENCE = "silence"
    HOLD = "hold"
    UNHOLD = "unhold"
    END = "end"


class Scope(StrEnum):
    """What an `end` ends."""

    STREAM = "stream"
    CALL = "call"


class Notice(StrEnum):
    """Whether the caller was told that emotion is inferred."""

    GIVEN = "given"
    NOT_GIVEN = "not_given"


class Kind(StrEnum):
    """What an utterance is: speech of the person on this channel, or a tone, music, noise, echo or background."""

    SPEECH = "speech"
    NOT_SPEECH = "not_speech"


class LooksLike(StrEnum):
    """What audio probably is instead of what the producer declared."""

    SWAPPED_BYTES = "swapped_bytes"
    PCMU = "pcmu"
    PCMA = "pcma"


class Emotion(StrEnum):
    """The four classes of the model, in the order of every probability vector in this project."""

    ANGER = "anger"
    HAPPINESS = "happiness"
    NEUTRAL = "neutral"
    SADNESS = "sadness"


class _Explained(StrEnum):
    """Published values, each with a sentence for schemas/README.md."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        """The default is for the type checker, to which a look-up by value is a call."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class AbstainReason(_Explained):
    """Why an utterance that the model analysed has no label."""

    LOW_CONFIDENCE = "low_confidence", "The calibrated confidence is below the model's threshold."
    TOO_SHORT = "too_short", "The utterance is too short for the model."
    NOT_FINITE = "not_finite", "The model returned NaN or infinity: the checkpoint or the device is broken."
    INFERENCE_FAILED = "inference_failed", "The model raised an error, which the worker has logged."
    OUT_OF_MEMORY = "out_of_memory", "The utterance did not fit into the device's memory, even in a batch of its own."
    OTHER_SOUND = "other_sound", "Between the first and the last word, most of the utterance is not speech."


class WithheldReason(_Explained):
    """Why an utterance is kept from the model."""

    ROLE_CUSTOMER = "policy:role_customer", "`customer` is not among the roles whose emotion may be inferred."
    ROLE_AGENT = "policy:role_agent", "`agent` is not among the roles whose emotion may be inferred."
    ROLE_IVR = "policy:role_ivr", "`ivr` is not among the roles whose emotion may be inferred."
    ROLE_MIXED = "policy:role_mixed", "`mixed` is not among the roles whose emotion may be inferred."
    ROLE_UNKNOWN = "policy:role_unknown", "`unknown` is not among the roles whose emotion may be inferred."
    NO_NOTICE = "policy:no_notice", "Notice is required, and the newest `notice` of the call, if any, is not `given`."
    NOT_SPEECH = "not_speech", "The speech check found no speech: a tone, music or noise."
    ECHO = "echo", "The utterance is an echo of another channel of the stream."
    BACKGROUND = "background", "It is speech in the background: far quieter than the speaker of the channel."
    OVERLOADED = "overloaded", "The model is behind, and the utterance is short (`CALLMOOD_MODEL__SKIP_AFTER_S`)."


class DeadLetterReason(_Explained):
    """Why a record is on the dead-letter topic. Values never change, because operators filter and alert on them."""

    NO_KEY = "no_key", "The record has no call id: its key is empty."
    NO_SCHEMA = "no_schema", "The header `schema` is missing."
    WRONG_SCHEMA = "wrong_schema", "The header `schema` is not `callmood.audio/1`."
    BAD_HEADER = "bad_header", "A header is missing, malformed or has a value that is not allowed."
    BAD_PAYLOAD = "bad_payload", "The value does not fit the input format or the event."
    UNKNOWN_ENCODING = (
        "unknown_encoding",
        "The contract does not have this encoding; the gateway must decode G.722, Opus and others.",
    )
    UNSUPPORTED_RATE = "unsupported_rate", "The contract does not have this sample rate."
    BAD_LAYOUT = "bad_layout", "The layout is not a list of 1 to 8 known roles."
    EMPTY = "empty", "The record has no value, or a media record has no audio."
    TRUNCATED = "truncated", "The bytes are not a whole number of samples of all channels."
    TOO_LONG = (
        "too_long",
        "The record has more bytes than are allowed, or more audio than `CALLMOOD_INPUT__MAX_RECORD_MS`.",
    )
    FORMAT_CHANGED = (
        "format_changed",
        "Encoding, rate or number of channels changed within a stream: a new format needs a new `stream`.",
    )
    SEQ_BACKWARDS = "seq_backwards", "`seq` started again within a stream: a reconnect needs a new `stream`."
    BAD_MEDIA_TIME = "bad_media_time", "`media_ms` is further ahead of the stream than the record's timestamp allows."
    CALL_ENDED = (
        "call_ended",
        "A `start` arrived although the call has just ended by an `end`: use a new id.",
    )
    WORKER_ERROR = "worker_error", "The worker failed on this record because of a bug in the worker: please report it."
    NOT_OURS = "not_ours", "The record is on an output topic, but no worker wrote it."


class Reserved(_Explained):
    """Names of attributes with a fixed meaning. Utterances and alerts carry them too."""

    QUEUE = "queue", "Queue that the call came through."
    AGENT = "agent", "Agent on the call: best an id that is not a name."
    TEAM = "team", "Team of the agent."
    DIRECTION = "direction", "`inbound` or `outbound`."
    CAMPAIGN = "campaign", "Campaign that the call belongs to."
    LANGUAGE = "language", "Language of the call as a BCP 47 tag, for example `de-AT`."
    SKILL = "skill", "Skill that the caller asked for."
    TENANT = "tenant", "Company, where several share an installation."
    RECORDING = "recording", "Id of the recording in the recorder."


EMOTIONS: Final = tuple(Emotion)
RATES_HZ: Final = (8000, 16000, 48000)
