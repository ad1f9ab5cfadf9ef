"""Helm itself, and the chart."""

import subprocess
from pathlib import Path

CHART = Path(__file__).parents[1] / "helm" / "callmood"


class HelmError(Exception):
    """Helm refused."""


def run_helm(*arguments):
    """`helm` with these arguments: its standard output, or a HelmError with what it said."""
    # built from source it takes a cluster of 1.20 for granted
    version = [] if "--kube-version" in arguments else ["--kube-version", "1.30.0"]
    done = subprocess.run(["helm", *map(str, arguments), *version], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HelmError(done.stdout + done.stderr)
    return done.stdout
