"""What one record of a call closed. Pure."""

from dataclasses import dataclass, field

from callmood.worker.call.checkpoint import Checkpoint
from callmood.worker.call.fold import Fold
from callmood.worker.call.outputs import Released
from callmood.worker.records import Prediction, Result, Unheard, Utterance


@dataclass(slots=True)
class Group:
    """What one record closed, and the call's checkpoint right after it."""

    utterances: list[Utterance]
    unheard: list[Unheard]
    ended: str | None
    checkpoint: Checkpoint
    decided_ms: float
    answers: dict[str, tuple[Prediction | None, float]] = field(default_factory=dict)

    def fold_into(self, fold: Fold) -> list[Released]:
        """Fold what the model answered, and what was not heard: holds first, for what was said in them."""
        for stretch in self.unheard:
            if stretch.is_hold:
                fold.add_unheard(stretch)
        released = []
        for utterance in self.utterances:
            answer, known_ms = self.answers[utterance.id]
            result = Result.of(utterance, answer)
            released.append(Released(result, fold.add(result), self.decided_ms, known_ms))
        for stretch in self.unheard:
            if not stretch.is_hold:
                fold.add_unheard(stretch)
        return released

    @property
    def is_complete(self) -> bool:
        """Whether the model has answered all."""
        return len(self.answers) == len(self.utterances)
