"""Live calls for measurements: what workers publish of them to Redis, without audio and without a model."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from callmood.schemas.common import EMOTIONS, Emotion, Encoding, Role
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.call import aggregate, alert, policy
from callmood.worker.call.render import Stamps, Times, utterance_record
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import CallUpdate, Commit, TopicPartition
from callmood.worker.records import Acoustics, Cut, ModelInfo, Position, Prediction, Result, Utterance, reserved
from callmood.worker.settings import PolicySettings
from callmood.worker.stream_time import StreamTime

QUEUES: Final = ("billing", "support", "sales", "retention")
STEP_MS: Final = 4_000
"""Time of a call between two utterances."""
_STEPS: Final = 60
_UPSET: Final = 20
"""One call of so many needs a person."""
_SOURCE: Final = TopicPartition("audio", 0)
_COMMIT_S: Final = 0.25
_NAME: Final = "@call@"
_STAMPS: Final = Stamps(policy.stamp(PolicySettings()), ModelInfo("bench", "1", "sha256:" + "0" * 64))


class Step(NamedTuple):
    """What is published after an utterance: utterance/1 and call/1 as JSON, with `@call@` for the id."""

    utterance: str
    call: str


def steps(*, is_upset: bool, started_at_ms: int) -> list[Step]:
    """A call of four minutes in which customer and agent take turns; the last step ends it."""
    state = aggregate.start(aggregate.Aggregate(_NAME), started_at_ms=started_at_ms)
    state = aggregate.describe(state, attributes={"queue": "@queue@", "agent": "Kim"}, notice=None)
    memory, made = alert.Memory(), []
    for number in range(1, _STEPS + 1):
        result = _said(state, number, Emotion.ANGER if is_upset else Emotion.NEUTRAL)
        state = aggregate.fold(state, result)
        memory, _ = alert.evaluate(DEFAULT_RULES, memory, state, result)
        ended_ms = number * STEP_MS if number == _STEPS else None
        if ended_ms is not None:
            state = aggregate.finish(state, reason="end", end_ms=ended_ms)
        states = alert.states(memory, _NAME, ended_ms=ended_ms)
        call = aggregate.summary(state, policy=_STAMPS.policy, model=_STAMPS.model, alerts=states)
        known_ms = started_at_ms + number * STEP_MS
        utterance = utterance_record(result, number, _STAMPS, Times(known_ms - 100, known_ms, known_ms + 10))
        made.append(Step(json.dumps(utterance), json.dumps(call)))
    return made


def _said(state: aggregate.Aggregate, number: int, label: Emotion) -> Result:
    """An utterance of three seconds; the agent says every second one."""
    is_agent, start_ms, position = number % 2 == 0, (number - 1) * STEP_MS, Position("audio", 0, number)
    utterance = Utterance(
        id=f"{_NAME}:0:0:{start_ms}", call_id=_NAME, stream="0", channel=int(is_agent),
        role=Role.AGENT if is_agent else Role.CUSTOMER, start_ms=start_ms, end_ms=start_ms + 3_000,
        capture_end_ms=state.started_at_ms + start_ms + 3_000, encoding=Encoding.PCMU, rate_hz=8_000, audio=b"",
        cut=Cut.SILENCE, missing_ms=0, overlap_ms=0, acoustics=Acoustics(-20.0, 20.0, 0.0, 3_400),
        first=position, last=position, withheld="policy:role_agent" if is_agent else None,
        spoken_at_ms=state.started_at_ms + start_ms, attributes=reserved(state.attributes),
    )  # fmt: skip
    anger, happiness, neutral, sadness = (0.7 if emotion is label else 0.1 for emotion in EMOTIONS)
    return Result(utterance, None if is_agent else Prediction((anger, happiness, neutral, sadness)))


class LiveCalls(threading.Thread):
    """Keeps this number of calls live, until `stop`: one that ends is followed by another.

    Args:
        store: of the workers.
        calls: how many are live.
        committed: told of each change once Redis has it: call id and shown length in seconds.
    """

    def __init__(self, store: RedisStore, calls: int, committed: Callable[[str, int], None]) -> None:
        super().__init__(name="live calls", daemon=True)
        self.changes_per_s = calls * 1000 / STEP_MS
        self.changes = 0
        self._committed = committed
        self._store = store
        self._calls = calls
        now_ms = round(time.time() * 1000)
        self._kinds = [steps(is_upset=is_upset, started_at_ms=now_ms) for is_upset in (False, True)]
        self._over = threading.Event()
        self._offset = 0

    def begin(self) -> None:
        """Publish all calls, each at a time of its own."""
        self._store.claim(_SOURCE)
        for first in range(0, self._calls, 100):
            self._commit([self._update(n, n % (_STEPS - 1)) for n in range(first, min(first + 100, self._calls))])

    def run(self) -> None:
        """Change one call after the other."""
        turns = self._turns()
        began_s, due = time.monotonic(), 0.0
        while not self._over.wait(_COMMIT_S):
            due = (time.monotonic() - began_s) * self.changes_per_s
            wanted = min(round(due) - self.changes, self._calls)
            if wanted > 0:
                self.changes += wanted
                self._commit([self._update(*turn) for turn in itertools.islice(turns, wanted)])

    def stop(self) -> None:
        """No changes from now on."""
        self._over.set()
        self.join()

    def _turns(self) -> Iterator[tuple[int, int]]:
        for round_ in itertools.count(1):
            for number in range(self._calls):
                yield number, number % (_STEPS - 1) + round_

    def _update(self, number: int, age: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """utterance/1 and call/1 of the call that has this place, so many steps after its first."""
        life, step = divmod(age, _STEPS)
        made = self._kinds[number % _UPSET == 0][step]
        names = (("@queue@", QUEUES[number % len(QUEUES)]), (_NAME, f"call-{number}-{life}"))
        texts = list(made)
        for old, new in names:
            texts = [text.replace(old, new) for text in texts]
        utterance, call = map(json.loads, texts)
        return utterance, call

    def _commit(self, updates: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        calls = [CallUpdate(call["call_id"], b"state", call, call["risk"], is_known=True) for _, call in updates]
        self._offset += len(updates)
        said = tuple(utterance for utterance, _ in updates)
        commit = Commit(_SOURCE, self._offset, StreamTime(), said, (), tuple(calls))
        if not self._store.commit([commit]).durable:
            raise RuntimeError("Redis refused the commit")
        for _, call in updates:
            self._committed(call["call_id"], call["duration_ms"] // 1000)
