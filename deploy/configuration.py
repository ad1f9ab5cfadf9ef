"""docs/configuration.md, generated from the settings."""

from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from callmood.worker.settings import MOST, PREFIX, Settings

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
_HEAD = f"""# Settings

<!-- written by `make docs` from worker/settings.py; do not edit -->

The worker reads its settings once, at start, from environment variables: `{PREFIX}` + group + `__` + name, in
capitals. If a `{PREFIX}` variable is unknown or has a wrong value, the worker exits with code 2 and an error that
lists all of them. Integers without a limit here are at most {MOST}.
"""
_LIMITS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}", "pattern": "like `{}`"}


def page() -> str:
    """The content of docs/configuration.md."""
    return "\n".join([_HEAD, *(_section(name, field) for name, field in Settings.model_fields.items())])


def _section(group: str, field: FieldInfo) -> str:
    model = field.annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    lines = [f"## {group}", "", (model.__doc__ or "").strip(), "", "| variable | default | values | meaning |"]
    lines.append("| --- | --- | --- | --- |")
    for name, setting in model.model_fields.items():
        variable = f"`{PREFIX}{group.upper()}__{name.upper()}`"
        cells = [variable, _default(setting.default), _values(setting), setting.description or ""]
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines, ""])


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{','.join(value)}`" if isinstance(value, tuple) else f"`{value}`"


def _values(setting: FieldInfo) -> str:
    limits = [
        text.format(getattr(constraint, name))
        for constraint in setting.metadata
        for name, text in _LIMITS.items()
        if getattr(constraint, name, None) not in (None, MOST)
    ]
    return ", ".join([_kind(setting.annotation), *limits])


def _kind(annotation: Any) -> str:
    """The type, for a reader who writes an environment file."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _kind(next(option for option in arguments if option is not type(None)))
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return " · ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list, comma-separated: {_kind(arguments[0])}"
    if hasattr(annotation, "__members__"):
        return " · ".join(f"`{member.value}`" for member in annotation)
    names = {int: "integer", float: "decimal", bool: "`true` · `false`", Path: "path"}
    return names.get(annotation, "text")
