"""`python -m deploy.release`: all that a release consists of, made and tried, in dist/. Nothing is published.

Sources and wheel, the chart, a bill of materials of the image, and the checksums of all of them.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

import yaml

_ROOT: Final = Path(__file__).parents[1]
_BIN: Final = Path(sys.executable).parent


class NotReadyError(Exception):
    """What must be put right before a release."""


def the_version() -> str:
    """The one of pyproject.toml, which the chart, the compose file and the changelog must have too.

    Raises:
        NotReadyError: one of them has another.
    """
    version = str(tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"])
    chart = yaml.safe_load((_ROOT / "helm/callmood/Chart.yaml").read_text())
    if (chart["version"], chart["appVersion"]) != (version, version):
        raise NotReadyError(f"helm/callmood/Chart.yaml is not at {version}")
    if f"callmood/worker:{version}\n" not in (_ROOT / "deploy/compose.yaml").read_text():
        raise NotReadyError(f"deploy/compose.yaml is not at {version}")
    if not re.search(rf"^## \[{re.escape(version)}\]", (_ROOT / "CHANGELOG.md").read_text(), re.MULTILINE):
        raise NotReadyError(f"CHANGELOG.md has no section {version}")
    return version


def _run(*command: str | Path, **more: Any) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **more)
    if done.returncode:
        raise NotReadyError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return str(done.stdout)


def build(folder: Path) -> Path:
    """Sources and wheel, with the time of the last commit: the same commit gives the same files. Returns the wheel."""
    moment = _run("git", "log", "-1", "--format=%ct", cwd=_ROOT).strip()
    _run(_BIN / "python", "-m", "build", "--outdir", folder, _ROOT, env=os.environ | {"SOURCE_DATE_EPOCH": moment})
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_wheel(wheel: Path) -> str:
    """Install it where nothing of the repository is, with the libraries that are here, and analyze a call."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(_BIN / "uv", "venv", "--quiet", "--python", sys.executable, folder / "venv")
        python = folder / "venv/bin/python"
        _run(_BIN / "uv", "pip", "install", "--quiet", "--no-deps", "--python", python, wheel)
        site = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(site) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
        clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        call = _ROOT / "examples/calls/billing.flac"
        told = _run(folder / "venv/bin/callmood", "analyze", call, cwd=folder, env=clean)
        whose = _run(python, "-c", "import callmood; print(callmood.__file__)", cwd=folder, env=clean)
    if not whose.startswith(name):
        raise NotReadyError(f"tried {whose}, not the wheel")
    return told


def package_chart(folder: Path) -> None:
    """The chart, if Helm is here."""
    if shutil.which("helm") is None:
        raise NotReadyError("no helm: go install helm.sh/helm/v3/cmd/helm@v3.19.5")
    _run("helm", "package", _ROOT / "helm/callmood", "--destination", folder)


def write_bill(folder: Path, version: str) -> None:
    """CycloneDX, of what the image locks."""
    for name in ("requirements", "requirements-cuda"):
        path = folder / f"callmood-{version}-{name}.cdx.json"
        where = ("--output-format", "JSON", "--output-reproducible", "--output-file", path)
        _run(_BIN / "cyclonedx-py", "requirements", *where, _ROOT / f"deploy/{name}.txt")


def write_sums(folder: Path) -> list[str]:
    """SHA-256 of every file."""
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    return lines


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description=__doc__)
    parser.add_argument("--output", type=Path, default=_ROOT / "dist", help="an empty folder, or none yet")
    folder: Path = parser.parse_args().output
    try:
        if folder.exists() and list(folder.iterdir()):
            raise NotReadyError(f"{folder} is not empty")  # noqa: TRY301 - one way out for every reason
        folder.mkdir(parents=True, exist_ok=True)
        version = the_version()
        print(f"callmood {version}")
        print(f"the wheel says of a call: {len(try_wheel(build(folder)).splitlines())} lines")
        package_chart(folder)
        write_bill(folder, version)
        print("\n".join(write_sums(folder)))
    except NotReadyError as error:
        print(f"not ready: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
