"""The documents keep up with the code: settings, files and the worked example that they show."""

import ast
import re

from worker.settings import PREFIX, Settings


def test_every_setting_in_a_document_exists(texts):
    """A `CALLMOOD_` variable that a document names is a setting of the worker."""
    known = {
        f"{PREFIX}{group}__{name}".upper()
        for group, field in Settings.model_fields.items()
        for name in field.annotation.model_fields
    }
    named = {
        (str(path), variable)
        for path, text in texts.items()
        if path.suffix == ".md"
        for variable in re.findall(rf"\b{PREFIX}[A-Z_]+[A-Z]", text)
    }
    assert len({variable for path, variable in named if path == "README.md"}) >= 5
    assert {(path, variable) for path, variable in named if variable not in known} == set()


def test_every_file_of_the_worker_is_on_the_map(root):
    """docs/architecture.md names each file of the worker and no other."""
    _, files = (root / "docs/architecture.md").read_text().split("\n## Files\n")
    named = {name for line in files.splitlines() if line.startswith("| ") for name in re.findall(r"`(\w+\.\w+)`", line)}
    there = {path.name for path in (root / "worker").glob("*.*") if path.suffix in {".py", ".lua"}} - {"__init__.py"}
    assert named == there


def test_the_example_of_the_readme_is_python(root):
    """The producer in the README parses, and is small enough to be read."""
    (block,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert ast.parse(block)
    assert block.count("\n") <= 40
