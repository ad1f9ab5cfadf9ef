"""Measures progress: for how long a stage has had work without doing any. Pure."""

from enum import StrEnum
from typing import NamedTuple


class Stage(StrEnum):
    """What a loop does."""

    READING = "reading"
    INFERENCE = "inference"
    COMMITS = "commits"


class Status(NamedTuple):
    """What a loop reports to the supervisor about once a second."""

    partitions: int
    restoring: int
    is_store_healthy: bool
    stuck_s: float
    """For how long a stage with work to do has done none of it, where waiting longer does not help."""
    stuck_at: str
    """That stage; empty without one."""


class Progress:
    """For each stage with work to do: since when it has done none of it. All times are monotonic, in s."""

    def __init__(self) -> None:
        self._since_s: dict[Stage, float] = {}

    def note(self, stage: Stage, now_s: float, *, has_work: bool, has_moved: bool) -> None:
        """Note whether the stage has work to do, and whether it has done some of it since the last note."""
        if not has_work:
            self._since_s.pop(stage, None)
        elif has_moved:
            self._since_s[stage] = now_s
        else:
            self._since_s.setdefault(stage, now_s)

    def longest(self, now_s: float) -> tuple[float, str]:
        """The longest standstill, in s, and its stage; 0 and no stage where nothing waits."""
        if not self._since_s:
            return 0.0, ""
        stage = min(self._since_s, key=lambda one: self._since_s[one])
        return now_s - self._since_s[stage], stage.value
