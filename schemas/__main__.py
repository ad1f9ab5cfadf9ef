"""`python -m callmood.schemas [--check]`: write (or check) everything that is derived from the models.

Derived are schemas/json/*.schema.json, the table of call fields in schemas/redis.md, and the tables of headers and
reasons in schemas/README.md.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from callmood.schemas.alert import Alert
from callmood.schemas.audio import AUDIO_SCHEMA, MAX_CHANNELS, AudioHeaders
from callmood.schemas.call import Call
from callmood.schemas.common import RATES_HZ, AbstainReason, DeadLetterReason, Reserved, Role, WithheldReason
from callmood.schemas.dead_letter import DeadLetterHeaders
from callmood.schemas.erasure import Erasure
from callmood.schemas.flat import ATTRIBUTE_PREFIX
from callmood.schemas.utterance import Utterance

FOLDER: Final = Path(__file__).parent
# What we read may leave out optional fields; what we write always has every field.
MODELS: Final[dict[str, tuple[type[BaseModel], JsonSchemaMode]]] = {
    "alert": (Alert, "serialization"),
    "audio": (AudioHeaders, "validation"),
    "call": (Call, "serialization"),
    "dead_letter": (DeadLetterHeaders, "serialization"),
    "erasure": (Erasure, "serialization"),
    "utterance": (Utterance, "serialization"),
}
_REASONS: Final[dict[str, type[AbstainReason | WithheldReason | DeadLetterReason]]] = {
    "emotion.reason": AbstainReason,
    "withheld": WithheldReason,
    "dead_letter.reason": DeadLetterReason,
}
_BEGIN: Final = "<!-- python -m callmood.schemas: {} -->\n"
_END: Final = "<!-- end -->\n"
_VALUES: Final = {
    "schema_": f"`{AUDIO_SCHEMA}`",
    "seq": "integer",
    "media_ms": "decimal",
    "rate": " · ".join(f"`{rate_hz}`" for rate_hz in RATES_HZ),
    "layout": f"1 to {MAX_CHANNELS} of {', '.join(f'`{role.value}`' for role in Role)}, comma-separated",
    "discarded_ms": "decimal",
}
_HEAD: Final = "| field | type | meaning |\n| --- | --- | --- |\n"


class _Untitled(GenerateJsonSchema):
    """Without a title on every field: it would only repeat the name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the library's signature
        """Never."""
        return False


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of one of `MODELS`."""
    model, mode = MODELS[name]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:callmood:{name}:1",
        **model.model_json_schema(mode=mode, schema_generator=_Untitled),
    }


def derived() -> dict[Path, str]:
    """Every derived file, with its content."""
    files = {
        FOLDER / "json" / f"{name}.schema.json": json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n"
        for name in MODELS
    }
    rows = "".join(f"| `{name}` | {kind} | {meaning} |\n" for name, kind, meaning in flat_fields(Call))
    tables = {
        "redis.md": {"fields": _HEAD + rows},
        "README.md": {"headers": _headers(), "names": _names(), "reasons": _reasons()},
    }
    return files | {FOLDER / name: _filled(FOLDER / name, texts) for name, texts in tables.items()}


def _filled(path: Path, texts: Mapping[str, str]) -> str:
    """The page with each text between its marks."""
    page = path.read_text(encoding="utf-8")
    for name, text in texts.items():
        begin = _BEGIN.format(name)
        before, _, rest = page.partition(begin)
        page = before + begin + text + _END + rest.partition(_END)[2]
    return page


def _headers() -> str:
    """The table of the headers of audio/1."""
    rows = []
    for name, field in AudioHeaders.model_fields.items():
        kind = _plain(field.annotation)
        values = _kind(kind) if isinstance(kind, type) and issubclass(kind, Enum) else _VALUES.get(name, "text")
        default = "" if field.is_required() or field.default is None else f"; default: `{field.default}`"
        meaning = " ".join((field.description or "").split()) + (" Required." if field.is_required() else "")
        rows.append(f"| `{field.alias or name}` | {values}{default} | {meaning} |\n")
    attribute = f"| `{ATTRIBUTE_PREFIX}<name>` | text | Attribute of the call, for example the queue. |\n"
    return f"| header | values | meaning |\n| --- | --- | --- |\n{''.join(rows)}{attribute}"


def _names() -> str:
    """The table of reserved names of attributes."""
    rows = "".join(f"| `{name.value}` | {name.meaning} |\n" for name in Reserved)
    return f"| attribute | meaning |\n| --- | --- |\n{rows}"


def _reasons() -> str:
    """A table for each field that holds a reason."""
    tables = []
    for field, reasons in _REASONS.items():
        rows = "".join(f"| `{reason.value}` | {reason.meaning} |\n" for reason in reasons)
        tables.append(f"| `{field}` | meaning |\n| --- | --- |\n{rows}")
    return "\n".join(tables)


def flat_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """The fields of the flat hash of a call: name, type and meaning."""
    for name, field in model.model_fields.items():
        path, kind = prefix + (field.alias or name), _plain(field.annotation)
        meaning = " ".join((field.description or "").split())
        if path == "attributes":
            yield f"{ATTRIBUTE_PREFIX}<name>", "text", meaning
        elif get_origin(kind) is dict:
            yield from flat_fields(get_args(kind)[1], f"{path}.<role>.")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from flat_fields(kind, f"{path}.")
        else:
            yield path, _kind(kind), meaning


def _plain(annotation: Any) -> Any:
    """The annotation without `| None` and without constraints."""
    if NoneType in get_args(annotation):
        annotation = next(option for option in get_args(annotation) if option is not NoneType)
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _kind(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " · ".join(f"`{member.value}`" for member in annotation)
    if get_origin(annotation) is tuple:
        if issubclass(get_args(annotation)[0], BaseModel):
            return "JSON list of " + " · ".join(f"`{name}`" for name in get_args(annotation)[0].model_fields)
        return "texts, comma-separated"
    return {int: "integer", float: "decimal", bool: "`true` · `false`"}.get(annotation, "text")


def main(arguments: list[str]) -> int:
    """Write the derived files; with `--check` only name the stale ones (exit code 1 if there are any)."""
    check = "--check" in arguments
    stale = {
        path: text for path, text in derived().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(FOLDER.parent)}")  # noqa: T201 - a command
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
