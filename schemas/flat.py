"""call/1 in Redis: a flat hash. schemas/redis.md lists the fields.

A nested field has a dotted name (`roles.customer.emotion.counts.anger`), a number is a plain decimal, a list of objects
is JSON, and an absent field is null or an empty list.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from callmood.schemas.call import Call
from callmood.schemas.parts import FLAT

ATTRIBUTE_PREFIX: Final = "attr."
LISTS: Final = frozenset({"signs", "alerts", "spans"})
"""Fields that are lists of objects: JSON, also in the hash."""


def flatten(call: Call | Mapping[str, Any]) -> dict[str, str]:
    """The hash of a call, which may also be given as plain JSON values."""
    fields: dict[str, str] = {}
    for name, value in (call.model_dump(mode="json") if isinstance(call, Call) else call).items():
        if name == "attributes":
            fields |= {ATTRIBUTE_PREFIX + attribute: text for attribute, text in value.items()}
        else:
            _add(fields, name, value)
    return fields


def unflatten(fields: Mapping[str, str]) -> Call:
    """The call of a hash. Fields that this version does not know are ignored: a reader may be older than the worker.

    Raises:
        pydantic.ValidationError: a field is missing or not what call/1 says.
    """
    tree: dict[str, Any] = {"roles": {}, "attributes": {}}
    for name, text in fields.items():
        if name.startswith(ATTRIBUTE_PREFIX):
            tree["attributes"][name.removeprefix(ATTRIBUTE_PREFIX)] = text
            continue
        *parents, leaf = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = text
    return Call.model_validate_strings(tree, context=FLAT, extra="ignore")


def _add(fields: dict[str, str], name: str, value: object) -> None:
    match value:
        case None:
            return
        case dict():
            for child, inner in value.items():
                _add(fields, f"{name}.{child}", inner)
        case bool():
            fields[name] = "true" if value else "false"
        case float():
            text = repr(value)
            fields[name] = format(Decimal(text), "f") if "e" in text else text
        case list() | tuple() if name in LISTS:
            if value:
                fields[name] = json.dumps(value, separators=(",", ":"))
        case list() | tuple():
            fields[name] = ",".join(map(str, value))
        case _:
            fields[name] = str(value)
