"""`python -m deploy.release`: builds and tests all artefacts of a release in dist/. It does not publish them.

The artefacts are sources and wheel, the chart, a bill of materials of the image, and checksums of all of them.
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
    """The repository is not ready for a release; the message says what to fix."""


def the_version() -> str:
    """The version in pyproject.toml, after a check that chart, compose file and changelog have the same.

    Raises:
        NotReadyError: a file has another version.
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
    """Build sources and wheel with the time of the last commit, so that a commit always gives the same files.

    Returns the wheel.
    """
    moment = _run("git", "log", "-1", "--format=%ct", cwd=_ROOT).strip()
    _run(_BIN / "python", "-m", "build", "--outdir", folder, _ROOT, env=os.environ | {"SOURCE_DATE_EPOCH": moment})
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_wheel(wheel: Path) -> str:
    """Install the wheel into an empty environment that sees the installed libraries, and analyze a call.

    Returns the output of `callmood analyze`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(_BIN / "uv", "venv", "--quiet", "--python", sys.executable, folder / "venv")
        python = folder / "venv/bin/python"
        _run(_BIN / "uv", "pip", "install", "--quiet", "--no-deps", "--python", python, wheel)
        site = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(site) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
        clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        call = _ROOT / "examples/calls/billing.flac"
        output = _run(folder / "venv/bin/callmood", "analyze", call, cwd=folder, env=clean)
        imported = _run(python, "-c", "import callmood; print(callmood.__file__)", cwd=folder, env=clean)
    if not imported.startswith(name):
        raise NotReadyError(f"tested {imported}, not the wheel")
    return output


def package_chart(folder: Path) -> None:
    """Package the chart with Helm."""
    if shutil.which("helm") is None:
        raise NotReadyError("helm is not installed: go install helm.sh/helm/v3/cmd/helm@v3.19.5")
    _run("helm", "package", _ROOT / "helm/callmood", "--destination", folder)


def write_bill(folder: Path, version: str) -> None:
    """Write a CycloneDX bill of materials for each lock file of the image."""
    for name in ("requirements", "requirements-cuda"):
        path = folder / f"callmood-{version}-{name}.cdx.json"
        where = ("--output-format", "JSON", "--output-reproducible", "--output-file", path)
        _run(_BIN / "cyclonedx-py", "requirements", *where, _ROOT / f"deploy/{name}.txt")


def write_sums(folder: Path) -> list[str]:
    """Write SHA256SUMS over every file; returns its lines."""
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    return lines


def main() -> int:
    """Run all steps; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description=__doc__)
    parser.add_argument("--output", type=Path, default=_ROOT / "dist", help="empty or missing folder")
    folder: Path = parser.parse_args().output
    try:
        if folder.exists() and list(folder.iterdir()):
            raise NotReadyError(f"{folder} is not empty")  # noqa: TRY301 - one way out for every reason
        folder.mkdir(parents=True, exist_ok=True)
        version = the_version()
        print(f"callmood {version}")
        print(f"the wheel works: {len(try_wheel(build(folder)).splitlines())} lines for one call")
        package_chart(folder)
        write_bill(folder, version)
        print("\n".join(write_sums(folder)))
    except NotReadyError as error:
        print(f"not ready: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
