"""Commits in Redis: utterances, call states and watermark of a partition in one step, and claims of partitions.

The watermark is stored with the results, and a new owner starts from it, so a result is neither lost nor counted twice.
The token is the fence: a claim replaces it, so that commits of an earlier owner are refused, and a server that lost
writes in a failover answers with a token that no owner expects. A commit that is repeated because its answer was lost
finds its own new token, and changes nothing.
"""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import msgpack
from redis.exceptions import NoScriptError

from callmood.schemas import flat
from callmood.schemas.call import AlertState
from callmood.schemas.keys import Keys
from callmood.worker.adapters.redis_client import redis_errors
from callmood.worker.adapters.redis_entries import delete_entries
from callmood.worker.adapters.store import Committed, Gone, not_ours
from callmood.worker.commits import CallUpdate, Commit, Origin, Restored, TopicPartition
from callmood.worker.errors import StoreUnavailable
from callmood.worker.server_settings import RedisSettings
from callmood.worker.stream_time import StreamTime

_REFUSED = 2
"""Length of the answer to a claim of a position that belongs to another deployment."""


class RedisStore:
    """Results, states and position in Redis or Valkey. All keys share a hash tag, so that one script may touch them."""

    moves_group_offsets = False
    can_commit = True

    def __init__(
        self,
        client: Any,
        settings: RedisSettings,
        owner: str,
        origin_of: Callable[[TopicPartition], Origin] = lambda _: Origin(),
    ) -> None:
        self._redis = client
        self._settings = settings
        self._keys = Keys(settings.prefix)
        self._owner = owner
        self._origin_of = origin_of
        self._tokens: dict[TopicPartition, tuple[str, int]] = {}
        self._is_known = False  # whether the server has answered as Redis
        self._claim = client.register_script(files(__package__).joinpath("claim.lua").read_text())
        self._script = files(__package__).joinpath("publish.lua").read_text()
        self._script_sha = client.register_script(self._script).sha

    def claim(self, source: TopicPartition) -> Restored:
        """See `Store`."""
        claim, (*origin, partitions) = uuid.uuid4().hex, self._origin_of(source)
        with redis_errors(is_known=self._is_known):
            answer = self._claim(
                keys=[self._keys.position(*source), self._keys.states(*source), self._keys.position(source.topic, 0)],
                args=[
                    f"{claim}:0",
                    self._owner,
                    self._settings.state_ttl_s,
                    *origin,
                    partitions or "",
                    *StreamTime._fields,
                ],
            )
        self._is_known = True
        if len(answer) == _REFUSED:
            field, found = answer
            raise not_ours(source, field.decode(), found.decode(), "another CALLMOOD_REDIS__PREFIX")
        (watermark, *clock), states, gone, first_partitions = answer
        self._tokens[source] = (claim, 0)
        return Restored(
            None if watermark is None else int(watermark),
            StreamTime(*(int(value or 0) for value in clock)) if any(clock) else None,
            {call_id.decode(errors="replace"): state for call_id, state in zip(states[::2], states[1::2], strict=True)},
            has_lost_states=gone == b"1",
            first_partitions=int(first_partitions) if first_partitions else None,
        )

    def commit(self, commits: Sequence[Commit]) -> Committed:
        """See `Store`.

        Raises:
            ConfigurationError: Redis refuses a command, or a key has another type.
        """
        durable: list[Commit] = []
        fenced: list[TopicPartition] = []
        gone: dict[TopicPartition, Gone] = {}
        failure: StoreUnavailable | None = None
        try:
            with redis_errors(is_known=self._is_known):
                answers = self._send(commits)
        except StoreUnavailable as error:
            return Committed((), failure=error)
        for commit, answer in zip(commits, answers, strict=True):
            if answer == b"ok" or isinstance(answer, list):
                claim, number = self._tokens[commit.source]
                self._tokens[commit.source] = (claim, number + 1)
                durable.append(commit)
                if isinstance(answer, list):
                    _, has_lost_states, silent, *summaries = answer
                    calls = tuple(call_id.decode() for call_id in summaries)
                    gone[commit.source] = Gone(has_lost_states == b"1", int(silent), calls)
            elif isinstance(answer, Exception):
                failure = _unavailable(answer)
            else:
                fenced.append(commit.source)
        return Committed(tuple(durable), tuple(fenced), failure, gone)

    def _send(self, commits: Sequence[Commit]) -> list[Any]:
        """Run the script of each commit in one round trip; an answer may be the error of its script."""
        assert len({commit.source for commit in commits}) == len(commits), "one commit for each partition"
        requests = [self._request(commit) for commit in commits]
        answers = self._run(requests)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            self._redis.script_load(self._script)
            answers = self._run(requests)  # a script that has run answers ok to its own token
        return answers

    def _run(self, requests: Sequence[Sequence[Any]]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for request in requests:
            pipe.execute_command(*request)
        answers: list[Any] = pipe.execute(raise_on_error=False)
        return answers

    def _request(self, commit: Commit) -> list[Any]:
        claim, number = self._tokens[commit.source]
        keys = self._keys_of(commit)
        payload = msgpack.packb(self._payload(commit), use_bin_type=False)
        tokens = (f"{claim}:{number}", f"{claim}:{number + 1}")
        return ["EVALSHA", self._script_sha, len(keys), *keys, *tokens, payload]

    def _keys_of(self, commit: Commit) -> list[str]:
        """In the order in which publish.lua expects them."""
        keys = self._keys
        names = [keys.position(*commit.source), keys.states(*commit.source)]
        names += [keys.utterances, keys.alerts, *keys.lists_of_calls, keys.pulse, keys.changes]
        for call in commit.calls:
            names += [keys.call(call.call_id), keys.utterances_of(call.call_id)]
        return names

    def _payload(self, commit: Commit) -> dict[str, Any]:
        said = Counter(utterance["call_id"] for utterance in commit.utterances)
        indices = {call.call_id: index for index, call in enumerate(commit.calls, start=1)}
        return {
            "calls": [
                self._call(call, said[call.call_id]) | self._logged(commit, call.call_id) for call in commit.calls
            ],
            "whole": commit.is_whole,
            "utterances": [
                {
                    "call": indices[utterance["call_id"]],
                    "number": str(utterance["number"]),
                    "fields": _entry(utterance),
                }
                for utterance in commit.utterances
            ],
            "alerts": [{"fields": _entry(alert), **self._logged(commit, alert["call_id"])} for alert in commit.alerts],
            "position": _flat_list(
                {
                    "watermark": commit.watermark,
                    **commit.time._asdict(),
                    "owner": self._owner,
                }
            ),
            "length": str(self._settings.firehose_length),
            "source": f"{commit.source.topic}:{commit.source.partition}",
            "call_prefix": self._keys.call_prefix,
            "call_ttl": str(self._settings.call_ttl_s),
            "ended_ttl": str(self._settings.ended_ttl_s),
            "state_ttl": str(self._settings.state_ttl_s),
        }

    def _logged(self, commit: Commit, call_id: str) -> dict[str, str]:
        """For a commit that is copied from Kafka: what tells whether the call has been erased since."""
        at_ms = commit.logged_ms.get(call_id)
        return {} if at_ms is None else {"logged": str(at_ms), "erased": self._keys.erased(call_id)}

    def erase(self, erased_ms: Mapping[str, int]) -> None:
        """Remove erased calls, and keep for as long as a state what was written before these times from coming back.

        The streams of all calls are read once, however many calls there are: a member of a group that does not poll for
        a minute loses its partitions.

        Raises:
            StoreUnavailable: no answer for now; erase them again.
        """
        keys = self._keys
        with redis_errors(is_known=self._is_known):
            for call_id, at_ms in erased_ms.items():
                mark = keys.erased(call_id)
                self._redis.hset(mark, "at", str(at_ms))
                self._redis.expire(mark, self._settings.state_ttl_s)
                self._redis.delete(keys.call(call_id), keys.utterances_of(call_id))
                for name in keys.lists_of_calls:
                    self._redis.zrem(name, call_id)
            for name in keys.streams_of_calls if erased_ms else ():
                delete_entries(self._redis, name, erased_ms)

    def _call(self, call: CallUpdate, said: int) -> dict[str, Any]:
        """A call for the script; `said` is the number of its utterances in this commit."""
        packed: dict[str, Any] = {"id": call.call_id, "first": call.is_first, "known": call.is_known}
        if call.state is not None:
            packed["state"] = call.state
        if call.summary is not None:
            packed |= {
                "fields": _flat_list(flat.flatten(call.summary)),
                "live": not call.has_ended,
                "ttl": str(self._settings.ended_ttl_s if call.has_ended else self._settings.call_ttl_s),
                "updated": str(call.summary["updated_at_ms"]),
                "risk": repr(call.risk),
                **_alerted(call.summary),
                "change": _flat_list({name: call.summary[name] for name in ("call_id", "version", "status")}),
                "told": call.is_known and call.summary["utterances"] > said,
            }
        return packed


def _alerted(call: Mapping[str, Any]) -> dict[str, str]:
    """Score of a call in live:by_alert: when the newest of its alerts was raised; nothing if none is raised now."""
    raised_ms = [one["raised_ms"] for one in call.get("alerts", ()) if one["state"] == AlertState.RAISED]
    return {"alerted": str(call["started_at_ms"] + max(raised_ms))} if raised_ms else {}


def _unavailable(answer: Exception) -> StoreUnavailable:
    """The answer to one script as an error that passes.

    Raises:
        ConfigurationError: it does not pass.
    """
    try:
        with redis_errors():
            raise answer
    except StoreUnavailable as error:
        return error


def _flat_list(fields: Mapping[str, Any]) -> list[str]:
    return [str(part) for item in fields.items() for part in item]


def _entry(record: Mapping[str, Any]) -> list[str]:
    """A stream entry: what a reader filters by, and the whole record as JSON."""
    emotion = record.get("emotion") or {}
    names = ("call_id", "number", "role", "start_ms", "end_ms", "kind", "rule", "since_ms")
    named = {name: record.get(name) for name in names}
    fields = {name: value for name, value in named.items() if value is not None}
    if emotion.get("label") and not emotion["abstained"]:
        fields["label"] = emotion["label"]
    return _flat_list(fields | {"json": json.dumps(record, separators=(",", ":"))})
