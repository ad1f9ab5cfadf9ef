"""Publishes calls to Redis through the worker's own store, one utterance a commit."""

from collections import Counter

import redis

from callmood.schemas.common import EMOTIONS, Encoding, Role
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.call import aggregate, alert, policy
from callmood.worker.call.render import Stamps, Times, utterance_record
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.commits import CallUpdate, Commit, TopicPartition
from callmood.worker.records import Acoustics, Cut, ModelInfo, Position, Prediction, Result, Utterance, reserved
from callmood.worker.server_settings import RedisSettings
from callmood.worker.settings import PolicySettings
from callmood.worker.stream_time import StreamTime

_SOURCE = TopicPartition("audio", 0)
_STAMPS = Stamps(policy.stamp(PolicySettings()), ModelInfo("demo-tiny", "1", "sha256:" + "0" * 64))
_START_MS = 1_750_000_000_000


class Publisher:
    """Publishes calls as a worker does; `say` is one utterance and one commit."""

    def __init__(self, url, prefix):
        self._client = redis.Redis.from_url(url)
        self._store = RedisStore(self._client, RedisSettings(prefix=prefix), "owner")
        self._store.claim(_SOURCE)
        self._states, self._numbers, self._judged = {}, {}, {}
        self._paused_ms = Counter()

    def close(self):
        """Let go of the connection."""
        self._client.close()

    def say(self, call_id, label=None, *, end=False, attributes=None, pause_ms=0):
        """The next five seconds of a call, after a pause; without a label the agent speaks."""
        is_first = call_id not in self._states
        state = self._states.get(call_id) or aggregate.start(aggregate.Aggregate(call_id), started_at_ms=_START_MS)
        state = aggregate.describe(state, attributes=attributes or {}, notice=None)
        number = self._numbers[call_id] = self._numbers.get(call_id, 0) + 1
        self._paused_ms[call_id] += pause_ms
        start_ms, position = number * 5_000 + self._paused_ms[call_id], Position("audio", 0, number)
        utterance = Utterance(
            id=f"{call_id}:0:0:{start_ms}", call_id=call_id, stream="0", channel=int(label is None),
            role=Role.CUSTOMER if label else Role.AGENT, start_ms=start_ms, end_ms=start_ms + 4_000,
            capture_end_ms=_START_MS + start_ms + 4_000, encoding=Encoding.PCMU, rate_hz=8_000, audio=b"",
            cut=Cut.SILENCE, missing_ms=0, overlap_ms=0, acoustics=Acoustics(-20.0, 20.0, 0.0, 3_400),
            first=position, last=position, withheld=None if label else "policy:role_agent",
            spoken_at_ms=_START_MS + start_ms, attributes=reserved(state.attributes),
        )  # fmt: skip
        result = Result(utterance, label and Prediction(tuple(0.7 if e is label else 0.1 for e in EMOTIONS)))
        state = aggregate.fold(state, result)
        judged, alerts = alert.evaluate(DEFAULT_RULES, self._judged.get(call_id, alert.Memory()), state, result)
        self._judged[call_id] = judged
        if end:
            state = aggregate.finish(state, reason="end", end_ms=start_ms + 4_000)
        self._states[call_id] = state
        ended_ms = state.timeline.end_ms if end else None
        states = alert.states(judged, call_id, ended_ms=ended_ms)
        summary = aggregate.summary(state, policy=_STAMPS.policy, model=_STAMPS.model, alerts=states)
        known_ms = _START_MS + start_ms + 4_500
        record = utterance_record(result, number, _STAMPS, Times(known_ms - 100, known_ms, known_ms + 10))
        update = CallUpdate(call_id, b"state", summary, summary["risk"], is_first)
        time = StreamTime(number, _START_MS + start_ms)
        committed = self._store.commit([Commit(_SOURCE, number, time, (record,), tuple(alerts), (update,))])
        assert len(committed.durable) == 1
        return record
