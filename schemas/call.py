"""call/1: the live aggregate of one call, in the shape of Amazon Connect Contact Lens' conversation characteristics.

Times are media time on the call's own time line unless the name says `_at_` (wall clock of the producer). How each
figure is computed is in docs/aggregates.md; the figures derive from the call's utterances and life-cycle events only.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from callmood.schemas.audio import MAX_ATTRIBUTES
from callmood.schemas.common import Emotion, Notice, Role
from callmood.schemas.parts import (
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
)

CALL_SCHEMA: Final = "callmood.call/1"

Score = Annotated[float, Field(strict=True, ge=-5, le=5, allow_inf_nan=False)]
Attributes = Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=MAX_ATTRIBUTES)]


class Status(StrEnum):
    """Life cycle: one `live` phase, then `completed` or `failed`, for good."""

    LIVE = "live"
    COMPLETED = "completed"
    FAILED = "failed"


class EndReason(StrEnum):
    """Why a call is over. `no_audio` is the only failed one: not one readable media record arrived."""

    END = "end"
    IDLE = "idle"
    NO_AUDIO = "no_audio"


class Direction(StrEnum):
    """Where the scores of a call are going."""

    IMPROVING = "improving"
    STEADY = "steady"
    WORSENING = "worsening"


class Loudness(Contract):
    """Level of a role's speech in dBFS (0 is full scale)."""

    mean_dbfs: Number
    """Mean power of the role's speech, weighted by duration."""
    max_dbfs: Number
    """Level of the loudest utterance."""


class Interruptions(Contract):
    """What this role, as the interrupter, did."""

    count: Count
    """How often the role began to speak while another spoke."""
    total_ms: Ms
    """How long both then spoke at once."""


class LabelCounts(Contract):
    """Utterances per label; abstained ones are not among them."""

    anger: Count
    """Labelled anger."""
    happiness: Count
    """Labelled happiness."""
    neutral: Count
    """Labelled neutral."""
    sadness: Count
    """Labelled sadness."""


class LabelDurations(Contract):
    """Speech per label in ms; abstained utterances are not among it."""

    anger: Ms
    """Labelled anger."""
    happiness: Ms
    """Labelled happiness."""
    neutral: Ms
    """Labelled neutral."""
    sadness: Ms
    """Labelled sadness."""


class QuarterScores(Contract):
    """Score of each quarter of the call so far; null where the quarter holds no labelled speech."""

    q1: Score | None = None
    """Quarter 1; null where it holds no labelled speech."""
    q2: Score | None = None
    """Quarter 2; null where it holds no labelled speech."""
    q3: Score | None = None
    """Quarter 3; null where it holds no labelled speech."""
    q4: Score | None = None
    """Quarter 4; null where it holds no labelled speech."""


class Trend(Contract):
    """Where the scores are going: `slope_per_min` in score points per minute of call."""

    direction: Direction
    """In a word."""
    slope_per_min: Number
    """Score points per minute of call."""


class Streak(Contract):
    """The run of equal labels at the end of the call so far."""

    label: Emotion
    """The label that repeats."""
    count: Annotated[int, Field(strict=True, ge=1)]
    """How many utterances in a row."""


class LastLabel(Contract):
    """The newest labelled utterance."""

    label: Emotion
    """Its label."""
    probabilities: Probabilities
    """Its probabilities."""
    end_ms: Ms
    """Its end on the call's time line."""


class RoleEmotion(Contract):
    """Emotion of one role, over the utterances that the policy let the model hear."""

    utterances: Count
    """Utterances the model heard: labelled ones plus abstained ones."""
    abstained: Count
    """Utterances for which the label does not stand, failed inferences included."""
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
    """Where the scores are going; null while too little is known."""
    streak: Streak | None = None
    """The run of equal labels at the end; null before the first label."""
    last: LastLabel | None = None
    """The newest labelled utterance; null before the first."""

    @model_validator(mode="after")
    def _every_utterance_is_counted_once(self) -> Self:
        labelled = self.counts.anger + self.counts.happiness + self.counts.neutral + self.counts.sadness
        if labelled + self.abstained != self.utterances:
            raise ValueError("utterances must be the sum of counts and abstained")
        return self


class RoleSummary(Contract):
    """Dynamics of one role, and its emotion where the policy allows it."""

    utterances: Count
    """Utterances of the role."""
    talk_ms: Ms
    """Sum of the durations of the role's utterances."""
    talk_share: Share
    """Share of `talk_ms` in the sum of all roles' `talk_ms`."""
    loudness: Loudness | None = None
    """Level of the role's speech; null before its first utterance."""
    interruptions: Interruptions
    """What the role, as the interrupter, did."""
    emotion: RoleEmotion | None = None
    """Null where the policy withholds it."""


class Call(Contract):
    """One call so far (`status` live) or for good (completed or failed)."""

    schema_: Literal["callmood.call/1"] = Field(CALL_SCHEMA, alias="schema")
    """Name and version of this schema."""
    call_id: CallId
    """Id of the call: the Kafka key of its audio."""
    version: Annotated[int, Field(strict=True, ge=1)]
    """Grows with every change of this call; changes that are published together count each."""
    status: Status
    """Life cycle of the call."""
    end_reason: EndReason | None = None
    """Why the call is over; null while it is live."""
    started_at_ms: EpochMs
    """Capture time of media time 0, ms since 1970-01-01 UTC."""
    updated_at_ms: EpochMs
    """Capture time of the newest audio or event that this aggregate covers, ms since 1970-01-01 UTC."""
    duration_ms: Ms
    """Length of the call so far."""
    utterances: Count
    """Utterances of all roles."""
    missing_ms: Ms
    """Audio that never arrived."""
    redacted_ms: Ms
    """Paused by the producer: neither heard nor counted as silence."""
    talk_ms: Ms
    """Time in which at least one channel speaks."""
    non_talk_ms: Ms
    """Time in which nobody speaks; pauses of the recording and lost audio are not part of it."""
    longest_silence_ms: Ms
    """Longest stretch of `non_talk_ms` without a break."""
    overlap_ms: Ms
    """Time in which at least two channels speak."""
    roles: dict[Role, RoleSummary]
    """Figures of each role that has spoken."""
    attributes: Attributes = Field(default_factory=dict)
    """`attr.*` of the producer's records, without the prefix."""
    notice: Notice | None = None
    """Whether the caller was told; null: not said."""
    policy: PolicyStamp
    """The policy under which this record was made."""
    model: ModelStamp | None = None
    """Null until a model has heard an utterance of this call."""

    @model_validator(mode="after")
    def _status_and_reason_agree(self) -> Self:
        expected = {None: Status.LIVE, EndReason.NO_AUDIO: Status.FAILED}.get(self.end_reason, Status.COMPLETED)
        if self.status is not expected:
            raise ValueError(f"status {self.status} does not go with end_reason {self.end_reason}")
        return self

    @model_validator(mode="after")
    def _utterances_are_counted_once(self) -> Self:
        if sum(role.utterances for role in self.roles.values()) != self.utterances:
            raise ValueError("utterances must be the sum over the roles")
        return self
