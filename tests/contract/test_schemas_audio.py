"""The published examples of audio/1, as records: the worker reads or refuses them as they say."""

import base64
import json
from pathlib import Path

import jsonschema
import pytest

from callmood import schemas
from callmood.schemas.__main__ import json_schema
from callmood.schemas.audio import AudioHeaders
from callmood.worker.errors import BadRecord, Reason
from callmood.worker.intake.decode import decode
from callmood.worker.records import Position, Record

FOLDER = Path(schemas.__file__).parent / "examples" / "audio"
# What the order of a stream and the state of a call say, not the record alone.
NOT_FOR_DECODE = {
    Reason.FORMAT_CHANGED,
    Reason.SEQ_BACKWARDS,
    Reason.BAD_MEDIA_TIME,
    Reason.CALL_ENDED,
    Reason.NOT_OURS,
    Reason.WORKER_ERROR,
}


def load(kind):
    paths = sorted((FOLDER / kind).glob("*.json"))
    return [pytest.param(json.loads(path.read_text(encoding="utf-8")), id=path.stem) for path in paths]


def decoded(example):
    given = example["record"]
    if "value_json" in given:
        value = json.dumps(given["value_json"]).encode()
    else:
        value = base64.b64decode(given["value_base64"])
    key = given["key"] and given["key"].encode()
    headers = tuple((name, text.encode()) for name, text in given["headers"].items())
    return decode(
        Record(Position("callmood.audio", 0, 0), key, value, headers, given["timestamp_ms"]),
        input_format=example["input_format"],
        max_record_ms=example.get("max_record_ms", 5_000),
    )


@pytest.mark.parametrize("example", load("valid"))
def test_valid_records_are_read(example):
    """A valid example becomes the chunk it says, or nothing where it says nothing."""
    chunk = decoded(example)
    found = chunk and {"event": chunk.event.value, "samples": chunk.samples}
    assert found == example["expect"]


@pytest.mark.parametrize("example", load("invalid"))
def test_invalid_records_are_refused(example):
    """An invalid example is refused under the reason it says."""
    with pytest.raises(BadRecord) as caught:
        decoded(example)
    assert caught.value.reason == example["reason"]


@pytest.mark.parametrize("example", [case for case in load("valid") if case.values[0]["input_format"] == "headers"])
def test_valid_headers_fit_the_model_and_the_json_schema(example):
    """Headers of a valid example pass the model, the JSON Schema, and a way there and back."""
    headers = example["record"]["headers"]
    jsonschema.Draft202012Validator(json_schema("audio")).validate(headers)
    written = AudioHeaders.model_validate(headers).to_kafka()
    assert headers.items() <= {name: value.decode() for name, value in written}.items()


def test_every_reason_of_decode_has_an_example():
    """Operators can look up each reason a single record can be refused for."""
    assert {case.values[0]["reason"] for case in load("invalid")} == set(Reason) - NOT_FOR_DECODE
