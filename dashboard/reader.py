"""Reads the results of workers from Redis. It uses only documented keys, and only commands that read.

`schemas/redis.md` is the contract. You can base your own dashboard on this file.
"""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar

from pydantic import ValidationError

from callmood.redis_address import Address, connect
from callmood.schemas.alert import Alert
from callmood.schemas.call import Call
from callmood.schemas.flat import unflatten
from callmood.schemas.keys import Keys
from callmood.schemas.parts import Contract
from callmood.schemas.utterance import Utterance

_BATCH: Final = 1_000
_BEGINNING: Final = "0-0"

_Record = TypeVar("_Record", bound=Contract)


class CallView(NamedTuple):
    """A call, and its risk (0 to 1) while it is live."""

    call: Call
    risk: float | None


class News(NamedTuple):
    """What has been published since the last look, oldest first."""

    utterances: list[Utterance]
    alerts: list[Alert]


class Dashboard:
    """One connection to the results. Use as a context manager.

    Args:
        address: `redis://` or `rediss://` URL, or an `Address` for Sentinel and Cluster; the read-only user of
            `schemas/redis.md` is enough.
        prefix: the workers' `CALLMOOD_REDIS__PREFIX`.
        timeout_s: limit of one command.

    Every method raises `redis.RedisError` when Redis does not answer.
    """

    def __init__(self, address: str | Address, prefix: str = "callmood", *, timeout_s: float = 5.0) -> None:
        self._keys = Keys(prefix)
        self._timeout_s = timeout_s
        address = Address(address) if isinstance(address, str) else address
        self._redis: Any = connect(address, timeout_s=timeout_s, decode_responses=True)
        self.unreadable = 0
        """Records skipped because they do not fit this version's schemas: workers and dashboard differ in version."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._redis.close()

    def live_calls(self, limit: int = 50, *, by: Literal["risk", "update"] = "risk") -> list[CallView]:
        """The live calls of highest risk, or of the newest audio, highest first."""
        return self.calls(self._redis.zrevrange(self._keys.live_by(by), 0, limit - 1))

    def calls(self, call_ids: Iterable[str]) -> list[CallView]:
        """These calls, in this order, live or ended; those that are unknown or have expired are left out."""
        call_ids = list(call_ids)
        if not call_ids:
            return []
        pipe = self._redis.pipeline(transaction=False)
        for call_id in call_ids:
            pipe.hgetall(self._keys.call(call_id))
            pipe.zscore(self._keys.live_by("risk"), call_id)
        answers = pipe.execute()
        views = []
        for fields, risk in zip(answers[::2], answers[1::2], strict=True):
            if fields and (call := self._call(fields)):
                views.append(CallView(call, risk))
        return views

    def ended_calls(self, since_ms: int = 0) -> list[CallView]:
        """The calls whose end Redis took after this time (its clock, ms since 1970), the newest first."""
        return self.calls(self._redis.zrevrangebyscore(self._keys.ended, "+inf", f"({since_ms}"))

    def utterances(self, call_id: str, *, after: int = 0) -> list[Utterance]:
        """The utterances of a call with a number above `after`, in order."""
        entries = self._redis.xrange(self._keys.utterances_of(call_id), f"({after}-0" if after else "-", "+")
        return self._parsed(Utterance, entries)

    def follow(self, *, timeout_s: float = 0.25, from_start: bool = False) -> Iterator[News]:
        """What is published from now on (or from as far back as the streams reach), for ever.

        Yields at once when there is news and at the latest after `timeout_s`, then with nothing in it.
        """
        keys = [self._keys.utterances, self._keys.alerts]
        seen = {key: _BEGINNING if from_start else self._newest(key) for key in keys}
        while True:
            found = self._redis.xread(seen, count=_BATCH, block=max(1, round(timeout_s * 1000)))
            fresh = dict(found or ())
            for key, entries in fresh.items():
                # RESP3 nests the entries once more
                fresh[key] = entries[0] if entries and isinstance(entries[0], list) else entries
                seen[key] = fresh[key][-1][0]
            utterances, alerts = (fresh.get(key, []) for key in keys)
            yield News(self._parsed(Utterance, utterances), self._parsed(Alert, alerts))

    def _newest(self, key: str) -> str:
        newest: list[tuple[str, Any]] = self._redis.xrevrange(key, count=1)
        return newest[0][0] if newest else _BEGINNING

    def _call(self, fields: dict[str, str]) -> Call | None:
        try:
            return unflatten(fields)
        except ValidationError:
            self.unreadable += 1
            return None

    def _parsed(self, kind: type[_Record], entries: Iterable[tuple[str, dict[str, str]]]) -> list[_Record]:
        records = []
        for _, fields in entries:
            try:
                records.append(kind.read(fields["json"]))
            except (KeyError, ValidationError):
                self.unreadable += 1
        return records
