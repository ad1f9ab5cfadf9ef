"""The floor: all live calls and the newest alerts, updated as they change in Redis.

One thread reads for all viewers, and only what has changed: it waits for new entries of the streams, at most ten times
a second, then reads the fields of those calls that they name. The pulse and the claims are read once a second. Twice a
minute the lists are compared, because a call that expires or is erased is in no stream. Viewers get a `Snapshot`.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import redis
import structlog

from callmood.dashboard.page import rows, trends
from callmood.dashboard.page.trends import Trends
from callmood.redis_address import Address, connect
from callmood.schemas.call import AlertState, Status
from callmood.schemas.keys import Keys

_REST_S: Final = 0.1
"""Between two looks: what changes in this time is read and sent together."""
_WAIT_MS: Final = 200
_PULSE_S: Final = 1.0
_COMPARE_S: Final = 30.0
_TIMEOUT_S: Final = 2.0
_BATCH: Final = 500
_LETTERS: Final = 24
_ALERTS: Final = 200
_ENTRIES: Final = 5_000
_ENDED: Final = 100
_GONE: Final = {"state": AlertState.ENDED.value, "over_ms": None}
"""What is said of an alert whose call is not there any more, or has had many since."""
_CLAIM_LIFE_S: Final = 7 * 24 * 3600
_PRUNE_S: Final = 3600.0
_LEVELS: Final = {"high": 0, "some": 1}

log: Final = structlog.get_logger()


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
    trends: tuple[Mapping[str, Any], ...] = ()
    """Sums of ended calls by hour and queue; see `Trends.rows`."""


@dataclass
class _Said:
    """The newest letters of a call, and the number of its newest utterance."""

    letters: deque[str] = field(default_factory=lambda: deque(maxlen=_LETTERS))
    number: int = 0

    def hear(self, entry: Mapping[str, str]) -> None:
        """The next utterance, unless it is known."""
        if (number := int(entry["number"])) <= self.number:
            return
        self.number = number
        if entry.get("role") in set(rows.ROLES):
            self.letters.append(rows.letter(entry.get("label")))


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
        self._calls: dict[str, Mapping[str, Any]] = {}
        """The rows of live calls."""
        self._said: dict[str, _Said] = {}
        self._ended: dict[str, Mapping[str, Any]] = {}
        self._waiting: tuple[str | None, int] = (None, 0)
        self._undelivered = 0
        self._states: dict[str, dict[str, Any]] = {}
        """By call and alert: its part of `alerts` of call/1."""
        self._trends = Trends()
        self._counted: dict[str, None] = {}
        """Ended calls that are in the trends."""
        self._alerts: deque[dict[str, Any]] = deque(maxlen=_ALERTS)
        self._read_until: dict[str, str] = {}
        self._pulse_due_s = self._compare_due_s = self._prune_due_s = 0.0
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

    @property
    def problem(self) -> str:
        """Why what is seen is not fresh; empty if it is."""
        return self.snapshot.problem if self._thread.is_alive() else "the thread that reads Redis has ended"

    def claim(self, alert_id: str, by: str, note: str) -> bool:
        """Say in Redis who looks after an alert; False if somebody else already does.

        Raises:
            redis.RedisError: Redis does not answer, or does not let this user write claims.
        """
        claim = json.dumps({"by": by, "at_ms": round(time.time() * 1000), "note": note})
        is_first = bool(self._redis.hsetnx(self._keys.claims, alert_id, claim))
        self._redis.expire(self._keys.claims, _CLAIM_LIFE_S)
        self._pulse_due_s = 0.0
        try:
            self._prune_claims()
        except redis.RedisError as error:  # the claim stands
            log.warning("old claims are not deleted", error=str(error))
        return is_first

    def _prune_claims(self) -> None:
        """Once an hour, delete claims of more than a week ago: their notes are about people."""
        if time.monotonic() < self._prune_due_s:
            return
        self._prune_due_s = time.monotonic() + _PRUNE_S
        oldest_ms, old = (time.time() - _CLAIM_LIFE_S) * 1000, []
        for alert_id, claim in self._redis.hgetall(self._keys.claims).items():
            with _skipping(self._keys.claims):
                if json.loads(claim)["at_ms"] < oldest_ms:
                    old.append(alert_id)
        if old:
            self._redis.hdel(self._keys.claims, *old)

    def _run(self) -> None:
        while not self._stopping.wait(_REST_S if self.snapshot.number else 0.0):
            before = self.snapshot
            try:
                self.look(wait_ms=_WAIT_MS)
            except Exception as error:  # noqa: BLE001 - the thread goes on, whatever is in Redis
                trouble = "does not answer" if isinstance(error, redis.RedisError) else "has what cannot be read"
                self._report(f"Redis {trouble}: {type(error).__name__}")
                self._read_until.clear()  # what was said in between is read again from the calls' own streams
            if self.snapshot is not before:
                self._changed()

    def look(self, *, wait_ms: int | None = None) -> None:
        """Read what has changed, and make a snapshot if there is news.

        Args:
            wait_ms: how long to wait for an entry of a stream; None: not at all.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        now_s = time.monotonic()
        if not self._read_until or now_s >= self._compare_due_s:
            changed, self._compare_due_s = self._compare(), now_s + _COMPARE_S
        else:
            changed = []
        changed += self._follow(None if changed else wait_ms)
        ended = self._read_calls(list(dict.fromkeys(changed)))
        self._count(dict.fromkeys(ended, int(time.time() * 1000)))
        is_pulse = bool(ended) or now_s >= self._pulse_due_s
        if is_pulse:
            self._pulse_due_s = now_s + _PULSE_S
            self._read_pulse()
        if is_pulse or changed:
            self._follow_states()
            self._publish()

    def _compare(self) -> list[str]:
        """Forget the calls and alerts that are gone; returns the live calls that are new. At first, all are."""
        is_first = not self._read_until
        pipe = self._redis.pipeline(transaction=False)
        for key in (self._keys.utterances, self._keys.changes):
            pipe.xrevrange(key, count=1)
        pipe.xrevrange(self._keys.alerts, count=_ALERTS)
        pipe.zrange(self._keys.live_by("risk"), 0, -1)
        pipe.zrange(self._keys.ended, 0, -1, withscores=True)
        *newest, alerts, live, ended = pipe.execute()
        self._count({call_id: int(at_ms) for call_id, at_ms in ended})
        self._counted = {call_id: None for call_id, _ in ended if call_id in self._counted}
        if is_first:
            self._calls.clear()
            self._said.clear()
            keys = (self._keys.utterances, self._keys.changes)
            self._read_until = {
                key: entries[0][0] if entries else "0-0" for key, entries in zip(keys, newest, strict=True)
            }
        self._read_until[self._keys.alerts] = alerts[0][0] if alerts else "0-0"
        self._alerts.clear()
        for _, entry in reversed(alerts):
            with _skipping(self._keys.alerts):
                self._hear_alert(entry)
        self._read_claims()
        for call_id in self._calls.keys() - set(live):
            self._forget(call_id)
        return [call_id for call_id in live if call_id not in self._calls]

    def _follow(self, wait_ms: int | None) -> list[str]:
        """Hear what was said since the last look; returns the calls that have changed."""
        changed: list[str] = []
        if wait_ms is not None:  # before Redis 7.2, one that waits gets the entries of a single stream
            self._redis.xread(self._read_until, count=1, block=wait_ms)
        found = self._redis.xread(self._read_until, count=_ENTRIES)
        for key, listed in dict(found or ()).items():
            entries = listed[0] if listed and isinstance(listed[0], list) else listed  # as RESP3 nests them
            self._read_until[key] = entries[-1][0]
            for _, entry in entries:
                with _skipping(key):
                    if key == self._keys.alerts:
                        self._hear_alert(entry)
                    if key != self._keys.utterances:
                        changed.append(entry["call_id"])
                    elif (said := self._said.get(entry["call_id"])) is not None:
                        said.hear(entry)
        return changed

    def _hear_alert(self, entry: Mapping[str, str]) -> None:
        alert = json.loads(entry["json"])
        named = {name: str(alert[name]) for name in ("alert_id", "call_id")}
        self._alerts.append({**alert, **named, "attributes": dict(alert.get("attributes") or {}), "claim": None})

    def _read_calls(self, call_ids: list[str]) -> list[str]:
        """Read these calls; those of them that have ended."""
        ended: list[str] = []
        for first in range(0, len(call_ids), _BATCH):
            batch = call_ids[first : first + _BATCH]
            self._read_said([call_id for call_id in batch if call_id not in self._said])
            for call_id, fields in self._fields_of(batch, rows.FIELDS).items():
                if fields["status"] == Status.LIVE:
                    with _skipping(self._keys.call("*")):
                        self._calls[call_id] = rows.row(call_id, fields, self._said[call_id].letters)
                        self._note_states(call_id, fields)
                else:
                    self._forget(call_id)
                    ended.append(call_id)
        return ended

    def _fields_of(self, call_ids: list[str], names: Sequence[str]) -> dict[str, dict[str, str | None]]:
        pipe = self._redis.pipeline(transaction=False)
        for call_id in call_ids:
            pipe.hmget(self._keys.call(call_id), names)
        found = pipe.execute() if call_ids else []
        return {call_id: dict(zip(names, values, strict=True)) for call_id, values in zip(call_ids, found, strict=True)}

    def _count(self, ended: Mapping[str, int]) -> None:
        """Put calls into the trends, each once; `ended` says when they ended, ms since 1970."""
        fresh = [call_id for call_id in ended if call_id not in self._counted]
        for first in range(0, len(fresh), _BATCH):
            for call_id, fields in self._fields_of(fresh[first : first + _BATCH], trends.FIELDS).items():
                if fields["status"] not in (None, Status.LIVE):
                    self._counted[call_id] = None
                    hour_ms = ended[call_id] // trends.HOUR_MS * trends.HOUR_MS
                    with _skipping(self._keys.call("*")):
                        self._trends.add(hour_ms, fields["attr.queue"] or "", trends.of_call(fields))

    def _read_said(self, call_ids: list[str]) -> None:
        """The newest answers of calls that are new to us."""
        pipe = self._redis.pipeline(transaction=False)
        for call_id in call_ids:
            pipe.xrevrange(self._keys.utterances_of(call_id), count=2 * _LETTERS)
        for call_id, entries in zip(call_ids, pipe.execute() if call_ids else [], strict=True):
            said = self._said[call_id] = _Said()
            for _, entry in reversed(entries):
                with _skipping(self._keys.utterances_of("*")):
                    said.hear(entry)

    def _forget(self, call_id: str) -> None:
        self._calls.pop(call_id, None)
        self._said.pop(call_id, None)

    def _read_pulse(self) -> None:
        """Calls that have ended, the partitions that wait, what webhooks have given up, and claims."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.zrevrange(self._keys.ended, 0, _ENDED - 1)
        pipe.zrange(self._keys.pulse, 0, 0, withscores=True)
        pipe.time()
        pipe.xlen(self._keys.undelivered)
        ended, slowest, (seconds, micros), self._undelivered = pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        self._waiting = (slowest[0][0], max(0, now_ms - int(slowest[0][1]))) if slowest else (None, 0)
        self._read_ended(ended)
        self._read_claims()

    def _read_ended(self, call_ids: list[str]) -> None:
        """Calls that have ended, each read once."""
        fresh = [call_id for call_id in call_ids if call_id not in self._ended]
        self._read_said(fresh)
        for call_id, fields in self._fields_of(fresh, rows.FIELDS).items():
            said = self._said.pop(call_id)
            if fields["status"] is not None:
                with _skipping(self._keys.call("*")):
                    self._ended[call_id] = rows.row(call_id, fields, said.letters)
                    self._note_states(call_id, fields)
        self._ended = {call_id: self._ended[call_id] for call_id in call_ids if call_id in self._ended}

    def _read_claims(self) -> None:
        if self._alerts:
            found = self._redis.hmget(self._keys.claims, [alert["alert_id"] for alert in self._alerts])
            for alert, claim in zip(self._alerts, found, strict=True):
                alert["claim"] = None
                with _skipping(self._keys.claims):
                    alert["claim"] = json.loads(claim) if claim else None

    def _note_states(self, call_id: str, fields: Mapping[str, str | None]) -> None:
        """What became of a call's alerts."""
        alerts = json.loads(fields["alerts"] or "[]")
        self._states[call_id] = {one["alert_id"]: {name: one[name] for name in _GONE} for one in alerts}

    def _follow_states(self) -> None:
        """What became of the alerts that are shown."""
        shown = {alert["call_id"] for alert in self._alerts} | self._calls.keys()
        self._states = {call_id: states for call_id, states in self._states.items() if call_id in shown}
        for alert in self._alerts:
            known = self._states.get(alert["call_id"], {}).get(alert["alert_id"], _GONE)
            alert |= {"state": known["state"], "over_ms": known["over_ms"]}

    def _report(self, problem: str) -> None:
        """A snapshot with the problem, if it is a new one."""
        if problem != self.snapshot.problem:
            self.snapshot = replace(self.snapshot, number=self.snapshot.number + 1, problem=problem)

    def _publish(self) -> None:
        known = self.snapshot
        ordered = sorted(self._calls.values(), key=_rank)
        newest_ms = max((row["updated_at_ms"] for row in ordered), default=known.newest_audio_ms)
        alerts = tuple(dict(alert) for alert in reversed(self._alerts))
        ended = tuple(self._ended.values())
        now_s = time.time()
        self.snapshot = Snapshot(
            known.number + 1,
            now_s,
            tuple(ordered),
            alerts,
            newest_ms,
            "",
            ended,
            *self._waiting,
            self._undelivered,
            self._trends.rows(),
        )


def _rank(row: Mapping[str, Any]) -> tuple[int, float, str]:
    """By level, then by risk in tenths: small changes move no row."""
    return (_LEVELS.get(row["level"], len(_LEVELS)), -round(row["risk"], 1), row["id"])


@contextmanager
def _skipping(key: str) -> Iterator[None]:
    """Leave out what no worker has written there; the key is logged, so it contains no call id."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("cannot read an entry of the store; leaving it out", key=key, kind=type(error).__name__)
