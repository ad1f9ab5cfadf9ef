"""The code that can be compiled."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import setup
from callmood.worker.call.checkpoint import Stored
from callmood.worker.call.fold import _Saved
from callmood.worker.partition.ended import Ended

ROOT = Path(__file__).parents[2]


def types_in(kind: Any) -> set[type]:
    """Our classes that a value of this type can hold."""
    if isinstance(kind, type) and kind.__module__.startswith("callmood."):
        return {kind}.union(*map(types_in, get_type_hints(kind).values()))
    return set().union(*map(types_in, get_args(kind)))


def test_values_that_are_read_by_their_annotations_are_not_compiled():
    """Compiled classes have no annotations, so msgspec could not read a compiled state."""
    compiled = {path.removesuffix(".py").replace("/", ".") for path in setup.compiled_files()}
    read = set().union(*map(types_in, (Stored, Ended, _Saved)))
    assert len(read) > 15
    assert {kind.__module__ for kind in read} & compiled == set()
    assert [path for path in setup.compiled_files() if "(msgspec.Struct" in (ROOT / path).read_text()] == []


def test_every_file_that_is_left_out_exists():
    """A file that was renamed would be compiled."""
    rooms = {room: {path.stem for path in (ROOT / "worker" / room).glob("*.py")} for room in setup.ROOMS}
    assert all(names <= rooms[room] for room, names in setup.PLAIN.items())


def test_without_mypy_the_remedy_is_said(tmp_path):
    """Its output is all that the user of `pip install` sees."""
    (tmp_path / "mypyc.py").write_text("raise ModuleNotFoundError")
    environment = {"COMPILE_CALLMOOD": "1", "PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install '.[compile]'" in done.stderr
