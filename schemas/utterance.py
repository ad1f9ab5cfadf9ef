"""utterance/1: one utterance, published once, with its emotion where the policy allows it.

Except `latency_ms`, `traceparent` and `source`, all fields are a function of the call's audio, the settings and the
model: they are the same live, replayed and from a file. The exception is what a model that is behind
skips, if that is allowed (`CALLMOOD_MODEL__SKIP_AFTER_S`).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from callmood.schemas.common import AbstainReason, Emotion, Kind, LooksLike, Role, WithheldReason
from callmood.schemas.parts import (
    Attributes,
    CallId,
    Contract,
    Count,
    EpochMs,
    Flag,
    ModelStamp,
    Ms,
    Number,
    PolicyStamp,
    Probabilities,
    Share,
    Text,
    Traceparent,
)

UTTERANCE_SCHEMA: Final = "callmood.utterance/1"

Stage = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class EmotionResult(Contract):
    """The model's calibrated answer. `label` is the most probable emotion, even if the model abstains."""

    label: Emotion | None = None
    """Null only when inference failed."""
    probabilities: Probabilities | None = None
    """Null only when inference failed."""
    confidence: Share | None = None
    """Probability of `label`."""
    abstained: Flag
    """True: do not act on the label. It is in no aggregate."""
    reason: AbstainReason | None = None
    """Why the model abstains: `low_confidence`, or why inference failed (README.md); null if it does not abstain."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.abstained != (self.reason is not None):
            raise ValueError("reason is given exactly when the model abstains")
        known = {self.label is None, self.probabilities is None, self.confidence is None}
        if len(known) != 1:
            raise ValueError("label, probabilities and confidence are null together")
        if self.probabilities is None:
            if not self.abstained:
                raise ValueError("without probabilities the model abstains")
        elif getattr(self.probabilities, str(self.label)) != self.confidence:
            raise ValueError("confidence must be the probability of label")
        elif self.confidence != self.probabilities.highest:
            raise ValueError("label must be the likeliest emotion")
        return self


class AcousticsResult(Contract):
    """Measured sound of the utterance."""

    rms_dbfs: Number
    """Level in dBFS; 0 is full scale."""
    snr_db: Number
    """Ratio of speech to background noise, dB."""
    clipping: Share
    """Share of clipped samples."""
    bandwidth_hz: Count
    """Highest frequency with energy, Hz."""


class Quality(Contract):
    """Facts that limit how reliable the label is."""

    missing_ms: Ms
    """Part of the utterance that never arrived, ms; the worker fills it with the sound before it, faded."""
    overlap_ms: Ms
    """Part in which another channel spoke too, ms."""
    cut: Literal["silence", "forced", "gap", "pause", "end"]
    """Why the utterance ended; `forced`: it reached the length limit."""
    looks_like: LooksLike | None = None
    """Encoding that the audio seems to have instead of the declared one, or `swapped_bytes`; else null."""


class LatencyMs(Contract):
    """Wall-clock time by stage, ms. It differs in a replay."""

    # A file has no wall clock: offline, stages are left out.
    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    decide: Stage | None = None
    """From the capture of the last sample to the end of the utterance: transport, and waiting for silence."""
    queue: Stage | None = None
    """Waiting for a batch; null if the model did not analyse the utterance."""
    inference: Stage | None = None
    """Computing the batch; null if the model did not analyse the utterance."""
    publish: Stage | None = None
    """From the model's answer to the start of the commit."""
    total: Stage | None = None
    """From the capture of the last sample to the start of the commit."""


