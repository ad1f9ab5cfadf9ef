"""`python -m deploy.lock`: lock the versions and hashes of the image's packages, for Linux on x86-64.

`requirements.txt` has everything except torch's CUDA build, which is in `requirements-cuda.txt`: an image for CPUs,
or one whose base has torch, does not need it. Addresses are not recorded.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent
_TORCH: Final = re.compile(r"(torch|triton|nvidia-|cuda-)")
_HEADER: Final = "# Written by `make lock`.\n"
_COMMAND: Final = (
    *("uv", "pip", "compile", "pyproject.toml", "--extra", "otel", "--extra", "page", "--quiet"),
    *("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"),
    *("--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"),
)


def main() -> int:
    """Resolve all versions again and write both files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.txt"
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([str(uv), *_COMMAND[1:], "--output-file", str(path)], cwd=_FOLDER.parent, check=True)
        pins = re.split(r"^(?=\S)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for name, wanted in (("requirements.txt", False), ("requirements-cuda.txt", True)):
        chosen = [pin for pin in pins if bool(_TORCH.match(pin)) is wanted]
        (_FOLDER / name).write_text(_HEADER + "".join(chosen), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
