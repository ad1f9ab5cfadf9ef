"""The floor as the page knows it: all live calls and the newest alerts, read from Redis once a second.

One thread reads for all viewers, and only what has changed: two sorted sets a look, then the fields of those calls that
have news. Viewers get an immutable `Snapshot`.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import redis

from callmood.dashboard.page import rows
from callmood.redis_address import Address, connect
from callmood.schemas.call import AlertState
from callmood.schemas.keys import Keys

_LOOK_S: Final = 1.0
_TIMEOUT_S: Final = 2.0
_BATCH: Final = 500
_LETTERS: Final = 24
_ALERTS: Final = 200
_ENTRIES: Final = 5_000
_ENDED: Final = 100
_GONE: Final = {"state": AlertState.ENDED.value, "over_ms": None}
"""What is said of an alert whose call is not there any more, or has had many since."""
_CLAIM_LIFE_S: Final = 7 * 24 * 3600


@dataclass(frozen=True)
class Snapshot:
    """The floor at one moment; `rows` are ordered, those that need a person most first."""

    number: int = 0
    at_s: float = 0.0
    rows: tuple[Mapping[str, Any], ...] = ()
    alerts: tuple[Mapping[str, Any], ...] = ()
    newest_audio_ms: int = 0
    problem: str = "not read yet"
    """Why it is not fresh; empty if it is."""
    ended: tuple[Mapping[str, Any], ...] = ()
    """Calls that have ended, the newest first, as in `rows`."""
    waiting_for: str | None = None
    """The partition that has waited longest for a commit; None if no worker has ever committed."""
    waiting_ms: int = 0
    """How long, by the clock of Redis."""
    undelivered: int = 0
    """Alerts that webhooks have given up."""


@dataclass
class _Call:
    updated: float
    risk: float
    fields: Mapping[str, str | None]
    row: Mapping[str, Any] = field(default_factory=dict)


class Floor:
    """Reads until `stop`. `changed` is called after each look, by the reading thread.

    Args:
        address: of the Redis with the results.
        prefix: the workers' `CALLMOOD_REDIS__PREFIX`.
        changed: told of each new snapshot.
    """

    def __init__(self, address: Address, prefix: str, changed: Callable[[], None] = lambda: None) -> None:
        self.snapshot = Snapshot()
        self._keys = Keys(prefix)
        self._redis: Any = connect(address, timeout_s=_TIMEOUT_S, decode_responses=True)
        self._changed = changed
        self._calls: dict[str, _Call] = {}
        self._said: dict[str, deque[str]] = {}
        self._ended: dict[str, Mapping[str, Any]] = {}
        self._waiting: tuple[str | None, int] = (None, 0)
        self._undelivered = 0
        self._states: dict[str, dict[str, Any]] = {}
        """By call and alert: its part of `alerts` of call/1."""
        self._alerts: deque[dict[str, Any]] = deque(maxlen=_ALERTS)
        self._read_until: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="floor", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if there is one, and let go of the connection."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_TIMEOUT_S)
        self._redis.close()

    def claim(self, alert_id: str, by: str, note: str) -> bool:
        """Say in Redis who looks after an alert; False if somebody else already does.

        Raises:
            redis.RedisError: Redis does not answer, or does not let this user write claims.
        """
        claim = json.dumps({"by": by, "at_ms": round(time.time() * 1000), "note": note})
        is_first = bool(self._redis.hsetnx(self._keys.claims, alert_id, claim))
        self._redis.expire(self._keys.claims, _CLAIM_LIFE_S)
        return is_first

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_S if self.snapshot.number else 0.0):
            try:
                self.look()
            except redis.RedisError as error:
                self._publish(problem=f"Redis does not answer: {type(error).__name__}")
                self._read_until.clear()  # what was said in between is read again from the calls' own streams
            self._changed()

    def look(self) -> None:
        """Read what has changed, and make a snapshot of it. `start` does it once a second.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        risks, updates, ended = self._lists()
        self._read_ended(ended)
        for call_id in self._calls.keys() - updates.keys():
            del self._calls[call_id]
            self._said.pop(call_id, None)
        self._follow()
        news = [call_id for call_id, at in updates.items() if self._is_news(call_id, at, risks.get(call_id, 0.0))]
        fresh = [call_id for call_id in news if call_id not in self._said]
        for first in range(0, len(news), _BATCH):
            self._read_calls(news[first : first + _BATCH], risks, updates)
        for first in range(0, len(fresh), _BATCH):
            self._read_said(fresh[first : first + _BATCH])
        for call_id in news:
            if call := self._calls.get(call_id):
                call.row = rows.row(call_id, call.fields, call.risk, self._said.get(call_id, ()))
        self._follow_alerts()
        self._publish()

    def _lists(self) -> tuple[dict[str, float], dict[str, float], list[str]]:
        """Live calls with their risk, and with their newest audio; calls that have ended, the newest first."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.zrange(self._keys.live_by("risk"), 0, -1, withscores=True)
        pipe.zrange(self._keys.live_by("update"), 0, -1, withscores=True)
        pipe.zrevrange(self._keys.ended, 0, _ENDED - 1)
        pipe.zrange(self._keys.pulse, 0, 0, withscores=True)
        pipe.time()
        pipe.xlen(self._keys.undelivered)
        risks, updates, ended, slowest, (seconds, micros), self._undelivered = pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        self._waiting = (slowest[0][0], max(0, now_ms - int(slowest[0][1]))) if slowest else (None, 0)
        return dict(map(_scored, risks)), dict(map(_scored, updates)), ended

    def _is_news(self, call_id: str, updated: float, risk: float) -> bool:
        known = self._calls.get(call_id)
        return known is None or (known.updated, known.risk) != (updated, risk)

    def _read_calls(self, call_ids: list[str], risks: Mapping[str, float], updates: Mapping[str, float]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for call_id in call_ids:
            pipe.hmget(self._keys.call(call_id), rows.FIELDS)
        for call_id, values in zip(call_ids, pipe.execute(), strict=True):
            fields = dict(zip(rows.FIELDS, values, strict=True))
            if fields["status"] is not None:
                self._calls[call_id] = _Call(updates[call_id], risks.get(call_id, 0.0), fields)
                self._note_states(call_id, fields)

    def _read_ended(self, call_ids: list[str]) -> None:
        """Calls that have ended, each read once."""
        fresh = [call_id for call_id in call_ids if call_id not in self._ended]
        pipe = self._redis.pipeline(transaction=False)
        for call_id in fresh:
            pipe.hmget(self._keys.call(call_id), rows.FIELDS)
        found = dict(zip(fresh, pipe.execute(), strict=True)) if fresh else {}
        for call_id, values in found.items():
            fields = dict(zip(rows.FIELDS, values, strict=True))
            if fields["status"] is not None:
                said = self._said.get(call_id, ())
                self._ended[call_id] = rows.row(call_id, fields, 0.0, said)
                self._note_states(call_id, fields)
        self._ended = {call_id: self._ended[call_id] for call_id in call_ids if call_id in self._ended}

    def _read_said(self, call_ids: list[str]) -> None:
        """The newest answers of calls that are new to us."""
        pipe = self._redis.pipeline(transaction=False)
        for call_id in call_ids:
            pipe.xrevrange(self._keys.utterances_of(call_id), count=2 * _LETTERS)
        for call_id, entries in zip(call_ids, pipe.execute(), strict=True):
            said = self._said[call_id] = deque(maxlen=_LETTERS)
            for _, entry in reversed(entries):
                self._hear(said, entry)

    def _follow(self) -> None:
        """Utterances and alerts since the last look."""
        utterances, alerts = self._keys.utterances, self._keys.alerts
        if not self._read_until:
            self._begin(utterances, alerts)
        found = self._redis.xread(self._read_until, count=_ENTRIES)
        for key, listed in dict(found or ()).items():
            entries = listed[0] if listed and isinstance(listed[0], list) else listed  # as RESP3 nests them
            self._read_until[key] = entries[-1][0]
            for _, entry in entries:
                if key == alerts:
                    self._alerts.append(json.loads(entry["json"]))
                elif (said := self._said.get(entry["call_id"])) is not None:
                    self._hear(said, entry)

    def _begin(self, utterances: str, alerts: str) -> None:
        self._said.clear()
        self._calls.clear()
        newest = self._redis.xrevrange(utterances, count=1)
        self._read_until[utterances] = newest[0][0] if newest else "0-0"
        entries = self._redis.xrevrange(alerts, count=_ALERTS)
        self._alerts.clear()
        self._alerts.extend(json.loads(entry["json"]) for _, entry in reversed(entries))
        self._read_until[alerts] = entries[0][0] if entries else "0-0"

    def _hear(self, said: deque[str], entry: Mapping[str, str]) -> None:
        if entry.get("role") in set(rows.ROLES):
            said.append(rows.letter(entry.get("label")))

    def _note_states(self, call_id: str, fields: Mapping[str, str | None]) -> None:
        """What became of a call's alerts."""
        self._states[call_id] = {one["alert_id"]: one for one in json.loads(fields["alerts"] or "[]")}

    def _follow_alerts(self) -> None:
        """Claims and states of the alerts that are shown."""
        shown = {alert["call_id"] for alert in self._alerts}
        self._states = {
            call_id: states for call_id, states in self._states.items() if call_id in shown | self._calls.keys()
        }
        for alert in self._alerts:
            known = self._states.get(alert["call_id"], {}).get(alert["alert_id"], _GONE)
            alert |= {"state": known["state"], "over_ms": known["over_ms"]}
        if self._alerts:
            found = self._redis.hmget(self._keys.claims, [alert["alert_id"] for alert in self._alerts])
            for alert, claim in zip(self._alerts, found, strict=True):
                alert["claim"] = json.loads(claim) if claim else None

    def _publish(self, *, problem: str = "") -> None:
        known = self.snapshot
        if problem:
            self.snapshot = replace(known, number=known.number + 1, problem=problem)
            return
        ordered = sorted((c.row for c in self._calls.values() if c.row), key=_rank)
        newest_ms = max((row["updated_at_ms"] for row in ordered), default=known.newest_audio_ms)
        alerts = tuple(dict(alert) for alert in reversed(self._alerts))
        ended = tuple(self._ended.values())
        now_s = time.time()
        self.snapshot = Snapshot(
            known.number + 1, now_s, tuple(ordered), alerts, newest_ms, "", ended, *self._waiting, self._undelivered
        )


def _scored(item: tuple[str, Any]) -> tuple[str, float]:
    return item[0], float(item[1])


def _rank(row: Mapping[str, Any]) -> tuple[int, float, str]:
    return (("high", "some", "").index(row["level"]), -row["risk"], row["id"])
