"""Compiles the code that handles each record, if COMPILE_CALLMOOD is 1; everything else is in pyproject.toml."""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

ROOMS = ("speech", "call", "partition", "intake")
OTHERS = ("g711", "adapters/kafka_records")
PLAIN = {
    "speech": {"heard", "media_rate", "segment_state", "stream_state"},
    "call": {"aggregate", "alert", "checkpoint", "ending", "fold", "rule", "scores", "timeline"},
    "partition": {"ended"},
}
"""Files of values that are stored or published: msgspec and pydantic read their annotations at run time."""


def compiled_files() -> list[str]:
    """Files that are compiled, from the top of the repository."""
    files = [
        path
        for room in ROOMS
        for path in sorted(Path("callmood/worker", room).glob("[a-z]*.py"))
        if path.stem not in PLAIN.get(room, ())
    ]
    return [*map(str, files), *(f"callmood/worker/{name}.py" for name in OTHERS)]


def modules() -> list[Extension]:
    """The compiled modules; none without COMPILE_CALLMOOD=1.

    Raises:
        SystemExit: the value is neither 0 nor 1, or mypy is not installed where this runs.
    """
    wanted = os.environ.get("COMPILE_CALLMOOD", "0")
    if wanted not in ("0", "1"):
        sys.exit(f"COMPILE_CALLMOOD is 0 or 1, not {wanted!r}")
    if wanted == "0":
        return []
    try:
        from mypyc.build import mypycify  # noqa: PLC0415 - of mypy, which only this needs
    except ModuleNotFoundError:
        sys.exit(
            "COMPILE_CALLMOOD=1 needs mypy beside callmood's packages: pip install '.[compile]', then "
            "COMPILE_CALLMOOD=1 pip install --no-deps --no-build-isolation ."
        )
    return mypycify(compiled_files(), group_name="callmood", opt_level="2", debug_level="0")


if __name__ == "__main__":
    setup(ext_modules=modules())
