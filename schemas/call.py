"""call/1: the live aggregate of one call, in the shape of Amazon Connect Contact Lens' conversation characteristics.

Times are media time on the call's own time line unless the name says `_at_` (wall clock of the producer). How each
figure is computed is in docs/aggregates.md; the figures derive from the call's utterances and life-cycle events only.
"""

import json
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from callmood.schemas.alert import Severity
from callmood.schemas.common import Emotion, Notice, Role
from callmood.schemas.parts import (
    FLAT,
    Attributes,
    CallId,
    Contract,
    Count,
    EpochMs,
    ModelStamp,
    Ms,
    Number,
    PolicyStamp,
    Probabilities,
    Share,
    Text,
)

CALL_SCHEMA: Final = "callmood.call/1"

Score = Annotated[float, Field(strict=True, ge=-5, le=5, allow_inf_nan=False)]


class Status(StrEnum):
    """Life cycle: `live`, then `completed` or `failed`; `live` again if records continue a call that had ended idle."""

    LIVE = "live"
    COMPLETED = "completed"
    FAILED = "failed"


class EndReason(StrEnum):
    """Why a call ended.

    With these it has failed: `no_audio`: no readable media record arrived. `given_up`: the worker failed on the call,
    and its rest is not analysed.
    """

    END = "end"
    IDLE = "idle"
    NO_AUDIO = "no_audio"
    GIVEN_UP = "given_up"


def status_of(end_reason: EndReason | None) -> Status:
    """The status of a call that has ended for this reason, or has not."""
    if end_reason is None:
        return Status.LIVE
    return Status.FAILED if end_reason in (EndReason.NO_AUDIO, EndReason.GIVEN_UP) else Status.COMPLETED


class Direction(StrEnum):
    """Direction of the scores of a call."""

    IMPROVING = "improving"
    STEADY = "steady"
    WORSENING = "worsening"


class Loudness(Contract):
    """Level of a role's speech in dBFS (0 is full scale)."""

    mean_dbfs: Number
    """Mean power of the role's speech, weighted by duration, dBFS (0 is full scale)."""
    max_dbfs: Number
    """Level of the role's loudest utterance, dBFS."""


class Stretches(Contract):
    """Unbroken stretches of a kind that last at least `threshold_ms`."""

    threshold_ms: Ms
    """Shortest length that counts, ms."""
    count: Count
    """Number of silences or overlaps of at least this length."""
    total_ms: Ms
    """Sum of their lengths, ms."""
    mean_ms: Ms
    """Mean of their lengths, ms, rounded; 0 if there is none."""
    longest_ms: Ms
    """Length of the longest one, ms; 0 if there is none."""


class Interruptions(Contract):
    """Interruptions by this role."""

    count: Count
    """Number of times that the role interrupted another speaker."""
    total_ms: Ms
    """Time for which both spoke during these interruptions, ms."""


class LabelCounts(Contract):
    """Utterances per label, without abstained ones."""

    anger: Count
    """Utterances labelled anger."""
    happiness: Count
    """Utterances labelled happiness."""
    neutral: Count
    """Utterances labelled neutral."""
    sadness: Count
    """Utterances labelled sadness."""


class LabelDurations(Contract):
    """Speech per label in ms, without abstained utterances."""

    anger: Ms
    """Speech labelled anger, ms."""
    happiness: Ms
    """Speech labelled happiness, ms."""
    neutral: Ms
    """Speech labelled neutral, ms."""
    sadness: Ms
    """Speech labelled sadness, ms."""


class QuarterScores(Contract):
    """Score of each quarter of the call so far; null for a quarter without a labelled utterance."""

    q1: Score | None = None
    """Score of quarter 1, -5 to +5; null without a labelled utterance in it."""
    q2: Score | None = None
    """Score of quarter 2, -5 to +5; null without a labelled utterance in it."""
    q3: Score | None = None
    """Score of quarter 3, -5 to +5; null without a labelled utterance in it."""
    q4: Score | None = None
    """Score of quarter 4, -5 to +5; null without a labelled utterance in it."""


class Trend(Contract):
    """Trend of the scores over the call."""

    direction: Direction
    """Direction of the trend."""
    slope_per_min: Number
    """Slope of the trend, score points per minute of call."""


class Streak(Contract):
    """The newest labelled utterances with the same label."""

    label: Emotion
    """Label of the newest labelled utterances."""
    count: Annotated[int, Field(strict=True, ge=1)]
    """Number of consecutive labelled utterances with this label."""


