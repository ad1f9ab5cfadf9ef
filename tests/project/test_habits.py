"""Habits that no linter knows: tests that say what they show, pure modules without a clock."""

import ast
import re
import tomllib
from collections import Counter

IMPURE = {"asyncio", "datetime", "multiprocessing", "select", "selectors", "socket", "subprocess", "threading", "time"}
FOLDERS = {
    "chart", "cluster", "unit", "property", "contract", "simulation", "integration", "chaos", "training", "project",
}  # fmt: skip


def files_with_tests(modules):
    """The test files among the modules."""
    return {path: tree for path, tree in modules.items() if path.parts[0] == "tests" and path.name.startswith("test_")}


def cases_of(tree):
    """The test functions of a file, those in classes too."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def test_every_test_says_what_it_shows(modules):
    """The docstring of a test begins with one sentence that states the behaviour."""
    silent = []
    for path, tree in files_with_tests(modules).items():
        for node in cases_of(tree):
            first = (ast.get_docstring(node) or "").partition("\n\n")[0]
            if not first.endswith(".") or len(first.split()) < 3:
                silent.append(f"{path}:{node.lineno} {node.name}")
    assert silent == []


def test_every_test_has_a_folder_of_its_kind(modules):
    """Test files lie in a folder whose name is their marker, under names that are unique across folders."""
    files = files_with_tests(modules)
    assert {path.parts[1] for path in files} <= FOLDERS
    assert [name for name, count in Counter(path.name for path in files).items() if count > 1] == []


def test_pure_modules_have_no_clock_and_no_threads(root, modules):
    """What the import contract calls pure imports no thread, socket, process or clock either."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(one for one in settings["contracts"] if one["name"].startswith("pure"))
    pure = {name.removeprefix("callmood.").replace(".", "/") for name in contract["source_modules"]}
    seen, impure = set(), []
    for path, tree in modules.items():
        inside = {path.with_suffix("").as_posix(), path.parent.as_posix()} & pure
        if not inside:
            continue
        seen |= inside
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            impure += [f"{path}: {name}" for name in names if name.partition(".")[0] in IMPURE]
    assert seen == pure
    assert impure == []


def test_every_exemption_from_the_linter_has_a_reason(texts):
    """A `noqa` names its rule and says why, in the same line."""
    bare = []
    for path, text in texts.items():
        if path.suffix == ".py" and path.parts[:2] != ("tests", "project"):
            for number, line in enumerate(text.splitlines(), 1):
                mark = re.search(r"#\s*(?:ruff: )?noqa(.*)", line)
                if mark and not re.match(r": [A-Z0-9, ]+ - \w", mark[1]):
                    bare.append(f"{path}:{number} {line.strip()}")
    assert bare == []
