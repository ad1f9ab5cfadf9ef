"""A group, which is all that one record of a call closed, and the queue of groups that wait for the model. Pure."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from callmood.worker.call.checkpoint import Checkpoint
from callmood.worker.call.ending import End
from callmood.worker.call.fold import Fold
from callmood.worker.call.outputs import Released
from callmood.worker.records import Prediction, Result, Unheard, Utterance


@dataclass(slots=True)
class Group:
    """What one record closed, and the call's checkpoint right after it."""

    utterances: list[Utterance]
    unheard: list[Unheard]
    end: End | None
    checkpoint: Checkpoint
    decided_ms: float
    has_reopened: bool = False
    """Whether the call was over before it."""
    answers: dict[str, tuple[Prediction | None, float]] = field(default_factory=dict)

    def fold_into(self, fold: Fold) -> list[Released]:
        """Fold what the model answered, and what was not heard: holds first, for what was said in them."""
        if self.has_reopened:
            fold.reopen()
        for stretch in self.unheard:
            if stretch.is_hold:
                fold.add_unheard(stretch)
        released = []
        for utterance in self.utterances:
            answer, known_ms = self.answers[utterance.id]
            released.append(Released(*fold.add(Result.of(utterance, answer)), self.decided_ms, known_ms))
        for stretch in self.unheard:
            if not stretch.is_hold:
                fold.add_unheard(stretch)
        if self.end is not None:
            fold.finish(self.end)
        return released

    @property
    def is_complete(self) -> bool:
        """Whether the model has answered all."""
        return len(self.answers) == len(self.utterances)


class Groups:
    """Those of a call that are not released, in the order of the log."""

    def __init__(self) -> None:
        self.waiting: deque[Group] = deque()
        self._awaited: dict[str, Group] = {}
        """The group of each utterance that the model has not answered."""

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def add(self, group: Group, asked: Iterable[Utterance]) -> None:
        """`asked`: the utterances of the group that the inference process answers."""
        self._awaited.update({utterance.id: group for utterance in asked})
        known = {utterance.id: (None, group.decided_ms) for utterance in group.utterances}
        group.answers.update({id_: answer for id_, answer in known.items() if id_ not in self._awaited})
        self.waiting.append(group)

    def answer(self, utterance_id: str, prediction: Prediction, now_ms: float) -> None:
        """Take an answer; one that nothing waits for is ignored."""
        group = self._awaited.pop(utterance_id, None)
        if group is not None:
            group.answers[utterance_id] = (prediction, now_ms)

    @property
    def has_complete(self) -> bool:
        """Whether `complete` has something."""
        return bool(self.waiting) and self.waiting[0].is_complete

    def complete(self) -> Iterator[Group]:
        """Take out the oldest groups that the model has answered."""
        while self.has_complete:
            yield self.waiting.popleft()
