"""The values that pass between the stages. Immutable; units are in the names.

Classes with an instance per record are structs of msgspec, or dataclasses that are not frozen: creating a frozen
dataclass takes about ten times as long as creating a struct, and five times as long as one that is not frozen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import msgspec

from callmood.schemas.common import Encoding, Event, LooksLike, Notice, Reserved, Role, Scope, WithheldReason

_RESERVED: Final = frozenset(name.value for name in Reserved)


def reserved(attributes: Mapping[str, str]) -> dict[str, str]:
    """Those with reserved names: what every utterance and alert carries."""
    return {name: text for name, text in attributes.items() if name in _RESERVED}


@dataclass(slots=True, order=True, unsafe_hash=True)
class Position:
    """The address of a record in Kafka."""

    topic: str
    partition: int
    offset: int


@dataclass(slots=True)
class Record:
    """One Kafka record as it was read."""

    position: Position
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    """Kafka allows a header without a value, which `decode` refuses where the worker reads it."""
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How the audio bytes of a chunk are laid out: interleaved channels, one role each.

    `encoding` is never S16BE here: `decode` turns it into S16LE.
    """

    encoding: Encoding
    rate_hz: int
    layout: tuple[Role, ...]
    frame_bytes: int = field(init=False, compare=False, repr=False)
    """Bytes of one sample of all channels."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_bytes", self.encoding.bytes_per_sample * len(self.layout))

    def is_like(self, other: "AudioFormat") -> bool:
        """Whether all but the roles is the same."""
        same = (self.encoding, self.rate_hz, len(self.layout))
        return same == (other.encoding, other.rate_hz, len(other.layout))

    def channel(self, audio: bytes, index: int) -> bytes:
        """One channel of interleaved audio."""
        if len(self.layout) == 1:
            return audio
        if self.encoding.bytes_per_sample == 1:
            return audio[index :: len(self.layout)]
        return memoryview(audio).cast("H")[index :: len(self.layout)].tobytes()


class Chunk(msgspec.Struct):
    """One legal record of a call, whichever input format it came in.

    `audio` holds interleaved samples in `format` (empty unless `event` is MEDIA). `media_ms` is the media time of
    the first sample since the stream's start; None means: right after the previous chunk.
    """

    call_id: str
    stream: str
    seq: int
    event: Event
    position: Position
    capture_ms: int
    media_ms: float | None = None
    format: AudioFormat | None = None
    audio: bytes = b""
    discarded_ms: float = 0.0
    notice: Notice | None = None
    scope: Scope | None = None
    """What an `end` ends; None: its stream, and with the last one the call."""
    has_track: bool = False
    """Whether the last part of the stream's name is a track, of which another stream can bring a copy."""
    attributes: Mapping[str, str] = {}
    traceparent: str | None = None

    @property
    def samples(self) -> int:
        """Samples per channel."""
        return len(self.audio) // self.format.frame_bytes if self.format else 0


class Cut(StrEnum):
    """Why an utterance ended."""

    SILENCE = "silence"
    FORCED = "forced"
    GAP = "gap"
    PAUSE = "pause"
    END = "end"


@dataclass(frozen=True, slots=True)
class Span:
    """A closed stretch of speech on one channel, as the segmenter found it.

    Samples count from the stream's start at the stream's own rate; `decided_sample` is where in the audio the close
    became known. `audio` is the channel's own encoding; `missing_samples` of it were lost and are concealed. Between
    `voiced_start_sample` and `voiced_end_sample` lies the speech itself: without the padding around it, and without
    the time for which the detector prolongs speech.
    """

    start_sample: int
    end_sample: int
    voiced_start_sample: int
    voiced_end_sample: int
    decided_sample: int
    cut: Cut
    missing_samples: int
    audio: bytes


@dataclass(frozen=True, slots=True)
class Unheard:
    """A stretch of the call's time line without audio: paused by the producer, or lost; or on hold, with or without."""

    start_ms: int
    end_ms: int
    is_pause: bool
    is_hold: bool = False


@dataclass(frozen=True, slots=True)
class Acoustics:
    """Measured sound of an utterance: levels in dBFS and dB, `clipping` as a share of samples, `bandwidth_hz`."""

    rms_dbfs: float
    snr_db: float
    clipping: float
    bandwidth_hz: int


