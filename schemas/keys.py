"""The names of all keys in Redis. `schemas/redis.md` lists their content and lifetimes."""

import hashlib
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys under one prefix (`CALLMOOD_REDIS__PREFIX`)."""

    prefix: str = "callmood"

    @property
    def tag(self) -> str:
        """The prefix in braces: a hash tag, so that a cluster keeps all keys in one slot."""
        return f"{{{self.prefix}}}"

    def named(self, name: str) -> str:
        """The key of this name, which may be a pattern."""
        return f"{self.tag}:{name}"

    @property
    def call_prefix(self) -> str:
        """What comes before the id of a call in the name of its hash."""
        return self.named("call:")

    def call(self, call_id: str) -> str:
        """Hash: the aggregate of a call."""
        return self.call_prefix + call_id

    def utterances_of(self, call_id: str) -> str:
        """Stream: the utterances of a call."""
        return self.named(f"utterances:{call_id}")

    @property
    def utterances(self) -> str:
        """Stream: the utterances of all calls."""
        return self.named("utterances")

    @property
    def alerts(self) -> str:
        """Stream: the alerts of all calls."""
        return self.named("alerts")

    @property
    def claims(self) -> str:
        """Hash: who looks after an alert; written by the page for supervisors."""
        return self.named("claims")

    @property
    def webhooks(self) -> str:
        """Hash: up to which alert each webhook is done; written by `callmood webhooks`."""
        return self.named("webhooks")

    @property
    def undelivered(self) -> str:
        """Stream: alerts that a webhook has refused for too long."""
        return self.named("undelivered")

    @property
    def changes(self) -> str:
        """Stream: which call has changed, in the order of the commits."""
        return self.named("changes")

    @property
    def streams_of_calls(self) -> tuple[str, ...]:
        """Every stream with entries of many calls."""
        return self.utterances, self.alerts, self.changes, self.undelivered

    def live_by(self, order: Literal["update", "risk", "alert"]) -> str:
        """Sorted set: ids of live calls; by alert: of those with an alert that is not cleared."""
        return self.named(f"live:by_{order}")

    @property
    def ended(self) -> str:
        """Sorted set: ids of calls that have ended, by when Redis took the end."""
        return self.named("ended:by_time")

    @property
    def pulse(self) -> str:
        """Sorted set: partitions, by when Redis took their newest commit."""
        return self.named("pulse")

    @property
    def lists_of_calls(self) -> tuple[str, ...]:
        """Every sorted set with ids of calls."""
        return self.live_by("update"), self.live_by("risk"), self.live_by("alert"), self.ended

    def position(self, topic: str, partition: int) -> str:
        """Hash: watermark, clock and token of a partition."""
        return self.named(f"position:{topic}:{partition}")

    def states(self, topic: str, partition: int) -> str:
        """Hash: the states of a partition's calls."""
        return self.named(f"states:{topic}:{partition}")

    def erased(self, call_id: str) -> str:
        """Hash: when a call was erased, for who copies results from Kafka; the name does not show the call id."""
        return self.named(f"erased:{hashlib.sha256(call_id.encode()).hexdigest()[:32]}")

    @property
    def check(self) -> str:
        """Hash: written and deleted by `callmood check`."""
        return self.named("check")
