"""What one record of a call closed. Values only."""

from dataclasses import dataclass, field

from callmood.worker.call.checkpoint import Checkpoint
from callmood.worker.records import Prediction, Unheard, Utterance


@dataclass(slots=True)
class Group:
    """What one record closed, and the call's checkpoint right after it."""

    utterances: list[Utterance]
    unheard: list[Unheard]
    ended: str | None
    checkpoint: Checkpoint
    decided_ms: float
    answers: dict[str, tuple[Prediction | None, float]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether the model has answered all."""
        return len(self.answers) == len(self.utterances)
