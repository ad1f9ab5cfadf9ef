"""`python -m tests.compiled`: compile what can be compiled (`setup.py`) in a copy of the source, and test it there.

Runs the unit and property tests that import compiled code, without those marked `plain_python`, and hostile seeds of
the simulation. Exits with 1 if something is not compiled or a test fails; without a compiler, only if CI is set.
"""
# ruff: noqa: T201 - a command prints

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_SOURCE: Final = ("callmood", "worker", "schemas", "dashboard", "training", "bench", "tests", "docs")
_FILES: Final = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
_ROOMS: Final = ("speech", "call", "partition", "intake", "g711", "run.ingest")
_SEEDS: Final = "70000..70149"


def lacking() -> list[str]:
    """What the compiler needs and this machine does not have, as Debian's packages."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return [name for name, found in (("gcc", shutil.which("gcc")), ("python3-dev", header.exists())) if not found]


def copy_source(folder: Path) -> None:
    """Copy what is built and what the tests read; links stay links."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in _SOURCE:
        shutil.copytree(_ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in _FILES:
        shutil.copy(_ROOT / name, folder / name)


def build(folder: Path) -> None:
    """Compile in place.

    Raises:
        subprocess.CalledProcessError: it cannot be compiled.
    """
    command = (sys.executable, "setup.py", "--quiet", "build_ext", "--inplace")
    subprocess.run(command, cwd=folder, env={**os.environ, "COMPILE_CALLMOOD": "1"}, check=True)


def missing(folder: Path) -> list[str]:
    """Files that Python would import uncompiled in spite of `setup.py`."""
    listed = (sys.executable, "-c", "import setup; print(*setup.compiled_files(), sep='\\n')")
    files = subprocess.run(listed, cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    return [file for file in files if not list((folder / file).parent.glob(f"{Path(file).stem}.*.so"))]


def test_files(folder: Path) -> list[str]:
    """The unit and property tests that import a room that is compiled."""
    found = []
    for path in sorted((folder / "tests").glob("*/test_*.py")):
        text = path.read_text(encoding="utf-8")
        if path.parent.name in ("unit", "property") and any(f"callmood.worker.{room}" in text for room in _ROOMS):
            found.append(str(path.relative_to(folder)))
    return found


def run(folder: Path, module: str, *options: str) -> int:
    """Run a module on the compiled code; returns its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run((sys.executable, "-m", module, *options), cwd=folder, env=environment, check=False).returncode


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.compiled")
    parser.add_argument("--seeds", default=_SEEDS, metavar="FIRST..LAST", help="hostile seeds of the simulation")
    arguments = parser.parse_args()
    if packages := lacking():
        print(f"not compiled, and not tested so: apt-get install {' '.join(packages)}")
        return int("CI" in os.environ)
    with tempfile.TemporaryDirectory(prefix="callmood-compiled-") as name:
        folder, began_s = Path(name), time.monotonic()
        copy_source(folder)
        build(folder)
        print(f"compiled in {time.monotonic() - began_s:.0f} s", flush=True)
        if uncompiled := missing(folder):
            print(f"not compiled: {' '.join(uncompiled)}")
            return 1
        chosen = "not (plain_python or integration or simulation or slow or nightly)"
        shared = ("--numprocesses", "auto", "--dist", "worksteal")
        codes = [
            run(folder, "pytest", *shared, "-m", chosen, *test_files(folder)),
            run(folder, "tests.simulation", "--hostile", "--seeds", arguments.seeds),
        ]
        return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
