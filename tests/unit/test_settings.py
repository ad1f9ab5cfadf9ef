"""Settings from the environment: an error names each wrong setting, and nothing starts."""

import os

import pytest

from callmood.schemas.common import Role
from callmood.worker import settings
from callmood.worker.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in os.environ:
        if name.upper().startswith(settings.PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def load(monkeypatch):
    """Loads with these variables, named without their prefix."""

    def with_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(settings.PREFIX + name, value)
        return settings.load()

    return with_variables


def test_without_variables_the_defaults_stand(load):
    """A worker on one's own machine needs no settings."""
    assert load() == settings.Settings()


def test_a_variable_sets_one_field_of_its_group(load):
    """The others keep their defaults; lists are comma-separated."""
    loaded = load(
        KAFKA__BOOTSTRAP_SERVERS="kafka-1:9092,kafka-2:9092",
        SEGMENT__MAX_UTTERANCE_S="12.5",
        POLICY__EMOTION_ROLES="customer, unknown",
        POLICY__LEGAL_BASIS="DPA 7/26",
    )
    assert loaded.kafka.bootstrap_servers == "kafka-1:9092,kafka-2:9092"
    assert loaded.kafka.group_id == "callmood"
    assert loaded.segment.max_utterance_s == 12.5
    assert loaded.policy.emotion_roles == (Role.CUSTOMER, Role.UNKNOWN)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"KAFKA__GROUP": "x"}, "CALLMOOD_KAFKA__GROUP: unknown setting"),
        ({"KAFAK__GROUP_ID": "x"}, "CALLMOOD_KAFAK__GROUP_ID: unknown setting"),
        ({"SEGMENT__VAD_MODE": "4"}, "CALLMOOD_SEGMENT__VAD_MODE"),
        ({"WORKER__STALL_S": "inf"}, "CALLMOOD_WORKER__STALL_S"),
        ({"REDIS__TIMEOUT_S": "nan"}, "CALLMOOD_REDIS__TIMEOUT_S"),
        ({"REDIS__CALL_TTL_S": "10000000000000000000"}, "CALLMOOD_REDIS__CALL_TTL_S"),
        ({"KAFKA__SESSION_TIMEOUT_MS": "4000000000"}, "CALLMOOD_KAFKA__SESSION_TIMEOUT_MS"),
        ({"KAFKA__AUDIO_TOPIC": "call audio"}, "CALLMOOD_KAFKA__AUDIO_TOPIC"),
        ({"KAFKA__GROUP_ID": ""}, "CALLMOOD_KAFKA__GROUP_ID"),
        ({"KAFKA__DEAD_LETTER_TOPIC": "callmood.audio"}, "audio_topic and dead_letter_topic are both 'callmood.audio'"),
        ({"KAFKA__UTTERANCE_TOPIC": "callmood.audio"}, "audio_topic and utterance_topic are both 'callmood.audio'"),
        (
            {"KAFKA__MAX_POLL_INTERVAL_MS": "5000"},
            "CALLMOOD_KAFKA: .*max_poll_interval_ms 5000 is below session_timeout",
        ),
        ({"KAFKA__REQUEST_TIMEOUT_MS": "1"}, "CALLMOOD_KAFKA__REQUEST_TIMEOUT_MS: .*1000"),
        ({"POLICY__LEGAL_BASIS": "x" * 1025}, "CALLMOOD_POLICY__LEGAL_BASIS: .*1024"),
        ({"REDIS__PREFIX": "a{b}"}, "CALLMOOD_REDIS__PREFIX"),
        ({"POLICY__EMOTION_ROLES": "boss"}, "CALLMOOD_POLICY__EMOTION_ROLES"),
        ({"CALL__IDLE_S": "0"}, "CALLMOOD_CALL__IDLE_S"),
        ({"KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}, "CALLMOOD_KAFKA: .*sasl_mechanism"),
        ({"KAFKA__SASL_MECHANISM": "OAUTHBEARER"}, "CALLMOOD_KAFKA: .*sasl_token_file"),
        ({"KAFKA__SASL_PASSWORD": "a", "KAFKA__SASL_PASSWORD_FILE": "b"}, "CALLMOOD_KAFKA: .*both sasl_password and"),
        ({"REDIS__URL": "redis://a:b@c", "REDIS__PASSWORD_FILE": "b"}, "CALLMOOD_REDIS: .*both password_file and"),
        ({"REDIS__SSL_CA_FILE": "ca.crt"}, "CALLMOOD_REDIS: .*rediss://"),
        ({"WORKER": "not json"}, "worker"),
    ],
)
def test_what_is_wrong_is_named(load, variables, named):
    """A typing mistake stops the start with the name of the variable."""
    with pytest.raises(ConfigurationError, match=named):
        load(**variables)


def test_all_that_is_wrong_is_named_at_once(load):
    """One error names every unknown group, unknown setting and wrong value."""
    with pytest.raises(ConfigurationError, match=r"KAFAK__GROUP_ID.*LOGS.*IDLE_S.*CALLMOOD_LOG__LEVEL.*LOG__COLOR"):
        load(CALL__IDLE_S="0", LOG__LEVEL="loud", LOG__COLOR="red", LOGS="x", KAFAK__GROUP_ID="x")


@pytest.mark.parametrize("basis", [None, "", "  "])
def test_emotion_of_agents_needs_a_written_reason(load, basis):
    """The EU AI Act forbids it at work by default; an empty reason is none."""
    variables = {"POLICY__EMOTION_ROLES": "customer,agent"} | ({"POLICY__LEGAL_BASIS": basis} if basis else {})
    with pytest.raises(ConfigurationError, match="legal_basis"):
        load(**variables)
    assert load(POLICY__EMOTION_ROLES="agent", POLICY__LEGAL_BASIS="safety, DPA 7/26").policy.legal_basis


def test_secrets_are_not_shown(load):
    """Passwords stand in no log and no error."""
    loaded = load(REDIS__URL="redis://:hunter2@redis/0", KAFKA__SASL_PASSWORD="hunter2")
    assert "hunter2" not in repr(loaded)
    assert loaded.redis.url.get_secret_value() == "redis://:hunter2@redis/0"


def test_settings_do_not_change(load):
    """They are read once."""
    with pytest.raises(ValueError, match="frozen"):
        load().kafka.group_id = "other"
