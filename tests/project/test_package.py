"""The wheel in an environment of its own."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from deploy import release

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return release.build(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_has_one_top_level_name(wheel):
    """Nothing but `callmood` and its metadata is installed, and the files that are no Python come along."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"callmood", f"callmood-{release.the_version()}.dist-info"}
    assert {
        "callmood/py.typed",
        "callmood/worker/adapters/publish.lua",
        "callmood/worker/model/bundled/demo-tiny/model.safetensors",
        "callmood/training/results/card.md",
        "callmood/training/configs/paper/PF-hbt-large.toml",
    } <= set(names)


def test_the_wheel_lives_beside_other_packages_of_common_names(wheel, tmp_path):
    """Packages called `schemas` and `worker` in the same environment stay what they are, and so does callmood."""
    uv = Path(sys.executable).parent / "uv"
    python = tmp_path / "venv/bin/python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    (site / "schemas.py").write_text("OWNER = 'another project'\n")
    (site / "worker").mkdir()
    (site / "worker/__init__.py").write_text("OWNER = 'another project'\n")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    program = (
        "import schemas, worker, callmood.schemas.call, callmood.worker.settings, callmood.dashboard\n"
        "print(schemas.OWNER, worker.OWNER, callmood.__file__, sep='|')\n"
    )
    done = subprocess.run(
        [python, "-I", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.strip()
    assert done == f"another project|another project|{site}/callmood/__init__.py"