class LastLabel(Contract):
    """The newest labelled utterance."""

    label: Emotion
    """Label of the newest labelled utterance."""
    probabilities: Probabilities
    """Probabilities of the newest labelled utterance."""
    end_ms: Ms
    """End of the newest labelled utterance on the call's time line, ms."""


class RoleEmotion(Contract):
    """Emotion of one role, over the utterances that the model analysed."""

    utterances: Count
    """Utterances that the model analysed: labelled ones plus abstained ones."""
    abstained: Count
    """Analysed utterances without a label: low confidence, or inference failed."""
    counts: LabelCounts
    """Utterances per label."""
    durations_ms: LabelDurations
    """Speech per label."""
    probabilities: Probabilities | None = None
    """Duration-weighted mean over the labelled utterances; null before the first."""
    quarter_scores: QuarterScores = QuarterScores()
    """Score of each quarter of the call so far."""
    overall_score: Score | None = None
    """Mean of the quarters that have a score."""
    trend: Trend | None = None
    """Trend of the scores; null before the fourth label."""
    streak: Streak | None = None
    """Repetition of the newest label; null before the first label."""
    last: LastLabel | None = None
    """The newest labelled utterance; null before the first."""

    @model_validator(mode="after")
    def _every_utterance_is_counted_once(self) -> Self:
        labelled = self.counts.anger + self.counts.happiness + self.counts.neutral + self.counts.sadness
        if labelled + self.abstained != self.utterances:
            raise ValueError("utterances must be the sum of counts and abstained")
        return self


class RoleSummary(Contract):
    """Talk time, loudness, interruptions and, if the policy allows it, emotion of one role."""

    utterances: Count
    """Utterances of the role that are speech."""
    talk_ms: Ms
    """Sum of the voiced times of the role's speech, ms."""
    other_sounds: Count = 0
    """Utterances of the role that are not speech (`kind` is `not_speech`)."""
    other_sound_ms: Ms = 0
    """Voiced time in the role's utterances that is not speech but a tone, music or noise, ms."""
    skipped: Count = 0
    """Utterances of the role without emotion because the model was behind (`withheld` is `overloaded`)."""
    talk_share: Share
    """Share of `talk_ms` in the sum of all roles' `talk_ms`."""
    loudness: Loudness | None = None
    """Level of the role's speech; null before it has spoken."""
    interruptions: Interruptions
    """Interruptions by the role."""
    emotion: RoleEmotion | None = None
    """Null if the policy withholds emotion, and before the model has analysed an utterance of the role."""


class Need(StrEnum):
    """How much a call needs a person: `high` from a risk of 0.6, `some` from 0.3 or with any sign."""

    HIGH = "high"
    SOME = "some"
    NONE = "none"


class SignName(StrEnum):
    """Why a call may need a person (docs/aggregates.md)."""

    STREAK = "streak"
    SCORE = "score"
    TREND = "trend"
    SILENCE = "silence"
    INTERRUPTIONS = "interruptions"
    SILENT_SHARE = "silent_share"
    RISK = "risk"


class Sign(Contract):
    """One sign, as a value and in words."""

    name: SignName
    """Which sign it is."""
    role: Role | None = None
    """Whose emotion it is; null if it is not about emotion."""
    value: Number
    """Repetitions, score, slope per minute, ms, interruptions, share, or risk."""
    text: Text
    """For a person, for example `anger 4 times in a row`."""


class AlertState(StrEnum):
    """`raised`, then `cleared` when the measure has fallen, or `ended` when the call ends."""

    RAISED = "raised"
    CLEARED = "cleared"
    ENDED = "ended"


class CallAlert(Contract):
    """An alert of the call as it is now; alert/1 has the rest."""

    alert_id: Annotated[str, Field(min_length=1, max_length=512)]
    """`alert_id` of alert/1."""
    rule: Annotated[str, Field(min_length=1, max_length=64)]
    """Name of the rule."""
    severity: Severity
    """How urgent it is."""
    state: AlertState
    """Whether the alert is raised, cleared or ended."""
    since_ms: Ms
    """Media time at which the episode began."""
    raised_ms: Ms
    """Media time at which it was raised."""
    over_ms: Ms | None = None
    """Media time at which it was cleared, or at which the call ended; null while it is raised."""

    @model_validator(mode="after")
    def _is_over_or_raised(self) -> Self:
        if (self.state is AlertState.RAISED) != (self.over_ms is None):
            raise ValueError("over_ms is null exactly while the alert is raised")
        return self


