"""The simulated model: answers late and in any order; what it says depends on every byte that it hears."""
# ruff: noqa: D102 - methods mean what those of the real one mean

from hashlib import blake2b

from callmood.worker.records import ModelInfo, Prediction, Utterance

MODEL = ModelInfo("simulated", "1", "sha256:0")


def heard(audio: bytes) -> Prediction:
    """The model's answer; sometimes it abstains."""
    shares = [byte + 1 for byte in blake2b(audio, digest_size=4).digest()]
    anger, happiness, neutral, sadness = (share / sum(shares) for share in shares)
    return Prediction((anger, happiness, neutral, sadness), "low_confidence" if max(shares) < 100 else None)


class SimInference:
    """Stands where `InferenceClient` stands; `life` is the worker process that it belongs to."""

    model = MODEL
    beat = None

    def __init__(self, world, life) -> None:
        self._world = world
        self._life = life
        self._in_flight: dict[str, tuple[float, Prediction]] = {}

    def submit(self, key: str, utterance: Utterance) -> None:
        """A key that is in flight is not sent again, as the real client does it."""
        world = self._world
        world.point(self._life, "submit")
        answers_s = world.now_s + world.random.uniform(0, world.faults.slowest_model_s)
        self._in_flight.setdefault(key, (answers_s, heard(utterance.audio)))

    def collect(self) -> list[tuple[str, Prediction]]:
        world = self._world
        world.point(self._life, "collect")
        due = [i for i, (answers_s, _) in self._in_flight.items() if answers_s <= world.now_s or world.is_healing]
        return [(i, self._in_flight.pop(i)[1]) for i in world.random.sample(due, len(due))]

    def healthy(self, _: float) -> bool:
        return not self._world.dice(self._world.faults.lost_model)
