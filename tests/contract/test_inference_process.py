"""The client and the real inference process: what is asked is answered, once, to the one who asked."""

import time

import numpy as np
import pytest

from callmood.schemas.common import Encoding, Role
from callmood.worker import g711
from callmood.worker.engine.infer import TOO_SHORT, open_engine
from callmood.worker.records import Acoustics, Cut, Position, Utterance
from callmood.worker.settings import ModelSettings

pytestmark = pytest.mark.timeout(400)  # the first test also waits for the process to start


def utterance(id_, *, seconds=1.0, encoding=Encoding.PCMU, rate_hz=8_000, seed=0):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=int(seconds * rate_hz)) * rng.uniform(10, 8_000)).astype(np.int16)
    encode = {Encoding.PCMU: g711.encode_pcmu, Encoding.PCMA: g711.encode_pcma}.get(encoding, np.ndarray.tobytes)
    return Utterance(
        id=id_,
        call_id="call",
        stream="0",
        channel=0,
        role=Role.CUSTOMER,
        start_ms=0,
        end_ms=int(seconds * 1000),
        capture_end_ms=0,
        encoding=encoding,
        rate_hz=rate_hz,
        audio=encode(values),
        cut=Cut.SILENCE,
        missing_ms=0,
        overlap_ms=0,
        acoustics=Acoustics(-20.0, 20.0, 0.0, 4_000),
        first=Position("t", 0, 0),
        last=Position("t", 0, 1),
        withheld=None,
    )


def submit(client, one):
    """Send an utterance under its id."""
    client.submit(one.id, one)


def answers(client, expected, *, timeout_s=120.0):
    """The answers to `expected` utterances, by their ids; no id may be answered twice, and nothing else may come."""
    found = {}
    deadline_s = time.monotonic() + timeout_s
    while len(found) < expected and time.monotonic() < deadline_s:
        for id_, prediction in client.collect():
            assert id_ not in found
            found[id_] = prediction
        time.sleep(0.002)
    assert len(found) == expected
    return found


def newest_beat(client, *, timeout_s=120.0):
    """A beat that was sent after all that the client has received."""
    client.collect()
    before = client.beat
    deadline_s = time.monotonic() + timeout_s
    while client.beat is before and time.monotonic() < deadline_s:
        assert client.collect() == []
        time.sleep(0.002)
    assert client.beat is not before
    return client.beat


def test_answers_are_those_of_the_engine(inference, random_bundle):
    """Utterances of every codec and many lengths get the probabilities that the engine gives them alone."""
    client = inference.client()
    asked = [
        utterance(f"{encoding}-{seed}", seconds=0.1 + 0.3 * seed, encoding=encoding, rate_hz=rate_hz, seed=seed)
        for encoding, rate_hz in ((Encoding.PCMU, 8_000), (Encoding.PCMA, 8_000), (Encoding.S16LE, 16_000))
        for seed in range(8)
    ]
    for one in asked:
        submit(client, one)
    found = answers(client, len(asked))
    engine = open_engine(ModelSettings(path=str(random_bundle), device="cpu"))
    for one in asked:
        [expected] = engine.predict([(one.encoding, one.rate_hz, one.audio)])
        assert found[one.id].probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert found[one.id].queue_ms >= 0
        assert found[one.id].inference_ms > 0


def test_the_model_makes_itself_known(inference):
    """A client learns which model answers from the first beat of a warm process, and not before."""
    client = inference.client()
    assert client.model is None
    inference.wait_until_warm(client)
    assert (client.model.id, client.model.version) == ("random", "7")
    assert client.model.digest.startswith("sha256:")
    assert client.healthy(time.monotonic())


def test_every_client_gets_its_own_answers(inference):
    """Equal ids of two clients are two utterances."""
    first, second = inference.client(), inference.client()
    submit(first, utterance("same id", seconds=1.0, seed=1))
    submit(second, utterance("same id", seconds=0.01, seed=2))
    submit(second, utterance("other", seconds=0.5, seed=3))
    assert answers(second, 2)["same id"].reason == TOO_SHORT
    found = answers(first, 1)
    assert set(found) == {"same id"}
    assert found["same id"].probabilities is not None


def test_an_utterance_without_audio_is_answered(inference):
    """Nothing to hear is too short, and the process goes on."""
    client = inference.client()
    submit(client, utterance("empty", seconds=0.0))
    assert answers(client, 1)["empty"].reason == TOO_SHORT
    submit(client, utterance("next"))
    assert answers(client, 1)["next"].probabilities is not None


def test_what_is_in_flight_is_not_asked_twice(inference):
    """Submitting an utterance again before its answer has come gives one answer."""
    client = inference.client()
    for _ in range(3):
        submit(client, utterance("again"))
    assert set(answers(client, 1)) == {"again"}
    submit(client, utterance("again"))
    submit(client, utterance("other"))
    assert set(answers(client, 2)) == {"again", "other"}


def test_a_client_that_vanished_costs_nothing(inference):
    """What a client leaves behind is dropped from the queue, and the others are served."""
    gone, here = inference.client(), inference.client()
    inference.wait_until_warm(gone)
    started_s = time.monotonic()
    for index in range(20):
        submit(here, utterance(f"measured {index}", seconds=15.0))
    answers(here, 20)
    each_s = (time.monotonic() - started_s) / 20
    for index in range(400):
        submit(gone, utterance(f"left behind {index}", seconds=15.0))
    while not (answered := gone.collect()):
        time.sleep(0.002)
    left_s = (400 - len(answered) - 1) * each_s
    gone.close()
    started_s = time.monotonic()
    submit(here, utterance("served"))
    assert set(answers(here, 1)) == {"served"}
    assert time.monotonic() - started_s < left_s / 4


@pytest.fixture(scope="module")
def one_by_one(start_shared_inference, random_bundle):
    """A process whose runs always take longer than they may, and in which all utterances are close calls."""
    return start_shared_inference(random_bundle, dtype="bf16", recheck_below=1.0, batch_ms=0.001)


@pytest.fixture(scope="module")
def padded(start_shared_inference, random_bundle):
    """A process with padded batches in float32."""
    return start_shared_inference(random_bundle, packed="off", dtype="fp32", recheck_below=1.0)


def test_what_runs_cost_bounds_the_next_batches(one_by_one):
    """Once runs are known to be longer than they may be, utterances go one by one."""
    client = one_by_one.client()
    one_by_one.wait_until_warm(client)
    submit(client, utterance("first"))
    answers(client, 1)
    for number in range(30):
        submit(client, utterance(f"slow {number}"))
    assert len({prediction.inference_ms for prediction in answers(client, 30).values()}) > 25


def test_padding_is_reported_with_the_beats(padded, one_by_one):
    """Padded batches of 1.0 and 0.95 s have some padding, and the newest beat has its share; packed ones have none."""
    for started in (padded, one_by_one):
        client = started.client()
        started.wait_until_warm(client)
        for number in range(40):
            submit(client, utterance(f"{number}", seconds=1.0 if number % 2 else 0.95))
        answers(client, 40)
        assert (newest_beat(client).padding > 0) == (started is padded)


def test_what_is_computed_again_is_reported_with_the_beats(padded, one_by_one):
    """All utterances are if all are close calls in bfloat16, and none are in float32: the newest beat has the share."""
    for started, share in ((one_by_one, 1), (padded, 0)):
        client = started.client()
        started.wait_until_warm(client)
        for number in range(100):
            submit(client, utterance(f"{number}"))
        answers(client, 100)
        assert newest_beat(client).rechecked == pytest.approx(share, abs=0.15)
