"""Real servers, real kills: no result is lost, duplicated or foreign. Short profile; `make chaos` runs the full one."""

import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("real_kafka")]

AT_NIGHT = pytest.param("kafka", marks=pytest.mark.nightly)  # `both` commits in the same transactions
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


@pytest.mark.parametrize("mode", ["redis", AT_NIGHT, "both"])
def test_every_utterance_once_whatever_dies(mode):
    """Through kills, zombies, failovers and cuts the outputs are exact; falsified afterwards, the verifier says so."""
    code, told = chaos("--mode", mode, *VARIANTS[mode])
    assert code == 0, told


UPGRADES = {
    "kafka": ("--seed", "41", "--only", "upgrade_new_first"),
    "redis": ("--seed", "42", "--only", "upgrade_old_first", "--membership", "static"),
}


@pytest.mark.nightly
@pytest.mark.usefixtures("helm")
@pytest.mark.parametrize("mode", UPGRADES)
def test_an_upgrade_under_load_loses_nothing(mode):
    """By the chart's own probes and grace period, new or old workers first, outputs are exact and drains in time."""
    code, told = chaos("--profile", "brief", "--mode", mode, *UPGRADES[mode])
    upgrades = re.findall(r"upgrade, \w+ workers first +(\d+)", told)
    assert (code, bool(upgrades)) == (0, True), told


BUGS = {"position_before_results": "redis", "offsets_before_results": "kafka"}
LOSS = re.compile(
    r"(?:utterances missing|utterances with other content|aggregates that differ from a recount) +([1-9])"
)


@pytest.mark.nightly  # `--tamper` shows with each change that a run can fail
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug):
    """What an untimely kill can lose is lost, speech or silence, and the verifier says so: a chaos run can fail."""
    run = ("--profile", "brief", "--mode", BUGS[bug], "--seed", "31", "--calls", "8", "--bug", bug)
    code, told = chaos(*run, "--only", "kill_at_point", "in_the_gap")
    assert (code, bool(LOSS.search(told))) == (1, True), told
