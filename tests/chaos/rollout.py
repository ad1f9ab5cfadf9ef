"""Workers upgraded as Kubernetes upgrades them: with the probes and the grace period that the chart itself comes to."""

import subprocess
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.scene import Fault, Scene

_CHART = Path(__file__).parents[2] / "helm" / "callmood"


@dataclass(frozen=True)
class Timings:
    """What a pod of the chart is given, in s; and how many failed looks at /livez end it."""

    grace_s: float
    period_s: float
    startup_s: float
    failures: int


@cache
def timings() -> Timings:
    """The chart's own, as Helm renders it."""
    command = ["helm", "template", "voice", _CHART, "--values", _CHART / "ci" / "cpu-values.yaml"]
    done = subprocess.run([*command, "--kube-version", "1.30.0"], capture_output=True, text=True, check=True)
    (pod,) = [one["spec"]["template"]["spec"] for one in yaml.safe_load_all(done.stdout) if one["kind"] == "Deployment"]
    worker: dict[str, Any] = pod["containers"][0]
    startup, liveness = worker["startupProbe"], worker["livenessProbe"]
    return Timings(
        grace_s=float(pod["terminationGracePeriodSeconds"]),
        period_s=float(worker["readinessProbe"]["periodSeconds"]),
        startup_s=float(startup["periodSeconds"] * startup["failureThreshold"]),
        failures=liveness["failureThreshold"],
    )


def upgrade_new_first(scene: Scene) -> None:
    """Each worker gets a successor, and ends once that is ready: a Deployment that may surge."""
    for old in scene.fleet.numbers:
        new = max(scene.fleet.numbers) + 1
        scene.fleet.start(new)
        _wait_ready(scene, new)
        _end(scene, old)
    scene.note("upgrade, new workers first")


def upgrade_old_first(scene: Scene) -> None:
    """Each worker ends, and another takes its place and its name: a StatefulSet, or a Deployment that may not surge."""
    for number in scene.fleet.numbers:
        _end(scene, number)
        scene.fleet.start(number)
        _wait_ready(scene, number)
    scene.note("upgrade, old workers first")


def _wait_ready(scene: Scene, new: int) -> None:
    """Look as often as the kubelet does, at the newcomer and at whether the others live."""
    chart, failed = timings(), dict.fromkeys(scene.fleet.numbers, 0)
    deadline_s = time.monotonic() + chart.startup_s
    while not scene.fleet.is_ready(new):
        for number in failed.keys() - {new}:
            failed[number] = 0 if scene.fleet.is_alive(number) else failed[number] + 1
            if failed[number] >= chart.failures:
                raise TimeoutError(f"worker {number} would have been ended: its /livez failed {failed[number]} times")
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"worker {new} would have been ended: not ready after {chart.startup_s:g} s")
        time.sleep(chart.period_s)


def _end(scene: Scene, number: int) -> None:
    """SIGTERM; a worker that outlives its grace period raises `subprocess.TimeoutExpired`."""
    scene.drains_s.append(scene.fleet.terminate(number, for_good=True, grace_s=timings().grace_s))


UPGRADES: tuple[Fault, ...] = (upgrade_new_first, upgrade_old_first)
