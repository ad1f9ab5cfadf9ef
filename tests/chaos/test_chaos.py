"""Real servers, real kills: nothing is lost, doubled or foreign. The short profile; `make chaos` runs the full one."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("real_kafka")]

VARIANTS = {
    "redis": ("--seed", "11", "--tamper"),
    "kafka": ("--seed", "12", "--assignor", "range", "--chunk-ms", "20", "--tamper"),
    "both": ("--seed", "13", "--membership", "static", "--chunk-ms", "1000"),
}


def chaos(*arguments, **environment):
    """A run; its exit code and what it printed."""
    command = [sys.executable, "-m", "tests.chaos", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **environment)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("mode", VARIANTS)
def test_every_utterance_once_whatever_dies(mode):
    """Through kills, zombies, failovers and cuts the outputs are exact; falsified afterwards, the verifier says so."""
    code, told = chaos("--mode", mode, *VARIANTS[mode])
    assert code == 0, told
