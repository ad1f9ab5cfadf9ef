"""A Kafka that allows only what an ACL grants: the list of `callmood acls` is enough, and every line is needed."""

import json
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ACLFilter, ACLPermissionType, ResourcePatternFilter

from callmood.__main__ import main
from callmood.worker import settings
from callmood.worker.commands import acls

pytestmark = pytest.mark.timeout(400)

ADMIN = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "admin",
    "sasl_plain_password": "over",
}
CALL = Path(__file__).parents[2] / "examples" / "calls" / "billing.flac"
PRINCIPAL = "User:worker"
_JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required"
    ' username="admin" password="over" user_admin="over" user_worker="under";'
)


@pytest.fixture(scope="module")
def strict_kafka(guarded):
    """A broker of these tests' own: two users, and nobody may do anything unless an ACL says so; its address."""
    properties = {
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": _JAAS,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
    }
    with guarded("SASL_PLAINTEXT", properties) as address:
        yield address


@pytest.fixture
def login(strict_kafka, pipeline, monkeypatch):
    """`login(user, output)` makes the environment that of a user; returns the settings."""
    kinds = {"utterance": "utterances", "call": "calls", "alert": "alerts", "state": "states", "erasure": "erasures"}
    topics = {f"kafka__{key}_topic": f"{pipeline.audio_topic}-{name}" for key, name in kinds.items()}
    names = {"kafka__audio_topic": pipeline.audio_topic, "kafka__dead_letter_topic": pipeline.dead_letter_topic}

    def become(user, output):
        changes = {
            **topics,
            **names,
            "kafka__bootstrap_servers": strict_kafka,
            "kafka__group_id": pipeline.prefix,
            "kafka__security_protocol": "SASL_PLAINTEXT",
            "kafka__sasl_mechanism": "PLAIN",
            "kafka__sasl_username": user,
            "kafka__sasl_password": {"admin": "over", "worker": "under"}[user],
            "kafka__request_timeout_ms": "5000",
            "redis__url": pipeline.redis_url,
            "redis__prefix": pipeline.prefix,
            "worker__output": output,
            "model__device": "cpu",
        }
        for key, value in changes.items():
            monkeypatch.setenv(f"CALLMOOD_{key.upper()}", value)
        return changes

    return become


OUTPUTS = [pytest.param("redis", marks=pytest.mark.nightly), "both"]


def prepare(login, output, *options):
    """Topics and ACLs, as an administrator makes them; ends as the worker."""
    login("admin", output)
    assert main(["topics", "--partitions", "2", "--replication-factor", "1"]) == 0
    assert main(["acls", PRINCIPAL, "--apply", *options]) == 0
    return login("worker", output)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_worker_needs_no_more_than_the_list(login, pipeline, wait_until, output, capsys):
    """With exactly these ACLs, `check` finds everything and a worker takes a call from audio to its end in Redis."""
    changes = prepare(login, output)
    capsys.readouterr()
    assert main(["check", "kafka", "redis"]) == 0, capsys.readouterr().out
    worker = pipeline.start_worker(**changes).wait_ready()
    login("admin", output)
    capsys.readouterr()
    assert main(["replay", "--speed", "0", str(CALL)]) == 0
    (call_id,) = capsys.readouterr().out.split()
    ended = wait_until(lambda: (pipeline.call(call_id) or {}).get("status") == "completed", 60)
    assert ended, worker.log[-3000:]
    assert not worker.lines("cannot run")
    worker.stop()


@contextmanager
def without(admin, one):
    """One ACL is taken away, and given back."""
    acl = acls._acl(PRINCIPAL, one)
    pattern = acl.resource_pattern
    resource = ResourcePatternFilter(pattern.resource_type, pattern.resource_name, pattern.pattern_type)
    admin.delete_acls([ACLFilter(PRINCIPAL, "*", acl.operation, ACLPermissionType.ALLOW, resource)])
    yield
    admin.create_acls([acl])


def fill(admin, producer, prefix):
    """One record in the first partition of each topic: who may read it has it at once; an empty one is waited for."""
    for topic in admin.list_topics():
        if topic.startswith(prefix):
            producer.send(topic, b"anything", key=b"any", partition=0).get(timeout=30)


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_line_of_the_list_is_needed(login, strict_kafka, pipeline, output, capsys):
    """Taken away one at a time, each ACL is missed by `check`, which says so in one line."""
    prepare(login, output)
    admin = KafkaAdminClient(bootstrap_servers=strict_kafka, **ADMIN)
    with KafkaProducer(bootstrap_servers=strict_kafka, **ADMIN) as producer:
        fill(admin, producer, pipeline.audio_topic)
    unnoticed = []
    for one in acls.needed(settings.load()):
        with without(admin, one):
            capsys.readouterr()
            code = main(["check", "kafka"])
            said = capsys.readouterr().out
        if code == 0:
            unnoticed.append(one[1])
        else:
            assert code == 2, (one, said)
            assert said.count("\n") == 1, said
    admin.close()
    assert unnoticed == []


def test_an_erasure_needs_exactly_its_list(login, strict_kafka, pipeline, capsys):
    """With the rights of `acls --erase` a call is erased; without any one of them, it is refused and says so."""
    prepare(login, "both", "--erase")
    admin = KafkaAdminClient(bootstrap_servers=strict_kafka, **ADMIN)
    rights = list(acls.needed_to_erase(settings.load()))
    for one in rights:
        with KafkaProducer(bootstrap_servers=strict_kafka, **ADMIN) as producer:
            for name in ("calls", "alerts"):
                producer.send(f"{pipeline.audio_topic}-{name}", key=b"gone", value=b"{}", partition=0).get(timeout=30)
        with without(admin, one):
            assert main(["erase", "gone"]) == 2, one
            assert f"{pipeline.audio_topic}" in capsys.readouterr().err
    assert main(["erase", "gone"]) == 1
    receipt = json.loads(capsys.readouterr().out)
    assert (receipt["complete"], receipt["left_to_retention"]) == (True, len(rights))
    admin.close()


def test_the_list_is_commands_of_kafkas_own_tool(login, pipeline, capsys):
    """Without `--apply`, each line is a command of `kafka-acls.sh`; nothing is asked of Kafka."""
    login("worker", "both")
    assert main(["acls", "User:somebody"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13
    assert lines[0] == (
        f"kafka-acls.sh --add --allow-principal User:somebody --operation Read --topic {pipeline.audio_topic}"
    )
    (transactional,) = (line for line in lines if "--transactional-id" in line)
    assert transactional.endswith(
        f"--operation Write --transactional-id {pipeline.prefix}- --resource-pattern-type prefixed"
    )
    assert uuid4().hex not in lines
