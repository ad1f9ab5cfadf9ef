"""The clients and services that the ingest loop uses."""

from typing import NamedTuple, Protocol

from callmood.worker.adapters.consume import AudioConsumer
from callmood.worker.adapters.dead_letters import DeadLetterTopic
from callmood.worker.adapters.store import Store
from callmood.worker.inference.wire import Beat
from callmood.worker.records import ModelInfo, Prediction, Utterance


class Inference(Protocol):
    """What the loop needs of the inference process."""

    model: ModelInfo | None
    beat: Beat | None

    def submit(self, key: str, utterance: Utterance) -> None:
        """Ask for an utterance's emotion under a key of the caller's; never waits."""

    def collect(self) -> list[tuple[str, Prediction]]:
        """The keys and answers since the last call; never waits."""

    def healthy(self, now_s: float) -> bool:
        """Whether the inference process beats and its model thread makes progress."""


class Outside(NamedTuple):
    """What the loop is wired to."""

    consumer: AudioConsumer
    store: Store
    inference: Inference
    dead_letters: DeadLetterTopic
