"""Settings of the servers: Kafka, Redis; and what all groups of settings share."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

MOST = 2**31 - 1
"""Largest whole number that a setting accepts: the limit of Kafka's protocol and of Redis's EXPIRE."""

Positive = Annotated[int, Field(gt=0, le=MOST)]
PositiveFloat = Annotated[float, Field(gt=0, le=MOST)]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


def split(value: object) -> object:
    """A list that is written with commas; other values as they are."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Group(BaseModel):
    """Settings with one prefix."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KafkaSettings(Group):
    """Connection to Kafka and the names of the topics. `output=kafka` in this table includes `both`."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="brokers as host:port, comma-separated")
    group_id: Annotated[str, Field(min_length=1)] = Field("callmood", description="consumer group of the workers")
    audio_topic: TopicName = Field("callmood.audio", description="input topic (audio/1)")
    dead_letter_topic: TopicName = Field(
        "callmood.dead-letter", description="topic for records that break the contract (dead_letter/1)"
    )
    utterance_topic: TopicName = Field(
        "callmood.utterances", description="output=kafka: topic of utterances (utterance/1)"
    )
    call_topic: TopicName = Field(
        "callmood.calls", description="output=kafka: topic of call aggregates (call/1); compacted"
    )
    alert_topic: TopicName = Field("callmood.alerts", description="output=kafka: topic of alerts (alert/1)")
    state_topic: TopicName = Field(
        "callmood.states", description="output=kafka: topic of call states; must be compacted"
    )
    erasure_topic: TopicName = Field("callmood.erasures", description="output=kafka: topic of erased calls (erasure/1)")
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="where to start in a partition without a stored position"
    )
    assignor: Literal["cooperative-sticky", "sticky", "range"] = Field(
        "cooperative-sticky",
        description="how the group shares partitions; with sticky and range, all workers stop during a rebalance; "
        "with static membership, sticky is used instead of cooperative-sticky",
    )
    membership: Literal["dynamic", "static"] = Field(
        "dynamic",
        description="static: a worker keeps its partitions while it restarts; needs fixed worker names, no autoscaling",
    )
    session_timeout_ms: Positive = Field(
        15_000, description="time without a heartbeat after which other workers take over the partitions, ms"
    )
    max_poll_interval_ms: Positive = Field(
        60_000, description="longest time between two polls of a group member, ms; at least session_timeout_ms"
    )
    request_timeout_ms: Annotated[int, Field(ge=1_000, le=MOST)] = Field(
        15_000, description="time limit of one request to Kafka, ms"
    )
    fetch_wait_ms: Annotated[int, Field(ge=1, le=900)] = Field(100, description="longest wait for more records, ms")
    max_poll_records: Positive = Field(2_000, description="maximum number of records per poll")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="encryption and login: SSL encrypts, SASL logs in with a user name or a token"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="login mechanism; required with SASL_PLAINTEXT and SASL_SSL"
    )
    sasl_username: str | None = Field(None, description="user name for PLAIN and SCRAM")
    sasl_password: SecretStr | None = Field(None, description="password for PLAIN and SCRAM")
    sasl_password_file: Path | None = Field(
        None, description="file with the password, read at every login; use it instead of sasl_password"
    )
    sasl_token_file: Path | None = Field(None, description="file with the token for OAUTHBEARER, read at every login")
    ssl_ca_file: Path | None = Field(
        None, description="PEM file of trusted CA certificates; default: those of the system"
    )
    ssl_cert_file: Path | None = Field(None, description="PEM client certificate")
    ssl_key_file: Path | None = Field(None, description="PEM client key")

    @model_validator(mode="after")
    def _topics_differ(self) -> "KafkaSettings":
        names: dict[str, str] = {}
        for field in type(self).model_fields:
            if field.endswith("_topic"):
                other = names.setdefault(getattr(self, field), field)
                if other != field:
                    raise ValueError(f"{other} and {field} are both {getattr(self, field)!r}: each needs its own topic")
        return self

    @model_validator(mode="after")
    def _polls_within_a_session(self) -> "KafkaSettings":
        if self.max_poll_interval_ms < self.session_timeout_ms:
            raise ValueError(
                f"max_poll_interval_ms {self.max_poll_interval_ms} is below session_timeout_ms "
                f"{self.session_timeout_ms}: raise it"
            )
        return self

    @model_validator(mode="after")
    def _one_login(self) -> "KafkaSettings":
        if self.sasl_password and self.sasl_password_file:
            raise ValueError("both sasl_password and sasl_password_file are set: use one")
        if self.security_protocol.startswith("SASL") and self.sasl_mechanism is None:
            raise ValueError("security_protocol SASL_… needs sasl_mechanism")
        if self.sasl_mechanism == "OAUTHBEARER" and self.sasl_token_file is None:
            raise ValueError("sasl_mechanism OAUTHBEARER needs sasl_token_file")
        return self


class RedisSettings(Group):
    """Connection to Redis (or Valkey), and lifetimes of results."""

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="address: redis:// or, with TLS, rediss://"
    )
    username: str | None = Field(
        None, description="user name that goes with password_file; without password_file, set it in the url"
    )
    password_file: Path | None = Field(None, description="file with the password, read for every connection")
    ssl_ca_file: Path | None = Field(None, description="PEM file of trusted CA certificates, with rediss://")
    ssl_cert_file: Path | None = Field(None, description="PEM client certificate, with rediss://")
    ssl_key_file: Path | None = Field(None, description="PEM client key, with rediss://")
    sentinels: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)] = Field(
        (), description="host:port of each Sentinel; these replace the host and port of the url"
    )
    sentinel_master: str = Field("mymaster", description="name of the master in Sentinel")
    sentinel_username: str | None = Field(None, description="user name for the Sentinels")
    sentinel_password: SecretStr | None = Field(None, description="password for the Sentinels")
    cluster: bool = Field(False, description="true: the url is the address of a node of a Redis Cluster")
    prefix: str = Field("callmood", pattern=r"^[A-Za-z0-9_.-]+$", description="prefix of all keys, in braces: {prefix}")
    timeout_s: PositiveFloat = Field(2.0, description="time limit of one command, s")
    call_ttl_s: Positive = Field(14_400, description="lifetime of a live call's keys after their last change, s")
    ended_ttl_s: Positive = Field(3_600, description="lifetime of a call's keys after its end, s")
    state_ttl_s: Positive = Field(
        604_800, description="lifetime of positions and call states after their last change, s"
    )
    firehose_length: Positive = Field(
        100_000,
        description="approximate maximum number of entries in each stream for all calls: utterances, alerts, changes",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "RedisSettings":
        if self.cluster and self.sentinels:
            raise ValueError("both cluster and sentinels are set: use one")
        url = self.url.get_secret_value()
        if self.password_file and "@" in url:
            raise ValueError("both password_file and a url with a user or a password are set: use one")
        if (self.ssl_ca_file or self.ssl_cert_file or self.ssl_key_file) and not url.startswith("rediss://"):
            raise ValueError("the ssl_ files need a rediss:// url")
        return self
