"""docs/training-options.md, generated from the options and the shipped configurations."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any, get_type_hints

from callmood.training import config
from callmood.training.config import Config, bare

PAGE = Path(__file__).parents[1] / "docs" / "training-options.md"
_HEAD = """# Options of a training run

<!-- written by `make docs` from training/options.py; do not edit -->

A configuration is a TOML file with these tables. A key that it leaves out has the default; an unknown table or key is
an error. `--set table.key=value` changes one value on the command line, `--set model.encoder.key=value` one of the
encoder's own. [How to train](training.md).
"""


def page() -> str:
    """The content of docs/training-options.md."""
    shipped = "\n".join(_shipped())
    return "\n".join([_HEAD, *(_section(name, bare(kind)) for name, kind in get_type_hints(Config).items()), shipped])


def described(kind: Any) -> dict[str, str]:
    """Name and meaning of each field, from the docstring."""
    _, _, attributes = inspect.getdoc(kind).partition("Attributes:\n")  # type: ignore[union-attr]
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}


def _section(name: str, kind: Any) -> str:
    first, _, _ = (inspect.getdoc(kind) or "").partition("\n\nAttributes:")
    lines = [
        f"## [{name}]",
        "",
        re.sub(r"\s+", " ", first),
        "",
        "| key | default | meaning |",
        "| --- | --- | --- |",
    ]
    texts = described(kind)
    rows = (
        f"| `{field.name}` | {_default(field)} | {texts[field.name].replace('|', '&#124;')} |"
        for field in dataclasses.fields(kind)
    )
    return "\n".join([*lines, *rows, ""])


def _default(field: "dataclasses.Field[Any]") -> str:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "must be given"
    if value is None or value in ("", {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`"


def _shipped() -> list[str]:
    """One table row per shipped configuration."""
    lines = ["## Shipped configurations", "", "| name | published accuracy, % |", "| --- | --- |"]
    for path in sorted(config.CONFIGS.rglob("*.toml")):
        published = config.load(path).row.published
        figures = ", ".join(f"{protocol} {accuracy:.2f}" for protocol, accuracy in published.items())
        where = path.relative_to(PAGE.parents[1]).as_posix()
        lines.append(f"| [`{path.stem}`](../{where}) | {figures or 'none'} |")
    return [*lines, ""]