class SpanKind(StrEnum):
    """Why a stretch of the call is neither talk nor silence."""

    PAUSE = "pause"
    GAP = "gap"
    HOLD = "hold"


class Span(Contract):
    """A stretch of the call's time line."""

    kind: SpanKind
    """`pause`: the producer paused the call; `gap`: audio was lost; `hold`: the call was on hold."""
    start_ms: Ms
    """Start, ms."""
    end_ms: Ms
    """End so far, ms."""


MAX_ALERTS: Final = 16
MAX_SPANS: Final = 64


class Call(Contract):
    """The aggregate of one call: so far while `status` is `live`, final when it is `completed` or `failed`."""

    schema_: Literal["callmood.call/1"] = Field(CALL_SCHEMA, alias="schema")
    """Name and version of this schema."""
    call_id: CallId
    """Id of the call: the Kafka key of its audio."""
    version: Annotated[int, Field(strict=True, ge=1)]
    """Grows with every change of this aggregate; one commit can contain several changes."""
    status: Status
    """Whether the call is live, completed, or failed; `end_reason` gives the reason."""
    end_reason: EndReason | None = None
    """Why the call ended; null while it is live."""
    started_at_ms: EpochMs
    """Capture time of media time 0, ms since 1970-01-01 UTC."""
    updated_at_ms: EpochMs
    """Capture time of the newest audio or event that this aggregate covers, ms since 1970-01-01 UTC."""
    duration_ms: Ms
    """Length of the call so far, ms."""
    utterances: Count
    """Utterances of all roles that are speech."""
    doubtful_format: Count = 0
    """Utterances that look as if the producer had declared a wrong encoding (`quality.looks_like`)."""
    missing_ms: Ms
    """Audio that never arrived, ms."""
    redacted_ms: Ms
    """Time for which the producer paused the call, ms; not counted as silence."""
    talk_ms: Ms
    """Time in which at least one channel speaks, ms."""
    non_talk_ms: Ms
    """Time without speech, ms; without pauses and lost audio."""
    longest_silence_ms: Ms
    """Longest unbroken part of `non_talk_ms`, ms."""
    overlap_ms: Ms
    """Time in which at least two channels speak, ms."""
    hold_ms: Ms = 0
    """Time on hold as reported by the producer, ms; not part of `non_talk_ms`."""
    silences: Stretches | None = None
    """Stretches of `non_talk_ms` of 3 s and more; null in records of earlier versions."""
    overlaps: Stretches | None = None
    """Stretches of `overlap_ms` of 500 ms and more; null in records of earlier versions."""
    roles: dict[Role, RoleSummary]
    """Figures of each role that has spoken or made another sound."""
    attributes: Attributes = Field(default_factory=dict)
    """`attr.*` of the producer's records, without the prefix."""
    notice: Notice | None = None
    """Whether the caller was told that emotion is inferred; null if the producer did not send it."""
    policy: PolicyStamp
    """The policy under which this record was made."""
    model: ModelStamp | None = None
    """Null until the model has analysed an utterance of this call."""
    risk: Share | None = None
    """How urgently the call needs a person, 0 to 1; null in records of earlier versions."""
    need: Need | None = None
    """The urgency in three levels; null in records of earlier versions."""
    signs: tuple[Sign, ...] = ()
    """Reasons for `need`, the strongest first; empty if `need` is `none`."""
    alerts: Annotated[tuple[CallAlert, ...], Field(max_length=MAX_ALERTS)] = ()
    """The newest 16 alerts of the call, oldest first."""
    spans: Annotated[tuple[Span, ...], Field(max_length=MAX_SPANS)] = ()
    """The newest 64 pauses, gaps and holds, in the order in which they became known."""

    @field_validator("signs", "alerts", "spans", mode="before")
    @classmethod
    def _read_flat(cls, value: object, info: ValidationInfo) -> object:
        if info.context == FLAT and isinstance(value, str):
            return json.loads(value)
        return value

    @model_validator(mode="after")
    def _status_and_reason_agree(self) -> Self:
        if self.status is not status_of(self.end_reason):
            raise ValueError(f"status {self.status} does not go with end_reason {self.end_reason}")
        return self

    @model_validator(mode="after")
    def _utterances_are_counted_once(self) -> Self:
        if sum(role.utterances for role in self.roles.values()) != self.utterances:
            raise ValueError("utterances must be the sum over the roles")
        return self
