"""The users that schemas/redis.md recommends, on a real server."""

import json
import re
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from callmood import schemas
from callmood.dashboard.page.floor import Floor
from callmood.redis_address import Address
from callmood.schemas import flat
from callmood.schemas.call import Call
from callmood.schemas.keys import Keys
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.adapters.store import Committed
from callmood.worker.commands.hooks import parse_hooks
from callmood.worker.commands.webhooks import Delivery
from callmood.worker.commits import CallUpdate, Commit, TopicPartition
from callmood.worker.server_settings import RedisSettings
from callmood.worker.stream_time import StreamTime

FOLDER = Path(schemas.__file__).parent
SOURCE = TopicPartition("callmood.audio", 0)
CATALOGUE = (FOLDER / "redis.md").read_text(encoding="utf-8")
_WEEK = (":utterances", ":alerts", ":changes", ":live:by_update", ":live:by_risk", ":live:by_alert", ":pulse")
RULES = dict(re.findall(r"ACL SETUSER (\w+) reset on >SECRET\s(.*?)```", CATALOGUE, re.DOTALL))


def load(path):
    return json.loads((FOLDER / "examples" / path).read_text(encoding="utf-8"))


@pytest.fixture
def login(redis_client, redis_url, redis_prefix):
    """Creates a user by rules of the catalogue, with this test's prefix, and returns its client."""
    users, clients = [], []

    def create(rules):
        name = f"test-{uuid4().hex[:12]}"
        users.append(name)
        words = rules.replace("{callmood}", Keys(redis_prefix).tag).split()
        redis_client.execute_command("ACL", "SETUSER", name, "reset", "on", ">SECRET", *words)
        clients.append(redis.Redis.from_url(redis_url, username=name, password="SECRET"))
        return clients[-1]

    yield create
    for client in clients:
        client.close()
    redis_client.execute_command("ACL", "DELUSER", *users)


@pytest.fixture
def published(login, redis_prefix):
    """One call, one utterance and one alert, published by the worker's own store under the worker's own user."""
    settings = RedisSettings(prefix=redis_prefix)
    store = RedisStore(login(RULES["worker"]), settings, "test")
    store.claim(SOURCE)
    update = CallUpdate("call-1", b"state", load("call/valid/live.json"), risk=0.5, is_first=True)
    commit = Commit(
        SOURCE,
        watermark=5136,
        time=StreamTime(),
        utterances=(load("utterance/valid/labelled.json") | {"number": 1},),
        alerts=(load("alert/valid/customer_negative.json"),),
        calls=(update,),
    )
    assert store.commit([commit]) == Committed((commit,))
    return Keys(redis_prefix)


def test_a_dashboard_reads_every_result(published, login):
    """The recommended user can run each read that the catalogue shows."""
    dashboard = login(RULES["dashboard"])
    fields = {name.decode(): text.decode() for name, text in dashboard.hgetall(published.call("call-1")).items()}
    assert flat.unflatten(fields) == Call.model_validate(load("call/valid/live.json"))
    assert dashboard.zrange(published.live_by("risk"), 0, 19, desc=True, withscores=True) == [(b"call-1", 0.5)]
    ((entry_id, _),) = dashboard.xrevrange(published.utterances_of("call-1"), "+", "-", count=10)
    assert entry_id == b"1-0"
    heard = dict(dashboard.xread({published.utterances: "0", published.alerts: "0"}, block=100))
    ((_, utterance),), ((_, alert),) = (heard[name.encode()] for name in (published.utterances, published.alerts))
    assert set(utterance) == {b"json", b"call_id", b"number", b"role", b"start_ms", b"end_ms", b"kind", b"label"}
    assert set(alert) == {b"json", b"call_id", b"role", b"rule", b"since_ms"}
    assert json.loads(alert[b"json"]) == load("alert/valid/customer_negative.json")


def test_the_page_writes_claims_and_nothing_else(published, login, redis_url):
    """The recommended user of the page reads the floor and claims an alert, and changes no result."""
    client = login(RULES["page"])
    name = client.connection_pool.connection_kwargs["username"]
    address = redis_url.replace("redis://", f"redis://{name}:SECRET@")
    floor = Floor(Address(address), published.prefix)
    floor.look()
    assert [row["id"] for row in floor.snapshot.rows] == ["call-1"]
    (alert,) = floor.snapshot.alerts
    assert floor.claim(alert["alert_id"], "Kim", "")
    assert not floor.claim(alert["alert_id"], "Ada", "")
    floor.look()
    assert floor.snapshot.alerts[0]["claim"]["by"] == "Kim"
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.hset(published.call("call-1"), "status", "completed")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda client, keys: client.hset(keys.call("call-1"), "status", "completed"),
        lambda client, keys: client.xadd(keys.utterances, {"json": "{}"}),
        lambda client, keys: client.delete(keys.call("call-1")),
        lambda client, keys: client.hgetall(keys.states("callmood.audio", 0)),
        lambda client, keys: client.hgetall(keys.position("callmood.audio", 0)),
        lambda client, _: client.keys("*"),
        lambda client, _: client.config_get("*"),
    ],
    ids=["change", "append", "delete", "states", "position", "keys", "config"],
)
def test_a_dashboard_does_nothing_else(published, login, attempt):
    """The recommended user can neither write, nor read the worker's own keys, nor look around."""
    with pytest.raises(redis.exceptions.NoPermissionError):
        attempt(login(RULES["dashboard"]), published)


def test_webhooks_are_sent_with_the_rights_of_the_catalogue(published, login, redis_prefix):
    """The recommended user reads alerts, and notes how far it is and what it has given up."""
    text = f"[a]\nurl = 'http://127.0.0.1:9/'\nsecret = 'whsec_{'A' * 40}'\n"
    client = login(RULES["webhooks"])
    client.hset(published.webhooks, "a", "0-0")
    delivery = Delivery(client, *parse_hooks(text), redis_prefix, ttl_s=9, pause=lambda _: False)
    assert (delivery.turn(1), delivery.turn(1)) == (1, 0)
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.hgetall(published.call("call-1"))


def test_every_key_has_the_lifetime_of_the_catalogue(published, redis_client):
    """No key of a commit lives for ever, and each lives as long as redis.md says."""
    lifetimes_s = {
        key.removeprefix(published.tag): redis_client.ttl(key) for key in redis_client.scan_iter(published.named("*"))
    }
    hours = {name: round(seconds / 3600) for name, seconds in lifetimes_s.items()}
    week = dict.fromkeys(_WEEK, 7 * 24)
    own = {":position:callmood.audio:0": 7 * 24, ":states:callmood.audio:0": 7 * 24}
    assert hours == {":call:call-1": 4, ":utterances:call-1": 4} | week | own