class Source(Contract):
    """The Kafka records with the utterance's audio."""

    topic: Annotated[str, Field(min_length=1, max_length=249)]
    """Audio topic."""
    partition: Count
    """Its partition."""
    first_offset: Count
    """Offset of the record with the first sample."""
    last_offset: Count
    """Offset of the record with the last sample."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first_offset > self.last_offset:
            raise ValueError("first_offset is after last_offset")
        return self


class Utterance(Contract):
    """One speaker's utterance, or another sound that the voice detector took for one (`kind`)."""

    schema_: Literal["callmood.utterance/1"] = Field(UTTERANCE_SCHEMA, alias="schema")
    """Name and version of this schema."""
    utterance_id: Annotated[str, Field(min_length=1, max_length=512)]
    """`<call>:<stream>:<channel>:<start sample>`; the same on every replay."""
    call_id: CallId
    """Id of the call: the Kafka key of its audio."""
    number: Annotated[int, Field(strict=True, ge=1)]
    """1, 2, 3, … in the call: the order in which utterances closed, and the id in the call's Redis stream."""
    stream: Text
    """Media session inside the call."""
    channel: Annotated[int, Field(strict=True, ge=0, le=7)]
    """Index of the channel in the stream."""
    role: Role
    """Role of the speaker."""
    start_ms: Ms
    """Start on the call's time line, ms."""
    end_ms: Ms
    """End on the call's time line, ms."""
    spoken_at_ms: EpochMs | None = None
    """Capture time of `start_ms`, ms since 1970-01-01 UTC; null for a file."""
    attributes: Attributes = Field(default_factory=dict)
    """The call's attributes with reserved names (README.md), as known when the utterance ended."""
    voiced_start_ms: Ms | None = None
    """Start of the voice, without the padding, ms; null if not known."""
    voiced_end_ms: Ms | None = None
    """End of the voice, without the padding, ms; null if not known."""
    kind: Kind = Kind.SPEECH
    """Result of the speech check; `speech` if it is off or failed."""
    speech_probability: Share | None = None
    """Estimate of the speech check that a person speaks; null if it is off or failed."""
    speech_start_ms: Ms | None = None
    """Start of the voiced time that is speech, ms; the call's figures count from here. Null for `not_speech`."""
    speech_end_ms: Ms | None = None
    """End of the voiced time that is speech, ms; the call's figures count to here. Null for `not_speech`."""
    echo: Flag = False
    """True: the voice of another channel of the stream, heard again, lower and later; then `kind` is `not_speech`."""
    background: Flag = False
    """True: speech far quieter than the speaker of the channel; then `kind` is `not_speech`."""
    emotion: EmotionResult | None = None
    """Null if the policy withholds it, the utterance is not speech, or the model was behind."""
    withheld: WithheldReason | None = None
    """Why `emotion` is null, for example `policy:role_agent` (see README.md)."""
    acoustics: AcousticsResult
    """Measured sound of the utterance."""
    quality: Quality
    """Facts that limit how reliable the label is."""
    model: ModelStamp | None = None
    """Null exactly when `emotion` is."""
    policy: PolicyStamp
    """The policy under which this record was made."""
    latency_ms: LatencyMs = LatencyMs()
    """Wall-clock time by stage."""
    source: Source | None = None
    """The Kafka records with the utterance's audio; null for a file."""
    traceparent: Traceparent | None = None
    """W3C trace context of the last record."""

    @model_validator(mode="after")
    def _times_in_order(self) -> Self:
        if self.start_ms >= self.end_ms:
            raise ValueError("end_ms must be after start_ms")
        if (self.voiced_start_ms is None) != (self.voiced_end_ms is None):
            raise ValueError("voiced_start_ms and voiced_end_ms are null together")
        voice = (self.voiced_start_ms or 0, self.voiced_end_ms or 0)
        if self.voiced_end_ms is not None and not self.start_ms <= voice[0] < voice[1] <= self.end_ms:
            raise ValueError("the voice must be inside the utterance")
        return self

    @model_validator(mode="after")
    def _speech_is_a_part(self) -> Self:
        if (self.speech_start_ms is None) != (self.speech_end_ms is None):
            raise ValueError("speech_start_ms and speech_end_ms are null together")
        if self.kind is Kind.NOT_SPEECH and (self.emotion is not None or self.speech_end_ms is not None):
            raise ValueError("what is not speech has no emotion and no part that counts as speech")
        if (self.echo or self.background) and self.kind is not Kind.NOT_SPEECH:
            raise ValueError("an echo or the background is not speech of the channel")
        if self.speech_start_ms is None or self.speech_end_ms is None:
            return self
        if not self.start_ms <= self.speech_start_ms < self.speech_end_ms <= self.end_ms:
            raise ValueError("the part that counts as speech must be within the utterance")
        return self

    @model_validator(mode="after")
    def _emotion_or_a_reason(self) -> Self:
        if (self.emotion is None) != (self.withheld is not None):
            raise ValueError("either emotion or withheld is given")
        if (self.emotion is None) != (self.model is None):
            raise ValueError("model is null exactly when emotion is withheld")
        return self


def label_or_reason(utterance: Mapping[str, Any]) -> str:
    """The emotion of an utterance/1 record in one word.

    Returns:
        The label; `abstained` where the model was not sure; else why there are no probabilities: the model's failure
        (`too_short`, `inference_failed`, ...), the policy's reason, `echo`, `background`, `not_speech` or `overloaded`.
    """
    if utterance.get("echo"):
        return WithheldReason.ECHO.value
    if utterance.get("background"):
        return WithheldReason.BACKGROUND.value
    if utterance.get("kind") == Kind.NOT_SPEECH:
        return Kind.NOT_SPEECH.value
    emotion = utterance["emotion"]
    if emotion is None:
        return str(utterance["withheld"])
    if emotion["label"] is None:
        return str(emotion["reason"])
    return "abstained" if emotion["abstained"] else str(emotion["label"])
