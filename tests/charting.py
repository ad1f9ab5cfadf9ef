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


VERSIONS = ("1.27.0", "1.30.0", "1.33.0")
"""Of Kubernetes, whose API the chart's objects fit."""


def of(objects, kind):
    """The one object of a kind."""
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


def pods(objects):
    """Every pod's metadata and spec, with its container."""
    for one in objects:
        template = one if one["kind"] == "Pod" else one.get("spec", {}).get("template")
        if template and "containers" in template["spec"]:
            yield template["metadata"], template["spec"], template["spec"]["containers"][0]
