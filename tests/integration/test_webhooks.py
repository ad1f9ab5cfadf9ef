"""Alerts in Redis, sent to a server of the test."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import redis
from publisher import Publisher

from callmood.schemas.common import Emotion
from callmood.schemas.keys import Keys
from callmood.worker.adapters.publish_redis import RedisStore
from callmood.worker.commands import webhooks
from callmood.worker.commands.hooks import parse_hooks, signature
from callmood.worker.server_settings import RedisSettings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@contextmanager
def receiver(statuses=()):
    """A server that answers with these statuses, then 204; yields its address and what it got."""
    answers, got = iter(statuses), []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((dict(self.headers), body))
            self.send_response(next(answers, 204))
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", got
        finally:
            server.shutdown()
            thread.join()


def hook_file(address, more=""):
    """One hook."""
    return f'[crm]\nurl = "{address}"\nsecret = "{SECRET}"\n{more}'


@pytest.fixture
def delivery(redis_url, redis_prefix):
    """`delivery(address, more)`: a delivery as one process has it; its pauses take no time and are in `waited`."""
    clients = []

    def made(address, more=""):
        clients.append(redis.Redis.from_url(redis_url))
        (hook,) = parse_hooks(hook_file(address, more))
        one = webhooks.Delivery(clients[-1], hook, redis_prefix, ttl_s=1_000, pause=made.waited.append)
        one.turn(1)  # a new hook begins at the newest alert
        return one

    made.waited = []
    yield made
    for client in clients:
        client.close()


@pytest.fixture
def worker(redis_url, redis_prefix):
    with closing(Publisher(redis_url, redis_prefix)) as publishing:
        yield publishing


def angry(worker, call_id, queue="billing"):
    """A call with two alerts: sustained_negative, then negative_run."""
    for _ in range(4):
        worker.say(call_id, Emotion.ANGER, attributes={"queue": queue})


def test_new_alerts_are_sent_signed_and_once(worker, delivery):
    """Those from before are not; a later process goes on where the earlier one was."""
    angry(worker, "before")
    with receiver() as (address, got):
        first = delivery(address)
        angry(worker, "upset")
        assert (first.turn(1), first.turn(1)) == (2, 0)
        second = delivery(address)
        angry(worker, "other")
        assert second.turn(1) == 2
    sent = [json.loads(body)["data"]["alert"] for _, body in got]
    assert [alert["call_id"] for alert in sent] == ["upset", "upset", "other", "other"]
    for headers, body in got:
        name, stamp = headers["Webhook-Id"], headers["Webhook-Timestamp"]
        assert headers["Webhook-Signature"] == signature(SECRET, name, stamp, body)
    assert len({headers["Webhook-Id"] for headers, _ in got}) == 4


def test_an_alert_that_is_refused_is_tried_again_with_its_id(worker, delivery):
    """Errors and redirects are refusals; the pauses grow."""
    with receiver([500, 302, 429]) as (address, got):
        one = delivery(address, "rules = ['negative_run']")
        angry(worker, "upset")
        assert one.turn(1) == 2
    assert len({headers["Webhook-Id"] for headers, _ in got}) == 1
    assert (len(got), delivery.waited) == (4, [1.0, 5.0, 30.0])


def test_a_dead_end_can_be_seen_and_the_next_alert_is_sent(worker, delivery, redis_client, redis_prefix):
    """The alert is in Redis with the reason, until the call is erased."""
    keys = Keys(redis_prefix)
    with receiver([500] * (len(webhooks.RETRY_S) + 1)) as (address, got):
        one = delivery(address)
        angry(worker, "upset")
        assert one.turn(1) == 2
    ((_, entry),) = redis_client.xrange(keys.undelivered)
    assert (entry["hook"], entry["alert_id"], entry["error"]) == ("crm", "upset:sustained_negative:1", "status 500")
    assert json.loads(got[-1][1])["data"]["alert"]["rule"] == "negative_run"
    RedisStore(redis_client, RedisSettings(prefix=redis_prefix), "test").erase({"upset": 1})
    assert redis_client.xlen(keys.undelivered) == 0


def test_a_foreign_entry_stops_nothing(worker, delivery, redis_client, redis_prefix):
    """It is passed over."""
    with receiver() as (address, got):
        one = delivery(address)
        for text in ("no json", "{}", "[1]"):
            redis_client.xadd(Keys(redis_prefix).alerts, {"json": text})
        redis_client.xadd(Keys(redis_prefix).alerts, {"other": "field"})
        angry(worker, "upset")
        assert one.turn(1) == 6
    assert len(got) == 2


def test_after_a_kill_nothing_is_missing(worker, redis_url, redis_prefix, tmp_path):
    """The command is killed while the receiver refuses; the next one sends the alert with the same id."""
    environment = os.environ | {"CALLMOOD_REDIS__URL": redis_url, "CALLMOOD_REDIS__PREFIX": redis_prefix}
    command = [sys.executable, "-m", "callmood", "webhooks", str(tmp_path / "hooks.toml")]
    with receiver([500]) as (address, got), redis.Redis.from_url(redis_url) as client:
        (tmp_path / "hooks.toml").write_text(hook_file(address, "rules = ['negative_run']"))
        first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        assert eventually(lambda: client.exists(Keys(redis_prefix).webhooks))
        angry(worker, "upset")
        assert eventually(lambda: got)
        first.kill()
        first.wait()
        second = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        assert eventually(lambda: len(got) >= 2)
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
    assert len({headers["Webhook-Id"] for headers, _ in got}) == 1


def eventually(is_true):
    """Whether a condition becomes true."""
    deadline_s = time.monotonic() + 40
    while not (value := is_true()) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return value
