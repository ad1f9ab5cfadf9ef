"""`python -m deploy.lock`: lock the versions and hashes of the image's packages, for Linux on x86-64.

`requirements.txt` has everything except torch's CUDA build, which is in `requirements-cuda.txt`: an image for CPUs,
or one whose base has torch, does not need it. `requirements-compile.txt` has what compiles, which is in no image.
Addresses are not recorded.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent
_TORCH: Final = re.compile(r"(torch|triton|nvidia-|cuda-)")
_HEADER: Final = "# Written by `make lock`.\n"
_COMMAND: Final = (
    *("pip", "compile", "--quiet"),
    *("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"),
    *("--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"),
)


def main() -> int:
    """Resolve all versions again and write both files."""
    pins = _pins("pyproject.toml", "--extra", "otel", "--extra", "page")
    _write("requirements.txt", [pin for pin in pins if not _TORCH.match(pin)])
    _write("requirements-cuda.txt", [pin for pin in pins if _TORCH.match(pin)])
    extras = tomllib.loads((_FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    _write("requirements-compile.txt", _pins("-", given="\n".join(extras["optional-dependencies"]["compile"])))
    return 0


def _pins(*source: str, given: str = "") -> list[str]:
    """Each package with its version and hashes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.txt"
        uv = Path(sys.executable).with_name("uv")
        command = [str(uv), *_COMMAND, *source, "--output-file", str(path)]
        subprocess.run(command, cwd=_FOLDER.parent, input=given, text=True, check=True)
        return re.split(r"^(?=\S)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]


def _write(name: str, pins: list[str]) -> None:
    (_FOLDER / name).write_text(_HEADER + "".join(pins), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
