"""Fail points at which a run can kill the real worker; `arm` sets them in a child process.

A point is armed by a file of its name in the folder `CHAOS_POINTS`; the first process that reaches it takes the file
away and is gone, by SIGKILL, and its supervisor with it if the file says `worker`; if it says `freeze`, the process
stops until it is told to go on (SIGCONT). Nothing of this is in the worker: the points are set around its calls and its
libraries' when a child process begins. `CHAOS_BUG` names a bug of `bugs` to plant.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, Final

POINTS: Final = {
    "after_poll": "redis kafka both",
    "after_vad_close": "redis kafka both",
    "after_answer": "redis kafka both",
    "in_revoked": "redis kafka both",
    "before_restore": "redis kafka both",
    "in_restore": "redis kafka both",
    "letters_sent": "redis kafka both",
    "after_begin": "kafka both",
    "after_send": "kafka both",
    "after_flush": "kafka both",
    "after_send_offsets": "kafka both",
    "before_commit": "kafka both",
    "during_commit": "kafka both",
    "after_commit": "kafka both",
    "before_script": "redis both",
    "after_script": "redis both",
}
"""The points, and the output modes in which they are reached."""

IN_THE_GAP: Final = "in_the_gap"
"""A point that only a planted bug has: between its two steps, when it has utterances to lose."""

_MOMENT_S = 0.02
_AWAKE_S = 0.5
_NOBODY = 0


def reach(name: str) -> None:
    """Die here, if this point is armed."""
    doomed = _taken(name)
    if doomed == [_NOBODY]:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(_AWAKE_S)  # the client's own thread learns what has become of us
    elif doomed:
        _die(doomed)


def _taken(name: str) -> list[int]:
    """Who is to die, if this point is armed."""
    point = Path(os.environ["CHAOS_POINTS"]) / name
    with suppress(FileNotFoundError):
        taken = point.rename(point.with_name(f"{name}.hit.{os.getpid()}"))
        match taken.read_text():
            case "freeze":
                return [_NOBODY]
            case "worker":
                return [os.getppid(), os.getpid()]
        return [os.getpid()]
    return []


def _die(doomed: list[int]) -> None:
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)


def around(
    owner: Any,
    method: str,
    *,
    before: str | None = None,
    after: str | None = None,
    if_: Callable[..., Any] | None = None,
) -> None:
    """Set points before and after a method; `if_` looks at its result, its object and its arguments."""
    original = getattr(owner, method)

    @wraps(original)
    def call(self: Any, *args: Any, **more: Any) -> Any:
        if before:
            reach(before)
        result = original(self, *args, **more)
        if after and (if_ is None or if_(result, self, *args)):
            reach(after)
        return result

    setattr(owner, method, call)


def _die_during_commit(producer: Any) -> None:
    original = producer.commit_transaction

    @wraps(original)
    def commit(self: Any) -> None:
        doomed = _taken("during_commit")
        if doomed:
            threading.Timer(random.uniform(0, _MOMENT_S), _die, [doomed]).start()
        original(self)
        if doomed:
            time.sleep(2 * _MOMENT_S)

    producer.commit_transaction = commit


def arm() -> None:
    """Set all points in this process."""
    from kafka import KafkaProducer  # noqa: PLC0415 - the supervisor sets the environment of metrics first
    from redis.commands.core import Script  # noqa: PLC0415 - as above

    from callmood.worker.adapters.consume import AudioConsumer  # noqa: PLC0415 - as above
    from callmood.worker.adapters.dead_letters import DeadLetterTopic  # noqa: PLC0415 - as above
    from callmood.worker.adapters.publish_kafka import KafkaStore  # noqa: PLC0415 - as above
    from callmood.worker.adapters.publish_redis import RedisStore  # noqa: PLC0415 - as above
    from callmood.worker.inference.submit import InferenceClient  # noqa: PLC0415 - as above
    from callmood.worker.partition.partition import Partition  # noqa: PLC0415 - as above

    def in_transaction(_: Any, producer: Any, *__: Any) -> bool:
        return bool(producer.config["transactional_id"])

    around(AudioConsumer, "poll", after="after_poll", if_=lambda polled, *_: polled)
    around(AudioConsumer, "take_changes", after="in_revoked", if_=lambda changes, *_: changes.revoked)
    around(Partition, "take", after="after_vad_close", if_=lambda utterances, *_: utterances)
    around(InferenceClient, "collect", after="after_answer", if_=lambda answers, *_: answers)
    around(DeadLetterTopic, "send", after="letters_sent", if_=lambda _, __, letters: letters)
    for store in (RedisStore, KafkaStore):
        around(store, "claim", before="before_restore", after="in_restore")
    around(KafkaProducer, "begin_transaction", after="after_begin")
    around(KafkaProducer, "send", after="after_send", if_=in_transaction)
    around(KafkaProducer, "flush", after="after_flush", if_=in_transaction)
    around(KafkaProducer, "send_offsets_to_transaction", after="after_send_offsets")
    around(KafkaProducer, "commit_transaction", before="before_commit", after="after_commit")
    _die_during_commit(KafkaProducer)
    around(Script, "__call__", before="before_script", after="after_script")
    around(RedisStore, "_send", before="before_script", after="after_script")
    if bug := os.environ.get("CHAOS_BUG"):
        from tests.chaos.bugs import BUGS  # noqa: PLC0415 - as above

        BUGS[bug]()
