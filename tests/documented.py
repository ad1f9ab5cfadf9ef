"""Commands of a document, as a reader types them, run in this process: libraries are imported once."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from callmood.__main__ import main as callmood
from callmood.training.__main__ import main as callmood_train

ROOT = Path(__file__).parents[1]
_PROGRAMS = {"callmood": callmood, "callmood-train": callmood_train}


def sections(page: str) -> dict[str, str]:
    """The sections of a page by their titles."""
    parts = re.split(r"^## (.*)\n", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(section: str) -> list[str]:
    """The shell scripts of a section."""
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def inline(section: str, start: str) -> str:
    """The command in the section's running text that starts with these words, on one line."""
    (found,) = re.findall(rf"`((?:callmood-train )?{re.escape(start)}[^`]*)`", section)
    return "callmood-train " + " ".join(found.split()).removeprefix("callmood-train ")


def run(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script in the current folder: each command must end with 0."""
    for line in script.splitlines():
        command, _, target = line.partition(" > ")
        words = shlex.split(command, comments=True)
        while "=" in words[0]:
            monkeypatch.setenv(*words.pop(0).split("=", 1))
        arguments = [
            path for word in words[1:] for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
        ]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert _PROGRAMS[words[0]](arguments) == 0, line
        if target:
            Path(target).write_text(printed.getvalue())
