"""The tutorial's commands, as a reader would type them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.usefixtures("espeak")
@pytest.mark.timeout(900)
def test_the_tutorial_runs_from_nothing_to_the_worker(tmp_path: Path):
    """docs/training.md, "Try it without a corpus": every command ends well, and the model is heard on a call."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    section = text.partition("## Try it without a corpus")[2]
    script = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1]
    assert script.count("callmood") >= 4
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "demo-tiny-synthetic 1, test: WA" in done.stdout
    assert "customer" in done.stdout.rpartition("no published figure")[2]  # the table of the call
    page = (tmp_path / "build" / "my-report" / "report.html").read_text()
    assert page.count("<svg") == 3
