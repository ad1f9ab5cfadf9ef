"""A call so far: its aggregate and the rules over it, folded result by result. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from callmood.schemas.common import Notice
from callmood.worker.call import aggregate, alert, background
from callmood.worker.call.aggregate import Aggregate
from callmood.worker.call.ending import End
from callmood.worker.call.rule import Rule
from callmood.worker.records import ModelInfo, Result, Unheard


class _Saved(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A fold as it is stored."""

    aggregate: Aggregate
    memory: alert.Memory
    number: int
    before_end: Aggregate | None = None
    levels: background.Levels = {}


class Folded(NamedTuple):
    """A call as one summary tells it."""

    aggregate: Aggregate
    memory: alert.Memory


_DECODER = msgspec.msgpack.Decoder(_Saved)


class Fold:
    """The aggregate of a call, and what its rules remember."""

    def __init__(self, call_id: str, rules: Sequence[Rule]) -> None:
        self.number = 0
        """Utterances folded so far."""
        self._rules = rules
        self._aggregate = aggregate.Aggregate(call_id)
        self._memory = alert.Memory()
        self._before_end: Aggregate | None = None  # of a call that may go on after its end
        self._levels: background.Levels = {}
        self._alerts: list[dict[str, Any]] = []

    @property
    def may_go_on(self) -> bool:
        """Whether the call has ended, and can go on."""
        return self._before_end is not None

    @property
    def folded(self) -> Folded:
        """The call so far."""
        return Folded(self._aggregate, self._memory)

    def is_told(self, by: Folded | None) -> bool:
        """Whether nothing has changed since."""
        return by is not None and by.aggregate is self._aggregate

    def start(self, started_at_ms: int) -> None:
        """Set the producer's wall clock at 0 of the call's time line."""
        self._aggregate = aggregate.start(self._aggregate, started_at_ms=started_at_ms)

    def describe(self, attributes: Mapping[str, str], notice: Notice | None) -> None:
        """Add what a record says of the call."""
        self._aggregate = aggregate.describe(self._aggregate, attributes=attributes, notice=notice)

    def add(self, result: Result) -> tuple[Result, int]:
        """Fold a result; returns it as it counts, which depends on those before it, and its number in the call."""
        self._levels, result = background.judge(self._levels, result)
        self._set(aggregate.fold(self._aggregate, result), result)
        self.number += 1
        return result, self.number

    def add_unheard(self, stretch: Unheard) -> None:
        """Fold a stretch without audio."""
        if stretch.is_hold:
            fold = aggregate.fold_hold
        else:
            fold = aggregate.fold_pause if stretch.is_pause else aggregate.fold_gap
        self._set(fold(self._aggregate, start_ms=stretch.start_ms, end_ms=stretch.end_ms))

    def finish(self, end: End) -> None:
        """End the call, see `aggregate.finish`."""
        self._before_end = self._aggregate if end.is_open else None
        if end.missing is not None:
            self.add_unheard(end.missing)
        self._set(aggregate.finish(self._aggregate, reason=end.reason, end_ms=end.at_ms))

    def reopen(self) -> None:
        """The call goes on as if it had not ended; the alerts stay."""
        assert self._before_end is not None
        self._aggregate = aggregate.reopen(self._before_end, after=self._aggregate)
        self._before_end = None

    def give_up(self, told: Folded) -> None:
        """The worker has failed on the call: go back to what a summary has told, and end there."""
        self._memory = told.memory
        self._aggregate = aggregate.give_up(told.aggregate, after=self._aggregate)

    def _set(self, state: aggregate.Aggregate, result: Result | None = None) -> None:
        self._aggregate = state
        spoken = result if result is not None and result.is_speech else None  # no other sound raises an alert
        self._memory, raised = alert.evaluate(self._rules, self._memory, state, spoken)
        self._alerts += raised

    def take_alerts(self) -> list[dict[str, Any]]:
        """The alerts raised since the last call."""
        alerts, self._alerts = self._alerts, []
        return alerts

    def summary(self, policy: Mapping[str, Any], model: ModelInfo | None) -> dict[str, Any]:
        """The call so far, as call/1."""
        ended_ms = None if self._aggregate.end_reason is None else self._aggregate.timeline.end_ms
        alerts = alert.states(self._memory, self._aggregate.call_id, ended_ms=ended_ms)
        return aggregate.summary(self._aggregate, policy=policy, model=model, alerts=alerts)

    def save(self) -> bytes:
        """What `load` restores. The one place where the state becomes msgpack: each of its values is an array."""
        return msgspec.msgpack.encode(
            _Saved(self._aggregate, self._memory, self.number, self._before_end, self._levels)
        )

    def load(self, saved: bytes) -> None:
        """The fold that `save` returned these bytes for."""
        state = _DECODER.decode(saved)
        self._aggregate, self._memory, self.number = state.aggregate, state.memory, state.number
        self._before_end, self._levels = state.before_end, state.levels
