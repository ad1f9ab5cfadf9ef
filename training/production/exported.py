"""Rows of the Parquet tables of `callmood export` as the records that they were made of."""

import json
from collections.abc import Mapping
from typing import Any, Final

from callmood.schemas.history import CALLS, UTTERANCES, Kind

_UTTERANCE: Final = "callmood.utterance/1"
_CALL: Final = "callmood.call/1"


def record(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of a row with the columns of `schemas/history.py`; another row is returned unchanged.

    The tables have neither ids nor policies of utterances. An id is made of the call and the number in it. A role that
    has an emotion was allowed to have one.
    """
    if "schema" in row:
        return row
    if UTTERANCES.keys() <= row.keys():
        return _utterance(_nested(row, UTTERANCES))
    return {"schema": _CALL, **_nested(row, CALLS)} if CALLS.keys() <= row.keys() else row


def _utterance(found: dict[str, Any]) -> dict[str, Any]:
    emotion = found["emotion"]
    if None in emotion["probabilities"].values():
        emotion["probabilities"] = None
    return {
        **found,
        "schema": _UTTERANCE,
        "utterance_id": f"{found['call_id']}:{found['number']}",
        "policy": {"emotion_roles": [found["role"]]},
        "emotion": emotion if emotion["probabilities"] or emotion["abstained"] is not None else None,
    }


def _nested(row: Mapping[str, Any], columns: Mapping[str, Kind]) -> dict[str, Any]:
    """The row with a dictionary for each name before a dot, and JSON as what it stands for."""
    found: dict[str, Any] = {}
    for name, kind in columns.items():
        *parents, last = name.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        value = row[name]
        place[last] = json.loads(value) if kind == "json" and value is not None else value
    return found
