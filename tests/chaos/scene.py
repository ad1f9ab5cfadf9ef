"""The running servers and workers of a chaos run, which faults act on, and the counts of the faults."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.armed import IN_THE_GAP, POINTS
from tests.chaos.config import Run
from tests.chaos.fleet import Fleet
from tests.chaos.servers import Servers

Fault = Callable[["Scene"], None]


@dataclass
class Scene:
    """Everything that faults may touch, and the tally of what they did."""

    run: Run
    servers: Servers
    fleet: Fleet
    random: Random
    tally: Counter[str] = field(default_factory=Counter)
    tries: Counter[str] = field(default_factory=Counter)
    armed: set[str] = field(default_factory=set)
    freezing: set[str] = field(default_factory=set)
    only: frozenset[str] = frozenset()
    drains_s: list[float] = field(default_factory=list)
    """From SIGTERM to a worker's end, in upgrades."""

    def note(self, what: str) -> None:
        """It has happened."""
        self.tally[what] += 1

    @property
    def kills(self) -> int:
        """Processes, trees or servers that have met SIGKILL."""
        return sum(count for what, count in self.tally.items() if what.startswith("kill"))

    @property
    def points(self) -> list[str]:
        """The points at which something can be killed in this run."""
        points = [name for name, modes in POINTS.items() if self.run.mode in modes.split()]
        return [name for name in (*points, IN_THE_GAP) if name in self.only] or points

    def chosen(self, kind: tuple[Fault, ...]) -> tuple[Fault, ...]:
        """Those of these faults that the run is about."""
        names = self.only - POINTS.keys() - {IN_THE_GAP}
        return tuple(fault for fault in kind if not names or fault.__name__ in names)

    def next_of(self, kind: str, names: list[str]) -> str:
        """Whose turn it is: what has happened least, or what was tried least, so that nothing waits for the rare."""
        counts = self.random.choice((self.tally, self.tries))
        name = min(names, key=lambda name: (counts[f"{kind} {name}"], self.random.random()))
        self.tries[f"{kind} {name}"] += 1
        return name

    def collect_armed(self) -> None:
        """Note the points that were reached."""
        for name in sorted(self.armed):
            if not (self.fleet.points / name).exists():
                self.armed.remove(name)
                self.note(f"kill at {name}")

    def arm(self, name: str, what: str) -> Path:
        """Arm a point for the next process that reaches it; returns the file that is gone afterwards."""
        path = self.fleet.points / name
        for hit in path.parent.glob(f"{name}.hit.*"):
            hit.unlink()
        path.with_suffix(".new").write_text(what)
        path.with_suffix(".new").rename(path)
        return path

    def disarm(self, name: str) -> None:
        """Nobody dies there any more."""
        with suppress(FileNotFoundError):
            (self.fleet.points / name).unlink()
            self.armed.discard(name)
