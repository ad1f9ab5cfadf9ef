"""`callmood webhooks`: sends alerts to the addresses of a file, signed, each at least once.

Each hook has a thread and a position in the stream of alerts, stored in Redis after each alert that is done. After a
`kill -9` the newest alert may be sent again, with the same id. An alert that is refused for too long is given up: Redis
lists it, the page shows it, and the next alert is sent.
"""

import argparse
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import ValidationError

from callmood.schemas.alert import Alert
from callmood.schemas.keys import Keys
from callmood.worker import settings
from callmood.worker.adapters.redis_client import connect_redis, redis_errors
from callmood.worker.commands.hooks import Hook, message_id, parse_hooks, send
from callmood.worker.commands.text_file import read_text
from callmood.worker.errors import EXIT_OK, StoreUnavailable
from callmood.worker.logs import call_hash, configure
from callmood.worker.server_settings import RedisSettings

RETRY_S: Final = (1.0, 5.0, 30.0, 60.0, 120.0)
"""Pauses between the tries of one alert."""
_BLOCK_MS: Final = 500
_BATCH: Final = 100
_REDIS_RETRY_S: Final = 2.0
_FAILED_LENGTH: Final = 1_000

log = structlog.get_logger()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("hooks", type=Path, help="TOML file with addresses and secrets (docs/page.md)")


def run(arguments: argparse.Namespace) -> int:
    """Send until SIGTERM or Ctrl-C."""
    hooks = parse_hooks(read_text(arguments.hooks))
    configured = settings.load()
    configure(configured.log, process="webhooks")
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    failures: list[Exception] = []
    threads = [
        threading.Thread(target=_serve, args=(hook, configured.redis, over, failures), daemon=True) for hook in hooks
    ]
    for thread in threads:
        thread.start()
    over.wait()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return EXIT_OK


class Delivery:
    """The alerts of one hook, in order.

    Args:
        client: Redis, for this hook alone.
        hook: where they go.
        prefix: the workers' `CALLMOOD_REDIS__PREFIX`.
        ttl_s: how long the position and the dead ends live.
        pause: waits between two tries; returns True if all is over.
    """

    def __init__(self, client: Any, hook: Hook, prefix: str, *, ttl_s: int, pause: Callable[[float], bool]) -> None:
        self._redis = client
        self._hook = hook
        self._keys = Keys(prefix)
        self._ttl_s = ttl_s
        self._pause = pause
        self._position: str | None = None

    def turn(self, block_ms: int = _BLOCK_MS) -> int:
        """Send what is new; returns how many alerts are done. Stops in the middle when all is over.

        Raises:
            StoreUnavailable: Redis does not answer; the same alerts come again.
            ConfigurationError: Redis refuses this user.
        """
        with redis_errors():
            position = self._position or self._start()
            answer = self._redis.xread({self._keys.alerts: position}, count=_BATCH, block=block_ms)
        done = 0
        for entry_id, fields in _entries(answer):
            alert = _alert(fields)
            if alert is None:
                log.warning("cannot read an entry of the alert stream; leaving it out", hook=self._hook.name)
            elif self._hook.wants(alert) and not self._deliver(alert):
                break
            self._settle(entry_id.decode())
            done += 1
        return done

    def _start(self) -> str:
        """Where an earlier process was; for a new hook, the newest alert."""
        known = self._redis.hget(self._keys.webhooks, self._hook.name)
        newest = known or next(iter(_ids(self._redis.xrevrange(self._keys.alerts, count=1))), b"0-0")
        self._settle(newest.decode())
        return str(newest.decode())

    def _settle(self, position: str) -> None:
        with redis_errors():
            self._redis.hset(self._keys.webhooks, self._hook.name, position)
            self._redis.expire(self._keys.webhooks, self._ttl_s)
        self._position = position

    def _deliver(self, alert: Mapping[str, Any]) -> bool:
        """Send one alert, or give it up; False if all is over before that."""
        for attempt, wait_s in enumerate((*RETRY_S, None), start=1):
            problem = send(self._hook.request(alert, time.time()))
            if not problem:
                log.info("alert was sent", hook=self._hook.name, call=call_hash(alert["call_id"]), rule=alert["rule"])
                return True
            log.warning("webhook failed", hook=self._hook.name, error=problem, attempt=attempt)
            if wait_s is not None and self._pause(wait_s):
                return False
        self._give_up(alert, problem)
        return True

    def _give_up(self, alert: Mapping[str, Any], problem: str) -> None:
        log.error(
            "alert was given up; all attempts failed",
            hook=self._hook.name,
            call=call_hash(alert["call_id"]),
            rule=alert["rule"],
        )
        fields = {
            "hook": self._hook.name,
            "call_id": alert["call_id"],
            "alert_id": alert["alert_id"],
            "webhook_id": message_id(alert["alert_id"]),
            "error": problem,
        }
        with redis_errors():
            self._redis.xadd(self._keys.undelivered, fields, maxlen=_FAILED_LENGTH, approximate=True)
            self._redis.expire(self._keys.undelivered, self._ttl_s)


def _serve(hook: Hook, wanted: RedisSettings, over: threading.Event, failures: list[Exception]) -> None:
    """The thread of a hook; what it cannot get over ends the command."""
    try:
        while not over.is_set():
            try:
                with closing(connect_redis(wanted)) as client:
                    delivery = Delivery(client, hook, wanted.prefix, ttl_s=wanted.state_ttl_s, pause=over.wait)
                    while not over.is_set():
                        delivery.turn()
            except StoreUnavailable as error:
                log.warning("store unavailable; alerts wait", error=str(error))
                over.wait(_REDIS_RETRY_S)
    except Exception as error:  # noqa: BLE001 - it would end this thread alone: run raises it again
        failures.append(error)
        over.set()


def _alert(fields: Mapping[bytes, bytes]) -> dict[str, Any] | None:
    """The alert/1 of an entry; None if somebody else wrote it."""
    try:
        return Alert.read(fields.get(b"json", b"")).model_dump(mode="json", by_alias=True)
    except ValidationError:
        return None


def _entries(answer: Any) -> Sequence[tuple[bytes, Mapping[bytes, bytes]]]:
    """The entries of the one stream that was read, in either protocol."""
    for listed in dict(answer or ()).values():
        return listed[0] if listed and isinstance(listed[0], list) else listed
    return ()


def _ids(entries: Sequence[tuple[bytes, Any]]) -> list[bytes]:
    return [entry_id for entry_id, _ in entries]
