"""Kafka, Redis and a model that answer at once and cost nothing, for measurements of what is between them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from callmood.worker.adapters.consume import Changes
from callmood.worker.commits import TopicPartition
from callmood.worker.engine.plan import Plan
from callmood.worker.records import ModelInfo, Prediction, Record, Utterance
from callmood.worker.stream_time import StreamTime

if TYPE_CHECKING:
    from callmood.worker.engine.infer import Collect
    from callmood.worker.engine.parts import Sound
    from callmood.worker.inference.wire import Beat

SOURCE: Final = TopicPartition("audio", 0)
MODEL: Final = ModelInfo("null", "0", "sha256:0")
ANSWER: Final = Prediction((0.1, 0.2, 0.6, 0.1))


class Consumer:
    """A consumer of one partition."""

    def __init__(self) -> None:
        self.next: list[Record] = []
        self._assigned = {SOURCE}

    def poll(self, _timeout_ms: int) -> Mapping[TopicPartition, list[Record]]:
        """The records of this turn."""
        records, self.next = self.next, []
        return {SOURCE: records} if records else {}

    def take_changes(self) -> Changes:
        """Its partition is assigned once."""
        assigned, self._assigned = self._assigned, set()
        return Changes(assigned=assigned)

    def take_skipped(self) -> list[Any]:
        """It reads all records."""
        return []

    def start_of(self, *_: object) -> int:
        """It reads from the first record on."""
        return 0

    oldest = lag = position = start_of

    def stable_ends(self, sources: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """All is read."""
        return dict.fromkeys(sources, 0)

    def start(self, *_: object) -> None:
        """Nothing is read but what a turn is given."""

    pause = resume = show_progress = start


class Redis:
    """The client of a Redis that has no positions and agrees to every commit.

    Args:
        committed: called at the end of each round trip.
    """

    def __init__(self, committed: Callable[[], None] = lambda: None) -> None:
        self._sent, self._committed = 0, committed

    def register_script(self, _script: str) -> Any:
        """The script that claims a partition without a position."""
        return _Claim()

    def pipeline(self, **_: object) -> "Redis":
        """Commits of one round trip."""
        return self

    def execute_command(self, *_: object) -> None:
        """One commit."""
        self._sent += 1

    def execute(self, **_: object) -> list[bytes]:
        """Every commit is durable."""
        sent, self._sent = self._sent, 0
        self._committed()
        return [b"ok"] * sent


class _Claim:
    sha = ""

    def __call__(self, **_: object) -> list[Any]:
        return [[None] * (1 + len(StreamTime._fields)), [], b"0", b"1"]


class Model:
    """Answers each utterance with the next turn."""

    def __init__(self) -> None:
        self.model: ModelInfo | None = MODEL
        self.beat: Beat | None = None
        self._asked: list[str] = []

    def submit(self, key: str, _utterance: Utterance) -> None:
        """Note what was asked."""
        self._asked.append(key)

    def collect(self) -> list[tuple[str, Prediction]]:
        """The answers of the last turn."""
        asked, self._asked = self._asked, []
        return [(key, ANSWER) for key in asked]

    def healthy(self, _now_s: float) -> bool:
        """It never hangs."""
        return True


class Engine:
    """An engine that answers each batch at once, for a real inference process."""

    info: Final = MODEL
    plan: Final = Plan()
    depth: Final = 2
    slots: Final = 0
    batch_seconds: Final = 60.0
    rechecked: Final = 0

    def start(self, sounds: "Sequence[Sound]") -> "Collect":
        """The same answer for each sound."""
        answers = [ANSWER] * len(sounds)
        return lambda: answers
