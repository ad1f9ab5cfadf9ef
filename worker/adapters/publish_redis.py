"""One atomic commit of (utterances, call states, watermark), and taking a partition over.

The watermark lives with the results: whoever resumes, resumes from what the results say, so a result can be neither
lost nor counted twice. The token is the fence: a claim replaces it, so nothing of an earlier owner fits any more, and
a server that has lost writes in a failover answers with a token that nobody expects.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Protocol

import msgpack

from callmood.schemas import flat
from callmood.schemas.call import Call
from callmood.worker.adapters.redis_client import redis_errors
from callmood.worker.commits import CallUpdate, Commit, Restored, TopicPartition
from callmood.worker.settings import RedisSettings
from callmood.worker.stream_time import StreamTime


class Store(Protocol):
    """Where results and states are committed together."""

    moves_group_offsets: bool
    """Whether a commit moves the consumer group's offsets too; else they are moved afterwards, for display."""

    def claim(self, source: TopicPartition) -> Restored:
        """Take a partition over, fence its earlier owner, and get what it left.

        Raises:
            StoreUnavailable: no answer for now.
        """

    def commit(self, commits: Sequence[Commit]) -> list[TopicPartition]:
        """Commit each partition atomically; a commit may be repeated until it is answered.

        Returns:
            The partitions that are another owner's, or whose data was lost: drop their work and claim them again.

        Raises:
            StoreUnavailable: no answer for now; some of the commits may have taken place.
        """


class RedisStore:
    """Results, states and position in Redis or Valkey. All keys share a hash tag, so that one script may touch them."""

    moves_group_offsets = False

    def __init__(self, client: Any, settings: RedisSettings, owner: str) -> None:
        self._redis = client
        self._settings = settings
        self._owner = owner
        self._tokens: dict[TopicPartition, tuple[str, int]] = {}
        self._answered: dict[TopicPartition, Commit] = {}
        self._claim = client.register_script(files(__package__).joinpath("claim.lua").read_text())
        self._commit = client.register_script(files(__package__).joinpath("publish.lua").read_text())

    def claim(self, source: TopicPartition) -> Restored:
        """See `Store`."""
        claim = uuid.uuid4().hex
        with redis_errors():
            (watermark, *clock), states = self._claim(
                keys=[self._source_key("position", source), self._source_key("states", source)],
                args=[f"{claim}:0", self._owner, self._settings.state_ttl_s, *StreamTime._fields],
            )
        self._tokens[source] = (claim, 0)
        self._answered.pop(source, None)
        return Restored(
            None if watermark is None else int(watermark),
            StreamTime(*(int(value or 0) for value in clock)),
            {call_id.decode(): state for call_id, state in zip(states[::2], states[1::2], strict=True)},
        )

    def commit(self, commits: Sequence[Commit]) -> list[TopicPartition]:
        """See `Store`."""
        fenced = []
        for commit in commits:
            if self._answered.get(commit.source) is commit:
                continue  # repeated, because the answer for another partition was missing
            claim, number = self._tokens[commit.source]
            with redis_errors():
                answer = self._commit(
                    keys=self._keys(commit),
                    args=[
                        f"{claim}:{number}",
                        f"{claim}:{number + 1}",
                        msgpack.packb(self._payload(commit), use_bin_type=False),
                    ],
                )
            if answer == b"ok":
                self._tokens[commit.source] = (claim, number + 1)
                self._answered[commit.source] = commit
            else:
                fenced.append(commit.source)
        return fenced

    def _key(self, name: str) -> str:
        return f"{{{self._settings.prefix}}}:{name}"

    def _source_key(self, name: str, source: TopicPartition) -> str:
        return self._key(f"{name}:{source.topic}:{source.partition}")

    def _keys(self, commit: Commit) -> list[str]:
        keys = [self._source_key("position", commit.source), self._source_key("states", commit.source)]
        keys += [self._key(name) for name in ("utterances", "alerts", "live:by_update", "live:by_risk")]
        for call in commit.calls:
            keys += [self._key(f"call:{call.call_id}"), self._key(f"utterances:{call.call_id}")]
        return keys

    def _payload(self, commit: Commit) -> dict[str, Any]:
        indices = {call.call_id: index for index, call in enumerate(commit.calls, start=1)}
        return {
            "calls": [self._call(call) for call in commit.calls],
            "utterances": [
                {
                    "call": indices[utterance["call_id"]],
                    "number": str(utterance["number"]),
                    "fields": _entry(utterance),
                }
                for utterance in commit.utterances
            ],
            "alerts": [_entry(alert) for alert in commit.alerts],
            "position": _flat_list(
                {
                    "watermark": commit.watermark,
                    **commit.time._asdict(),
                    "owner": self._owner,
                }
            ),
            "length": str(self._settings.firehose_length),
            "call_prefix": self._key("call:"),
            "call_ttl": str(self._settings.call_ttl_s),
            "state_ttl": str(self._settings.state_ttl_s),
        }

    def _call(self, call: CallUpdate) -> dict[str, Any]:
        packed: dict[str, Any] = {"id": call.call_id, "first": call.is_first}
        if call.state is not None:
            packed["state"] = call.state
        if call.summary is not None:
            packed |= {
                "fields": _flat_list(flat.flatten(Call.model_validate(call.summary))),
                "live": not call.has_ended,
                "ttl": str(self._settings.ended_ttl_s if call.has_ended else self._settings.call_ttl_s),
                "updated": str(call.summary["updated_at_ms"]),
                "risk": repr(call.risk),
            }
        return packed


def _flat_list(fields: Mapping[str, Any]) -> list[str]:
    return [str(part) for item in fields.items() for part in item]


def _entry(record: Mapping[str, Any]) -> list[str]:
    """A stream entry: what a reader filters by, and the whole record as JSON."""
    emotion = record.get("emotion") or {}
    named = {name: record.get(name) for name in ("call_id", "number", "role", "start_ms", "end_ms", "rule", "since_ms")}
    fields = {name: value for name, value in named.items() if value is not None}
    if emotion.get("label") and not emotion["abstained"]:
        fields["label"] = emotion["label"]
    return _flat_list(fields | {"json": json.dumps(record, separators=(",", ":"))})
