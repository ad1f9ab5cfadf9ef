"""The repository's files, read once."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_GENERATED = {"build", "dist", "node_modules"}


def _paths():
    """Files of the repository: what git tracks or would track, else (no git here) what lies in the folder."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        answer = subprocess.run(git, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        return sorted(p for p in found if not any(part[0] == "." or part in _GENERATED for part in p.parts[:-1]))
    return sorted(path for name in set(answer.split("\0")) if name and (ROOT / (path := Path(name))).is_file())


@pytest.fixture(scope="session")
def root():
    """Folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def texts():
    """Every text file of the repository: its path in it, and its text."""
    found = {}
    for path in _paths():
        try:
            found[path] = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:  # audio, weights
            continue
    return found


@pytest.fixture(scope="session")
def modules(texts):
    """Every Python file: its path and its syntax tree."""
    return {path: ast.parse(text, str(path)) for path, text in texts.items() if path.suffix == ".py"}
