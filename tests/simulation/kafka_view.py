"""A reader of the output topics that is never late, and lays out what it has read as Redis would hold it."""

import json
from typing import TYPE_CHECKING, Any

from callmood.schemas import flat
from callmood.schemas.keys import Keys
from callmood.worker.settings import Settings
from tests.simulation.kafka_side import Group
from tests.simulation.transactions import Broker

if TYPE_CHECKING:
    from callmood.worker.commits import TopicPartition


class KafkaView:
    """The committed outputs: the same questions can be asked of it as of the simulated Redis."""

    def __init__(self, broker: Broker, group: Group, settings: Settings) -> None:
        self.keys: dict[bytes, Any] = {}
        self.touched: set[bytes] = set()
        self._broker = broker
        self._group = group
        self._topics = settings.kafka
        self._prefix = settings.redis.prefix
        self._at: dict[TopicPartition, int] = dict.fromkeys(broker.logs, 0)

    def hash_of(self, key: str) -> dict[bytes, bytes]:
        """The fields of a hash, or the scores of a sorted set."""
        return self.keys.get(key.encode(), {})

    def entries_of(self, key: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """The entries of a stream."""
        return self.keys.get(key.encode(), [])

    def follow(self, now_s: float) -> None:
        """Read on, up to the last stable offsets."""
        for source, log in self._broker.logs.items():
            records, self._at[source] = log.read(self._at[source], now_s, 1 << 30)
            for record in records:
                if source.topic != self._topics.state_topic:
                    self._take(source.topic, json.loads(record.value))
        for source, offset in self._group.committed.items():
            self._set(f"position:{source.topic}:{source.partition}", {b"watermark": b"%d" % offset})

    def _take(self, topic: str, value: dict[str, Any]) -> None:
        entry = {b"json": json.dumps(value).encode()}
        if topic == self._topics.utterance_topic:
            self._add(f"utterances:{value['call_id']}", value["number"], entry)
            self._add("utterances", 0, entry)
        elif topic == self._topics.alert_topic:
            self._add("alerts", 0, entry)
        else:
            call_id = value["call_id"]
            fields = {name.encode(): text.encode() for name, text in flat.flatten(value).items()}
            self._set(f"call:{call_id}", fields)
            is_live = value["status"] == "live"
            is_alerted = any(one["state"] == "raised" for one in value["alerts"])
            lists = {"live:by_update": is_live, "live:by_risk": is_live, "live:by_alert": is_alerted}
            for name, is_in in (lists | {"ended:by_time": not is_live}).items():
                known = self.keys.setdefault(self._key(name), {})
                known.pop(call_id.encode(), None)
                if is_in:
                    known[call_id.encode()] = 0.0

    def _add(self, name: str, number: int, entry: dict[bytes, bytes]) -> None:
        entries = self.keys.setdefault(self._key(name), [])
        entries.append((b"%d-0" % (number or len(entries) + 1), entry))
        self.touched.add(self._key(name))

    def _set(self, name: str, fields: dict[bytes, bytes]) -> None:
        if self.keys.get(self._key(name)) != fields:
            self.keys[self._key(name)] = fields
            self.touched.add(self._key(name))

    def _key(self, name: str) -> bytes:
        return Keys(self._prefix).named(name).encode()