@dataclass(frozen=True, slots=True)
class Utterance:
    """A span with all facts that are known before inference. Times are on the call's time line."""

    id: str
    call_id: str
    stream: str
    channel: int
    role: Role
    start_ms: int
    end_ms: int
    capture_end_ms: int
    encoding: Encoding
    rate_hz: int
    audio: bytes
    cut: Cut
    missing_ms: int
    overlap_ms: int
    acoustics: Acoustics
    first: Position
    last: Position
    withheld: str | None
    traceparent: str | None = None
    voiced_start_ms: int | None = None
    voiced_end_ms: int | None = None
    """None in records of earlier versions."""
    spoken_at_ms: int | None = None
    """Capture time of the start; None in records of earlier versions."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Those of the call with reserved names, when the utterance ended."""
    is_echo: bool = False
    """Whether it is the voice of another channel, heard again: nobody speaks here."""
    looks_like: LooksLike | None = None
    """What the audio probably is instead of what its producer declared."""

    @property
    def wants_emotion(self) -> bool:
        """Whether the model may analyse it, as far as is known."""
        return self.withheld is None

    @property
    def voice_ms(self) -> tuple[int, int]:
        """Start and end of the voice: without the padding, if that is known."""
        start_ms = self.start_ms if self.voiced_start_ms is None else self.voiced_start_ms
        return start_ms, self.end_ms if self.voiced_end_ms is None else self.voiced_end_ms

    @property
    def duration_ms(self) -> int:
        """Length of the voice."""
        start_ms, end_ms = self.voice_ms
        return end_ms - start_ms


@dataclass(frozen=True, slots=True)
class Speech:
    """What the speech check found in an utterance.

    `probability` that a person speaks, as it is published. `start_ms` and `end_ms`, from the utterance's first sample,
    bound the part that counts as speech; both are 0 if nobody speaks. `is_sparse`: less than half of that part is
    speech, so no emotion may be read from it.
    """

    probability: float
    start_ms: int
    end_ms: int
    is_sparse: bool = False

    @property
    def is_speech(self) -> bool:
        """Whether a person speaks."""
        return self.end_ms > 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """The inference process's answer for one utterance.

    The model's part: calibrated probabilities in the order of `EMOTIONS`, or a failure. `reason` says why the model
    abstains (or failed); None means that the label stands. Neither: the model was not asked. `speech` is the speech
    check's part; None where it is off or failed. `is_skipped`: the model was not asked because it is behind.
    """

    probabilities: tuple[float, float, float, float] | None
    reason: str | None = None
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    speech: Speech | None = None
    is_skipped: bool = False

    @property
    def is_emotion(self) -> bool:
        """Whether the model was asked."""
        return self.probabilities is not None or self.reason is not None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answered; stamped on every utterance."""

    id: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Result:
    """An utterance and its answer.

    `prediction` is the model's; None if emotion is withheld, or if nobody speaks. `speech` is the speech
    check's; None where it is off or failed, and then the utterance counts as speech. `is_background`: the speech is not
    that of the speaker of the channel.
    """

    utterance: Utterance
    prediction: Prediction | None
    speech: Speech | None = None
    is_background: bool = False

    @classmethod
    def of(cls, utterance: Utterance, answer: Prediction | None) -> "Result":
        """The result of an answer; None: nothing was asked. Emotion that the policy withholds is dropped."""
        if answer is None:
            return cls(utterance, None)
        if answer.is_skipped and utterance.wants_emotion:
            utterance = replace(utterance, withheld=WithheldReason.OVERLOADED)
        is_wanted = utterance.wants_emotion and answer.is_emotion and (answer.speech is None or answer.speech.is_speech)
        return cls(utterance, answer if is_wanted else None, answer.speech)

    @property
    def is_speech(self) -> bool:
        """Whether the person of this channel speaks, as far as is known."""
        is_another = self.utterance.is_echo or self.is_background
        return not is_another and (self.speech is None or self.speech.is_speech)

    @property
    def voice_ms(self) -> tuple[int, int]:
        """From when to when there is speech that counts: the voiced time, less other sounds at its ends."""
        start_ms, end_ms = self.utterance.voice_ms
        if self.speech is None or not self.speech.is_speech:
            return start_ms, end_ms
        part_start_ms = max(start_ms, self.utterance.start_ms + self.speech.start_ms)
        part_end_ms = min(end_ms, self.utterance.start_ms + self.speech.end_ms)
        return (part_start_ms, part_end_ms) if part_start_ms < part_end_ms else (start_ms, end_ms)

    @property
    def duration_ms(self) -> int:
        """How long there is speech that counts."""
        start_ms, end_ms = self.voice_ms
        return end_ms - start_ms if self.is_speech else 0
