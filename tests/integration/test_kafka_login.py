"""A Kafka that asks who we are: by password, by SCRAM, by token; right, wrong, expired, and replaced while we run."""

import base64
import json
import os
import subprocess
import sys
import time
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

pytestmark = pytest.mark.timeout(300)

_REAUTHENTICATE_MS = 4_000
_TOKEN_LIFE_S = 20
_MODULE = "org.apache.kafka.common.security"
_PROPERTIES = {
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
    "listener.name.plaintext.plain.sasl.jaas.config": (
        f'{_MODULE}.plain.PlainLoginModule required username="callmood" password="right" user_callmood="right";'
    ),
    "listener.name.plaintext.scram-sha-256.sasl.jaas.config": f"{_MODULE}.scram.ScramLoginModule required;",
    "listener.name.plaintext.scram-sha-512.sasl.jaas.config": f"{_MODULE}.scram.ScramLoginModule required;",
    "listener.name.plaintext.oauthbearer.sasl.jaas.config": (
        f'{_MODULE}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
    ),
    # who has logged in by these must do so again and again
    "listener.name.plaintext.scram-sha-512.connections.max.reauth.ms": str(_REAUTHENTICATE_MS),
    "listener.name.plaintext.oauthbearer.connections.max.reauth.ms": str(_REAUTHENTICATE_MS),
}


@pytest.fixture(scope="module")
def guarded_kafka(guarded):
    """A broker of these tests' own that lets in who can prove a name; its address."""
    with guarded("SASL_PLAINTEXT", _PROPERTIES) as address:
        yield address


@pytest.fixture
def admin(guarded_kafka, pipeline):
    """Who may change passwords; the topics of this test are there."""
    with KafkaAdminClient(
        bootstrap_servers=guarded_kafka,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_plain_username="callmood",
        sasl_plain_password="right",
    ) as client:
        topics = {name: {"num_partitions": 1} for name in (pipeline.audio_topic, pipeline.dead_letter_topic)}
        client.create_topics(topics, wait_for_metadata=True)
        yield client


@pytest.fixture
def login(pipeline, guarded_kafka):
    """`login(mechanism, **more)` gives the settings of a worker that logs in by this mechanism."""

    def settings(mechanism, **more):
        values = {
            "bootstrap_servers": guarded_kafka,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": mechanism,
            "audio_topic": pipeline.audio_topic,
            "dead_letter_topic": pipeline.dead_letter_topic,
            "request_timeout_ms": 2000,
        } | more
        if mechanism != "OAUTHBEARER":
            values["sasl_username"] = "callmood"
        return {f"kafka__{name}": str(value) for name, value in values.items()}

    return settings


def check(settings):
    """`callmood check kafka`, in a process of its own: exit code, and its line."""
    variables = {f"CALLMOOD_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "callmood", "check", "kafka"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def scram(admin, password):
    """Give the user a password of both kinds of SCRAM."""
    for kind in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        change = UserScramCredentialUpsertion("callmood", kind, password)
        assert admin.alter_user_scram_credentials([change]) == {"callmood": None}


def token(life_s):
    """What says that we are `callmood`, unsigned: the broker of a test believes it until its time is over."""
    now_s = time.time()
    claims = {"sub": "callmood", "iat": now_s - 60, "exp": now_s + life_s, "jti": uuid4().hex}
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join([base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts] + [""])


def assert_refused(told):
    """Code 2, and one line that says where to look."""
    code, line = told
    assert (code, line.count("\n")) == (2, 1), line
    assert "CALLMOOD_KAFKA__SASL_" in line


@pytest.mark.usefixtures("admin")
def test_a_worker_logs_in_or_reports_why_not(pipeline, login):
    """With the right password a worker gets ready; with a wrong one it ends with one line and code 2."""
    right = pipeline.start_worker(**login("PLAIN", sasl_password="right"))
    wrong = pipeline.start_worker(**login("PLAIN", sasl_password="secret-but-wrong"))
    assert wrong.exit_code() == 2
    (line,) = wrong.lines("cannot run")
    assert "CALLMOOD_KAFKA__SASL_" in line["error"]
    assert "Traceback" not in wrong.log
    right.wait_ready().stop()
    for log in (right.log, wrong.log):
        assert '"right"' not in log
        assert "secret-but-wrong" not in log


@pytest.mark.parametrize("mechanism", [pytest.param("SCRAM-SHA-256", marks=pytest.mark.nightly), "SCRAM-SHA-512"])
def test_scram_accepts_the_right_password_only(login, admin, mechanism):
    """SCRAM: the right password passes, a wrong one is named in one line that does not hold it."""
    scram(admin, "right")
    assert check(login(mechanism, sasl_password="right"))[0] == 0
    told = check(login(mechanism, sasl_password="secret-but-wrong"))
    assert_refused(told)
    assert "secret-but-wrong" not in told[1]


@pytest.mark.usefixtures("admin")
def test_an_expired_token_is_refused(login, tmp_path):
    """OAUTHBEARER: a valid token passes; an expired one is refused, and not shown."""
    file = tmp_path / "token"
    file.write_text(token(600))
    assert check(login("OAUTHBEARER", sasl_token_file=file))[0] == 0
    file.write_text(token(-30))
    told = check(login("OAUTHBEARER", sasl_token_file=file))
    assert_refused(told)
    assert file.read_text() not in told[1]


def renew_password(admin, file):
    scram(admin, "second")
    file.write_text("second\n")


def renew_token(_admin, file):
    replace(file, token(600))


def replace(file, text):
    """Write a file as a mounted secret changes: at once."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


ROTATIONS = {
    "SCRAM-SHA-512": ("sasl_password_file", lambda: "first\n", renew_password),
    "OAUTHBEARER": ("sasl_token_file", lambda: token(_TOKEN_LIFE_S), renew_token),
}


@pytest.mark.parametrize("mechanism", [pytest.param("SCRAM-SHA-512", marks=pytest.mark.nightly), "OAUTHBEARER"])
def test_a_secret_may_change_while_the_worker_runs(pipeline, login, admin, tmp_path, wait_until, mechanism):
    """A file is read again at each login: its old content is refused by now, and the worker does not notice."""
    setting, first, renew = ROTATIONS[mechanism]
    scram(admin, "first")
    file, old = tmp_path / "secret", tmp_path / "old"
    replace(file, first())
    worker = pipeline.start_worker(**login(mechanism, **{setting: file}))

    def is_ready():
        replace(old, first())  # on a busy machine a start takes longer than a token lives
        replace(file, old.read_text())
        return worker.probe("readyz")[0] == 200

    assert wait_until(is_ready, 120, 1.0), worker.log
    pids = worker.pids()
    renew(admin, file)
    time.sleep(_TOKEN_LIFE_S if mechanism == "OAUTHBEARER" else 2 * _REAUTHENTICATE_MS / 1000)
    assert worker.probe("readyz")[0] == 200, worker.log
    assert worker.pids() == pids, worker.log
    assert_refused(check(login(mechanism, **{setting: old})))
    worker.stop()
