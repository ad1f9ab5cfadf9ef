"""History as tables: the columns of calls and utterances, the same as in deploy/clickhouse.sql, and the rows.

A column with a dot is a part of a nested field. Maps and lists are JSON.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from callmood.schemas.common import EMOTIONS

Kind = Literal["text", "integer", "decimal", "boolean", "json"]


def _columns(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


_PROBABILITIES: Final = " ".join(f"emotion.probabilities.{emotion}" for emotion in EMOTIONS)
_MODEL: Final = _columns("text", "model.id model.version model.digest")
_MEASURED: Final = " ".join(
    f"{name}.{part}"
    for name in ("silences", "overlaps")
    for part in ("threshold_ms", "count", "total_ms", "longest_ms")
)

UTTERANCES: Final[Mapping[str, Kind]] = {
    **_columns("text", "call_id"),
    **_columns("integer", "number"),
    **_columns("text", "role"),
    **_columns("integer", "channel"),
    **_columns("text", "stream"),
    **_columns("integer", "start_ms end_ms spoken_at_ms"),
    **_columns("json", "attributes"),
    **_columns("text", "kind"),
    **_columns("boolean", "echo background"),
    **_columns("text", "emotion.label"),
    **_columns("decimal", _PROBABILITIES),
    **_columns("boolean", "emotion.abstained"),
    **_columns("text", "emotion.reason withheld"),
    **_columns("decimal", "acoustics.rms_dbfs acoustics.snr_db acoustics.clipping"),
    **_columns("integer", "acoustics.bandwidth_hz quality.missing_ms quality.overlap_ms"),
    **_columns("text", "quality.cut quality.looks_like"),
    **_MODEL,
    **_columns("decimal", "latency_ms.total"),
}
"""Columns of an utterance/1."""

CALLS: Final[Mapping[str, Kind]] = {
    **_columns("text", "call_id"),
    **_columns("integer", "version"),
    **_columns("text", "status end_reason"),
    **_columns("integer", "started_at_ms updated_at_ms duration_ms utterances doubtful_format missing_ms redacted_ms"),
    **_columns("integer", "talk_ms non_talk_ms longest_silence_ms overlap_ms hold_ms"),
    **_columns("integer", _MEASURED),
    **_columns("json", "roles attributes"),
    **_columns("text", "notice"),
    **_MODEL,
    **_columns("decimal", "risk"),
    **_columns("text", "need"),
    **_columns("json", "signs alerts spans"),
}
"""Columns of a call/1."""


def row(record: Mapping[str, Any], columns: Mapping[str, Kind]) -> dict[str, Any]:
    """A record as a row: None where it has no value."""
    return {name: _value(record, name, kind) for name, kind in columns.items()}


def _value(record: Mapping[str, Any], name: str, kind: Kind) -> Any:
    value: Any = record
    for part in name.split("."):
        value = value.get(part) if value is not None else None
    return value if kind != "json" or value is None else json.dumps(value, separators=(",", ":"))
