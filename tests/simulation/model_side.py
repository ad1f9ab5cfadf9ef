"""The simulated inference process: late, in any order; its answers depend on every byte that it hears."""
# ruff: noqa: D102 - methods mean what those of the real one mean

from hashlib import blake2b

from callmood.worker.records import ModelInfo, Prediction, Speech, Utterance

MODEL = ModelInfo("simulated", "1", "sha256:0")
_NOT_SPEECH_BELOW, _PART_BELOW = 64, 96  # of 256


def heard(utterance: Utterance) -> Prediction:
    """The answer; sometimes nobody speaks, or in a part of the utterance only, and sometimes the model abstains."""
    *digest, verdict = blake2b(utterance.audio, digest_size=5).digest()
    shares = [byte + 1 for byte in digest]
    anger, happiness, neutral, sadness = (share / sum(shares) for share in shares)
    speech = Speech(verdict / 255, 0, utterance.duration_ms)
    if verdict < _NOT_SPEECH_BELOW:
        return Prediction(None, speech=Speech(verdict / 255, 0, 0))
    if verdict < _PART_BELOW:
        speech = Speech(verdict / 255, utterance.duration_ms // 4, utterance.duration_ms // 2)
    if not utterance.wants_emotion:
        return Prediction(None, speech=speech)
    reason = "low_confidence" if max(shares) < 100 else None
    return Prediction((anger, happiness, neutral, sadness), reason, speech=speech)


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
        self._in_flight.setdefault(key, (answers_s, heard(utterance)))

    def collect(self) -> list[tuple[str, Prediction]]:
        world = self._world
        world.point(self._life, "collect")
        due = [i for i, (answers_s, _) in self._in_flight.items() if answers_s <= world.now_s or world.is_healing]
        return [(i, self._in_flight.pop(i)[1]) for i in world.random.sample(due, len(due))]

    def healthy(self, _: float) -> bool:
        return not self._world.dice(self._world.faults.lost_model)
