"""What a call has come to so far: its aggregate and the rules over it, folded result by result. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from callmood.schemas.common import Notice
from callmood.worker.call import aggregate, alert
from callmood.worker.records import ModelInfo, Result, Unheard


class Fold:
    """The aggregate of a call, and the episodes of its alerts."""

    def __init__(self, call_id: str, rules: Sequence[alert.Rule]) -> None:
        self.revision = 0
        """Grows whenever the aggregate changes."""
        self.number = 0
        """Utterances folded so far."""
        self._rules = rules
        self._aggregate = aggregate.empty(call_id)
        self._episodes = alert.empty()
        self._alerts: list[dict[str, Any]] = []

    def start(self, started_at_ms: int) -> None:
        """Set the producer's wall clock at 0 of the call's time line."""
        self._aggregate = aggregate.start(self._aggregate, started_at_ms=started_at_ms)

    def describe(self, attributes: Mapping[str, str], notice: Notice | None) -> None:
        """Add what a record says of the call."""
        described = aggregate.describe(self._aggregate, attributes=attributes, notice=notice)
        self.revision += described is not self._aggregate
        self._aggregate = described

    def add(self, result: Result) -> int:
        """Fold a result; returns its number in the call."""
        self._set(aggregate.fold(self._aggregate, result), result)
        self.number += 1
        return self.number

    def add_unheard(self, stretch: Unheard) -> None:
        """Fold a stretch without audio."""
        fold = aggregate.fold_pause if stretch.is_pause else aggregate.fold_gap
        self._set(fold(self._aggregate, start_ms=stretch.start_ms, end_ms=stretch.end_ms))

    def finish(self, reason: str, end_ms: int) -> None:
        """The call is over."""
        self._set(aggregate.finish(self._aggregate, reason=reason, end_ms=end_ms))

    def _set(self, state: dict[str, Any], result: Result | None = None) -> None:
        self._aggregate = state
        self.revision += 1
        self._episodes, raised = alert.evaluate(self._rules, self._episodes, state, result)
        self._alerts += raised

    def take_alerts(self) -> list[dict[str, Any]]:
        """The alerts since the last time."""
        alerts, self._alerts = self._alerts, []
        return alerts

    def summary(self, policy: Mapping[str, Any], model: ModelInfo | None) -> dict[str, Any]:
        """The call so far, as call/1."""
        return aggregate.summary(self._aggregate, policy=policy, model=model)

    def save(self) -> dict[str, Any]:
        """Plain values to restore from."""
        return {"aggregate": self._aggregate, "episodes": self._episodes, "number": self.number}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from what was saved, all of which has been published."""
        self._aggregate, self._episodes = saved["aggregate"], saved["episodes"]
        self.number = saved["number"]
