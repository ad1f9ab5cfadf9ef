"""Results as Redis holds them."""

import json
from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmood import schemas
from callmood.schemas.__main__ import flat_fields
from callmood.schemas.call import Call
from callmood.schemas.flat import flatten, unflatten

EXAMPLES = Path(schemas.__file__).parent / "examples"
CALLS = [pytest.param(json.loads(path.read_text()), id=path.stem) for path in sorted(EXAMPLES.glob("call/valid/*"))]


def load(path):
    return json.loads((EXAMPLES / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("call", CALLS)
def test_a_call_comes_back_from_its_hash(call):
    """Flattening loses nothing: the call read from the hash is the call that was written."""
    model = Call.model_validate(call)
    assert flatten(model) == flatten(call)
    assert unflatten(flatten(call)) == model


@pytest.mark.parametrize("call", CALLS)
def test_the_catalogue_names_every_field(call):
    """A hash has no field that redis.md does not list."""
    listed = {name for name, _, _ in flat_fields(Call)}
    for name in flatten(call):
        generic = "attr.<name>" if name.startswith("attr.") else name
        for role in ("customer", "agent"):
            generic = generic.replace(f"roles.{role}.", "roles.<role>.")
        assert generic in listed


def test_a_full_call_uses_every_field_of_the_catalogue():
    """A completed call with everything known has every listed field but the legal basis, which it does not need."""
    names = {name.replace("roles.customer.", "roles.<role>.") for name in flatten(load("call/valid/completed.json"))}
    names = {"attr.<name>" if name.startswith("attr.") else name for name in names}
    assert {name for name, _, _ in flat_fields(Call)} - names == {"policy.legal_basis"}


@given(value=st.floats(-5, 5), share=st.floats(0, 1), milliseconds=st.integers(0, 2**53))
def test_numbers_are_plain_decimals_and_exact(value, share, milliseconds):
    """No exponent ever, and reading gives the very number that was written."""
    call = load("call/valid/live.json")
    call["roles"]["customer"]["emotion"]["overall_score"] = value
    call["roles"]["agent"]["talk_share"] = share
    call["talk_ms"] = milliseconds
    fields = flatten(call)
    assert "e" not in fields["roles.customer.emotion.overall_score"] + fields["roles.agent.talk_share"]
    assert unflatten(fields) == Call.model_validate(call)


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=4))
def test_attributes_of_any_name_come_back(attributes):
    """Dots, digits and text that looks like a number stay what they are."""
    call = {**load("call/valid/live.json"), "attributes": attributes}
    assert unflatten(flatten(call)).attributes == attributes


def test_values_have_the_text_that_readers_are_promised():
    """Other languages read the hash too: `true`, lists with commas, plain decimals, nothing for null or no items."""
    call = load("call/valid/live.json")
    call["policy"] = {"emotion_roles": ["customer", "mixed"], "require_notice": True, "legal_basis": None}
    call |= {"risk": 1e-05, "signs": [], "spans": [{"kind": "pause", "start_ms": 1, "end_ms": 2}]}
    fields = flatten(call)
    shown = {name: fields.get(name) for name in ("policy.emotion_roles", "policy.require_notice", "risk", "spans")}
    assert shown == {
        "policy.emotion_roles": "customer,mixed",
        "policy.require_notice": "true",
        "risk": "0.00001",
        "spans": '[{"kind":"pause","start_ms":1,"end_ms":2}]',
    }
    assert not {"policy.legal_basis", "signs"} & fields.keys()


def test_an_older_reader_ignores_new_fields():
    """A field of a later worker does not break a dashboard, at any depth."""
    call = load("call/valid/live.json")
    later = {**flatten(call), "mood": "good", "roles.customer.emotion.arousal": "0.4"}
    assert unflatten(later) == Call.model_validate(call)


def test_a_hash_that_is_no_call_is_refused():
    """A missing or broken field is an error, not a guess."""
    fields = flatten(load("call/valid/live.json"))
    with pytest.raises(pydantic.ValidationError, match="talk_ms"):
        unflatten({**fields, "talk_ms": "a while"})
    with pytest.raises(pydantic.ValidationError, match="call_id"):
        unflatten({name: text for name, text in fields.items() if name != "call_id"})
