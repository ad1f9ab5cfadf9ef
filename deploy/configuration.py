"""docs/configuration.md, generated from the settings."""

from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from callmood.worker.server_settings import MOST
from callmood.worker.settings import PREFIX, Settings

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
_HEAD = f"""# Settings

<!-- written by `make docs` from worker/settings.py; do not edit -->

The worker and the [commands](commands.md) read these environment variables once, at start. A name is `{PREFIX}`, the
group, `__` and the setting, in capitals. If `{PREFIX}` variables are unknown or have wrong values, the process exits
with code 2 and an error that names each of them. In the Helm chart, `config.GROUP.SETTING` sets the variables
([values](../helm/callmood/README.md)); the chart itself sets `{PREFIX}KAFKA__MEMBERSHIP`, `{PREFIX}MODEL__PATH`,
`{PREFIX}MODEL__DEVICE`, `{PREFIX}ALERT__RULES_FILE`, `{PREFIX}LOG__FORMAT` and `{PREFIX}WORKER__NAME`.

A number without an upper limit in the table is at most {MOST}.
"""
_SEE = {
    "redis": "[Keys](../schemas/redis.md), [users](../schemas/redis.md#access).",
    "kafka": "[Rights](operations.md#rights-in-kafka), [static membership](operations.md#upgrade-and-rollback).",
    "input": "[The contract](../schemas/README.md) describes the records.",
    "alert": "[Alerts](aggregates.md#alerts) describes their format.",
    "policy": "[Compliance](compliance.md) explains the law.",
    "model": "[Training](training.md) explains how to make one; [figures](../bench/RESULTS.md#engine) compare formats.",
    "worker": "[Delivery](delivery.md#the-stores) compares the outputs, [capacity](capacity.md) the processes.",
    "log": "[Log events](logs.md).",
    "trace": "[Traces](operations.md#traces).",
}
_LIMITS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}", "pattern": "matching `{}`"}


def page() -> str:
    """The content of docs/configuration.md."""
    return "\n".join([_HEAD, *(_section(name, field) for name, field in Settings.model_fields.items())])


def _section(group: str, field: FieldInfo) -> str:
    model = field.annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    about = " ".join(filter(None, [(model.__doc__ or "").strip(), _SEE.get(group)]))
    lines = [f"## {group}", "", about, "", "| variable | default | values | meaning |"]
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
        for constraint in [*setting.metadata, *_nested(setting.annotation)]
        for name, text in _LIMITS.items()
        if getattr(constraint, name, None) not in (None, MOST)
    ]
    return ", ".join([_kind(setting.annotation), *limits])


def _nested(annotation: Any) -> list[Any]:
    """The constraints inside `Annotated[…] | None`."""
    fields = [part for option in get_args(annotation) for part in getattr(option, "__metadata__", ())]
    return [constraint for field in fields for constraint in getattr(field, "metadata", [])]


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
