"""The published contract: models, JSON Schemas, examples, AsyncAPI and the Redis catalogue say the same."""

import json
from pathlib import Path

import jsonschema
import pydantic
import pytest
import yaml

from callmood import schemas
from callmood.schemas import flat
from callmood.schemas.__main__ import MODELS, derived, json_schema, main
from callmood.schemas.audio import AUDIO_SCHEMA
from callmood.schemas.keys import Keys
from callmood.worker.server_settings import KafkaSettings, RedisSettings

FOLDER = Path(schemas.__file__).parent
OUTPUTS = sorted(set(MODELS) - {"audio"})


def examples(kind):
    paths = [path for name in OUTPUTS for path in sorted((FOLDER / "examples" / name / kind).glob("*.json"))]
    return [pytest.param(path.parent.parent.name, path, id=f"{path.parent.parent.name}-{path.stem}") for path in paths]


def fits_json_schema(name, record):
    return jsonschema.Draft202012Validator(json_schema(name)).is_valid(record)


def model_accepts(name, record):
    try:
        MODELS[name][0].model_validate_json(json.dumps(record))
    except pydantic.ValidationError:
        return False
    return True


def test_derived_files_are_current():
    """The committed JSON Schemas and the table in redis.md are current: run `python -m callmood.schemas`."""
    assert [path.name for path, text in derived().items() if path.read_text(encoding="utf-8") != text] == []


def test_check_tells_a_stale_file_from_a_current_one(monkeypatch, tmp_path, capsys):
    """`python -m callmood.schemas --check` names what is stale and exits with 1; after writing it exits with 0."""
    for name in ("redis.md", "README.md"):
        (tmp_path / name).write_text((FOLDER / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr("callmood.schemas.__main__.FOLDER", tmp_path)
    assert main(["--check"]) == 1
    assert "utterance.schema.json" in capsys.readouterr().out
    assert main([]) == 0
    assert main(["--check"]) == 0


@pytest.mark.parametrize("name", MODELS)
def test_json_schemas_are_valid_and_explained(name):
    """Each JSON Schema is legal, knows its name and version, and describes every field."""
    schema = json_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert f"callmood.{name}/1" in json.dumps(schema)
    described = {known: "description" in part for known, part in schema.get("$defs", {}).items()}
    for part in (schema, *schema.get("$defs", {}).values()):
        for field, value in part.get("properties", {}).items():
            refers_to = value.get("$ref", "").rpartition("/")[2]
            assert "description" in value or described.get(refers_to), f"{field} has no description"


@pytest.mark.parametrize(("name", "path"), examples("valid"))
def test_valid_examples_are_accepted(name, path):
    """What the examples show as valid is accepted by the model and by the JSON Schema."""
    record = json.loads(path.read_text(encoding="utf-8"))
    MODELS[name][0].model_validate_json(json.dumps(record))
    jsonschema.Draft202012Validator(json_schema(name)).validate(record)


@pytest.mark.parametrize(("name", "path"), examples("invalid"))
def test_invalid_examples_are_refused(name, path):
    """What has the wrong shape is refused by the model and by the JSON Schema."""
    record = json.loads(path.read_text(encoding="utf-8"))
    assert not model_accepts(name, record)
    assert not fits_json_schema(name, record)


@pytest.mark.parametrize(("name", "path"), examples("inconsistent"))
def test_inconsistent_examples_are_refused_by_the_model(name, path):
    """What has the right shape but contradicts itself is refused by the model; a JSON Schema cannot say that."""
    record = json.loads(path.read_text(encoding="utf-8"))
    assert fits_json_schema(name, record)
    assert not model_accepts(name, record)


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_output_has_examples(name):
    """No schema is without valid and invalid examples."""
    for kind in ("valid", "invalid"):
        assert len(list((FOLDER / "examples" / name / kind).glob("*.json"))) >= 2


@pytest.mark.parametrize(("name", "path"), [case for case in examples("valid") if case.values[0] != "dead_letter"])
def test_a_model_writes_what_it_read(name, path):
    """Reading and writing a record changes nothing, and names no field by its Python name."""
    record = json.loads(path.read_text(encoding="utf-8"))
    assert json.loads(MODELS[name][0].model_validate(record).model_dump_json(exclude_unset=True)) == record


@pytest.mark.parametrize(("name", "path"), [case for case in examples("valid") if case.values[0] != "dead_letter"])
def test_a_reader_ignores_what_a_newer_release_adds(name, path):
    """A record with unknown fields at each depth is read as without them, as JSON and as the hash of a call."""
    record = json.loads(path.read_text(encoding="utf-8"))
    newer = grown(record)
    assert newer != record
    assert not model_accepts(name, newer)
    assert MODELS[name][0].read(json.dumps(newer)) == MODELS[name][0].model_validate(record)
    if name == "call":
        assert flat.unflatten(flat.flatten(newer)) == flat.unflatten(flat.flatten(record))


def grown(part, name=""):
    """The record with one more field in each object; `roles` and `attributes` are maps."""
    if isinstance(part, list):
        return [grown(item) for item in part]
    if not isinstance(part, dict) or name == "attributes":
        return part
    added = {} if name == "roles" else {"of_a_newer_release": {"deep": [1, "x"]}}
    return {field: grown(value, field) for field, value in part.items()} | added


def test_asyncapi_is_whole():
    """Every reference leads somewhere, every message has a channel, and the names are the worker's own."""
    document = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text(encoding="utf-8"))
    references = list(find_references(document))
    for reference in references:
        target, part = document, reference.removeprefix("#/")
        if not reference.startswith("#/"):
            assert json.loads((FOLDER / reference).read_text(encoding="utf-8"))["$id"].startswith("urn:callmood:")
            continue
        for step in part.split("/"):
            target = target[step]
    assert {f"json/{name}.schema.json" for name in MODELS} <= set(references)
    assert {f"#/components/messages/{name}" for name in document["components"]["messages"]} <= set(references)
    assert {f"#/channels/{name}" for name in document["channels"]} <= set(references)
    assert document["channels"]["audio"]["address"] == KafkaSettings().audio_topic
    assert document["channels"]["deadLetter"]["address"] == KafkaSettings().dead_letter_topic
    keys, addresses = Keys(RedisSettings().prefix), {one["address"] for one in document["channels"].values()}
    assert {*keys.streams_of_calls, keys.utterances_of("<call_id>"), keys.call("<call_id>")} <= addresses
    topics = {value for name, value in KafkaSettings() if name.endswith("_topic") and name != "state_topic"}
    assert topics <= addresses
    assert document["components"]["messages"]["audio"]["name"] == AUDIO_SCHEMA


def find_references(part):
    if isinstance(part, dict):
        yield from ([part["$ref"]] if "$ref" in part else [])
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from find_references(inner)
