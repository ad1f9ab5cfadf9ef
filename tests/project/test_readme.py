"""The documents keep up with the code: settings, files and the worked example that they show."""

import ast
import re

from callmood.worker.settings import PREFIX, Settings


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


def test_every_package_of_the_worker_is_in_the_list(root):
    """docs/architecture.md names each package and each shared module of the worker, and no other."""
    _, packages = (root / "docs/architecture.md").read_text().split("\n## Packages\n")
    packages, shared = packages.split("\nA stage has")[0].split("\nBeside the packages")
    assert set(re.findall(r"^\| `(\w+)/` \|", packages, re.MULTILINE)) == {
        path.parent.name for path in (root / "worker").glob("*/__init__.py")
    }
    assert set(re.findall(r"`(\w+\.py)`", shared)) == {path.name for path in (root / "worker").glob("*.py")} - {
        "__init__.py"
    }


def test_the_python_snippet_of_the_readme_uses_the_public_reader(root):
    """The README's only Python snippet parses, is short, and imports `Dashboard` from its public place."""
    (block,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert ast.parse(block)
    assert "from callmood.dashboard import Dashboard\n" in block
    assert block.count("\n") <= 12


def test_the_readme_stays_short(root):
    """The README has at most 140 lines."""
    assert (root / "README.md").read_text().count("\n") <= 140


def test_the_readme_creates_topics_with_our_own_command(root):
    """The README creates the topics with `callmood topics`, not with another project's tool."""
    text = (root / "README.md").read_text()
    assert "callmood topics --partitions" in text
    assert "kafka-topics" not in text
    assert "kafka-python" not in text
