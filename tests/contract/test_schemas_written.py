"""What the worker writes keeps the contract: the records of its own stages, against model and JSON Schema."""

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmood.schemas.__main__ import MODELS, json_schema
from callmood.schemas.common import Encoding, Notice, Role
from callmood.schemas.flat import flatten, unflatten
from callmood.worker.call import aggregate, policy
from callmood.worker.call.render import Stamps, Times, utterance_record
from callmood.worker.records import Acoustics, Cut, ModelInfo, Position, Prediction, Result, Utterance
from callmood.worker.settings import PolicySettings

MODEL = ModelInfo("demo-tiny", "1", "sha256:" + "0" * 64)
STAMPS = Stamps(policy.stamp(PolicySettings()), MODEL)
TIMES = Times(decided_ms=2_000.0, known_ms=2_010.5, rendered_ms=2_011.25)
SCHEMAS = {name: jsonschema.Draft202012Validator(json_schema(name)) for name in ("utterance", "call")}

shares = (
    st.lists(st.floats(0.001, 1), min_size=4, max_size=4)
    .map(lambda weights: tuple(weight / sum(weights) for weight in weights))
    .map(lambda values: Prediction(values, queue_ms=1.0, inference_ms=2.0))
)
predictions = (
    st.none()
    | shares
    | shares.map(lambda given: Prediction(given.probabilities, "low_confidence", 1.0, 2.0))
    | st.just(Prediction(None, "inference_failed"))
)


def keeps_the_contract(name, record):
    """The record, as text and back, fits; the model reads nothing into it that is not there."""
    record = json.loads(json.dumps(record, allow_nan=False))
    SCHEMAS[name].validate(record)
    read = MODELS[name][0].model_validate(record)
    assert json.loads(read.model_dump_json(exclude_unset=True)) == record
    return read


def result(prediction, start_ms=1_000, end_ms=2_000):
    role = Role.CUSTOMER if prediction else Role.AGENT
    return Result(
        Utterance(
            id=f"call-1:0:0:{start_ms * 8}",
            call_id="call-1",
            stream="0",
            channel=0,
            role=role,
            start_ms=start_ms,
            end_ms=end_ms,
            capture_end_ms=1_000 + end_ms,
            encoding=Encoding.PCMU,
            rate_hz=8_000,
            audio=b"",
            cut=Cut.SILENCE,
            missing_ms=20,
            overlap_ms=0,
            acoustics=Acoustics(-23.456, 18.9, 0.0, 3_400),
            first=Position("callmood.audio", 0, 5),
            last=Position("callmood.audio", 0, 9),
            withheld=None if prediction else "policy:role_agent",
        ),
        prediction,
    )


@pytest.mark.parametrize("times", [TIMES, None], ids=["online", "offline"])
@given(prediction=predictions)
def test_every_utterance_record_keeps_the_contract(times, prediction):
    """Labelled, abstained, failed or withheld, online or from a file: utterance/1 says what it promises."""
    read = keeps_the_contract("utterance", utterance_record(result(prediction), 1, STAMPS, times))
    assert (read.emotion is None) == (prediction is None)


@given(
    said=st.lists(predictions, max_size=8),
    reason=st.sampled_from([None, "end", "idle"]),
    notice=st.sampled_from(Notice),
)
def test_every_aggregate_keeps_the_contract_and_comes_back_from_its_hash(said, reason, notice):
    """Whatever was said in a call and however it ended, call/1 holds and survives the Redis hash."""
    state = aggregate.start(aggregate.Aggregate("call-1"), started_at_ms=1_000)
    state = aggregate.describe(state, attributes={"queue": "billing"}, notice=notice)
    for index, prediction in enumerate(said):
        state = aggregate.fold(state, result(prediction, 1_000 + 700 * index, 2_000 + 700 * index))
    if reason:
        state = aggregate.finish(state, reason=reason, end_ms=10_000)
    record = aggregate.summary(state, policy=STAMPS.policy, model=MODEL)
    assert unflatten(flatten(record)) == keeps_the_contract("call", record)
