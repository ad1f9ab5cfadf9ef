"""Helm itself, and the chart."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

CHART = Path(__file__).parents[2] / "helm" / "callmood"


@pytest.fixture(scope="session")
def helm():
    """`helm(*arguments)` runs it; its standard output, or an error with what it said."""
    if shutil.which("helm") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no helm: go install helm.sh/helm/v3/cmd/helm@v3.19.5")

    def run(*arguments):
        # built from source it takes a cluster of 1.20 for granted
        version = [] if "--kube-version" in arguments else ["--kube-version", "1.30.0"]
        done = subprocess.run(["helm", *map(str, arguments), *version], capture_output=True, text=True, check=False)
        if done.returncode:
            raise HelmError(done.stdout + done.stderr)
        return done.stdout

    return run


class HelmError(Exception):
    """Helm refused."""


@pytest.fixture(scope="session")
def render(helm):
    """`render(values)` gives the objects of a release `voice` in the namespace `calls`; values: a file or a mapping."""

    def objects(values, *more):
        path = CHART / "ci" / values if isinstance(values, str) else None
        flags = (
            ["--values", path]
            if path
            else [word for key, value in values.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
        )
        text = helm("template", "voice", CHART, "--namespace", "calls", *flags, *more)
        return [one for one in yaml.safe_load_all(text) if one]

    return objects


@pytest.fixture(scope="session")
def refused():
    """The error that `helm` raises."""
    return HelmError
