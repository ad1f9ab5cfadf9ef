"""docs/tutorial.md, typed by a reader who has just cloned the repository."""

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path):
    """The repository as a clone of it would be, in an empty folder, with what `make setup` has made."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)  # with its time: make must see that nothing is to be done
    (tmp_path / ".venv").symlink_to(Path(os.environ.get("VENV", ROOT / ".venv")).resolve())
    return tmp_path


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("real_kafka")
def test_every_command_of_the_tutorial_does_what_it_says(clone):
    """From setup to receipt, one shell after the other; the first command that fails ends the test."""
    text = (clone / "docs/tutorial.md").read_text(encoding="utf-8")
    commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(commands) >= 8
    variables = {name: value for name, value in os.environ.items() if not name.startswith("CALLMOOD_")}
    variables |= {
        "PYTHONPATH": str(clone),
        "SHELLOPTS": "braceexpand:errexit:hashall:interactive-comments:nounset:pipefail",
        "CALLMOOD_WORKER__HEALTH_PORT": "0",  # another test may have the usual one
    }
    with (clone / "told").open("w") as told:
        reader = subprocess.Popen(
            ["bash"], stdin=subprocess.PIPE, stdout=told, stderr=told, cwd=clone, env=variables, start_new_session=True
        )
        try:
            reader.communicate("".join(commands).encode(), timeout=300)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(reader.pid, signal.SIGKILL)
    said = (clone / "told").read_text()
    assert reader.returncode == 0, said[-6000:]
    for expected in ("kafka: ok", "redis: ok", "model: ok", "utterances:my-first"):
        assert expected in said, said
    assert re.search(r"^my-first completed \d+$", said, re.MULTILINE), said
    assert "worker stopped" in (clone / "worker.log").read_text()
