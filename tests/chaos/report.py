"""The report of a run: its faults, calls, takeovers, and the findings of the verifier."""

import os
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.chaos.confidential import told

if TYPE_CHECKING:
    from tests.chaos.scene import Scene
    from tests.chaos.takeovers import Takeovers

_MANY = 100
_FEW = 3


class Report:
    """Filled in by the run, read at its end."""

    def __init__(self, command: str) -> None:
        self.takeovers: Takeovers | None = None
        self._command = command
        self._marks = [("", time.monotonic())]
        self._rows: list[tuple[str, str]] = []
        self._verdict = ""
        self.broken: list[str] = []
        """What the run should have done and did not, besides what the verifier says."""

    def mark(self, phase: str) -> None:
        """A phase of the run has ended."""
        self._marks.append((phase, time.monotonic()))

    def _took(self) -> str:
        phases = ", ".join(f"{phase} {end_s - begin_s:.0f}" for (_, begin_s), (phase, end_s) in pairwise(self._marks))
        return f"{self._marks[-1][1] - self._marks[0][1]:.0f} s on {os.cpu_count()} cores ({phases})"

    def add(self, scene: "Scene", verdict: str, metrics: list[str], *, least_kills: int) -> None:
        """The run is over, and judged. A long one must have killed at each point, and been quick to take over."""
        run = scene.run
        codes = [code for _, _, code in scene.fleet.ends]
        self._rows = [
            ("output", run.mode),
            ("calls", f"{run.sent()}, {run.concurrency} at once, records of about {run.chunk_ms} ms"),
            ("kills", f"{scene.kills}"),
            *((f"— {what}", str(count)) for what, count in sorted(scene.tally.items())),
            ("workers started again", f"{len(codes)}, exit codes {sorted(set(map(str, codes)))}"),
            *(self.takeovers.rows() if self.takeovers else []),
            *([("longest drain in an upgrade", f"{max(scene.drains_s):.1f} s")] if scene.drains_s else []),
            ("took", self._took()),
        ]
        self._verdict = verdict.rstrip()
        secrets = told([scene.fleet.logs(), *metrics], run.seed)
        self.broken += [f"a log or metric tells who calls, or a password: {line}" for line in secrets[:_FEW]]
        if scene.kills < least_kills:
            self.broken.append(f"{scene.kills} kills, not {least_kills}")
        if least_kills >= _MANY:
            self.broken += self.takeovers.broken() if self.takeovers else []
            self.broken += [f"nothing died at {name}" for name in scene.points if not scene.tally[f"kill at {name}"]]
        self._rows += [("not as it should be", text) for text in self.broken]

    def text(self) -> str:
        """For a terminal."""
        width = max((len(name) for name, _ in self._rows), default=0)
        return "\n".join([*(f"{name:{width}}  {value}" for name, value in self._rows), "", self._verdict])

    def markdown(self) -> str:
        """For bench/RESULTS.md."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in self._rows)
        return f"\n```sh\n{self._command}\n```\n\n| | |\n| --- | --- |\n{rows}\n\n```text\n{self._verdict}\n```\n"
