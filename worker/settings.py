"""Settings, read once from the environment (`CALLMOOD_`, nested by `__`). Every field says its unit."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from callmood.schemas.common import Role
from callmood.worker.errors import ConfigurationError

PREFIX = "CALLMOOD_"

_MAY_BE_AT_WORK = frozenset((Role.AGENT, Role.MIXED, Role.UNKNOWN))

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(_Group):
    """Connection to Kafka and the names of the topics."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="host:port, comma-separated")
    group_id: str = Field("callmood", description="consumer group of the workers")
    audio_topic: str = Field("callmood.audio", description="input topic, schema callmood.audio/1")
    dead_letter_topic: str = Field("callmood.dead-letter", description="where unreadable records go")
    utterance_topic: str = Field("callmood.utterances", description="output=kafka: utterance/1, one per utterance")
    call_topic: str = Field("callmood.calls", description="output=kafka: call/1, the newest per call; compacted")
    alert_topic: str = Field("callmood.alerts", description="output=kafka: alert/1")
    state_topic: str = Field("callmood.states", description="output=kafka: the workers' own call states; compacted")
    start: Literal["earliest", "latest"] = Field("earliest", description="where a partition without a position starts")
    assignor: Literal["cooperative-sticky", "sticky", "range"] = Field(
        "cooperative-sticky",
        description="how partitions are shared; the others are eager: all stop while it is settled",
    )
    membership: Literal["dynamic", "static"] = Field(
        "dynamic", description="static: a restart keeps its partitions; needs stable host names, not for autoscaling"
    )
    session_timeout_ms: Positive = Field(15_000, description="silence after which a worker's calls go to others")
    max_poll_interval_ms: Positive = Field(60_000, description="longest pause between two polls")
    request_timeout_ms: Positive = Field(15_000, description="limit of one request")
    max_poll_records: Positive = Field(2_000, description="records per poll")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how the connection is secured"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="how we log in, with a SASL protocol"
    )
    sasl_username: str | None = Field(None, description="who we are, with SASL")
    sasl_password: SecretStr | None = Field(None, description="our secret, with SASL")
    sasl_password_file: Path | None = Field(None, description="file with our secret instead, read at every login")
    sasl_token_file: Path | None = Field(None, description="OAUTHBEARER: file with our token, read at every login")
    ssl_ca_file: Path | None = Field(None, description="PEM bundle of trusted authorities")
    ssl_cert_file: Path | None = Field(None, description="PEM client certificate")
    ssl_key_file: Path | None = Field(None, description="PEM client key")

    @model_validator(mode="after")
    def _one_login(self) -> "KafkaSettings":
        if self.sasl_password and self.sasl_password_file:
            raise ValueError("sasl_password and sasl_password_file exclude each other")
        if self.security_protocol.startswith("SASL") and self.sasl_mechanism is None:
            raise ValueError("with security_protocol SASL_…, sasl_mechanism says how to log in")
        if self.sasl_mechanism == "OAUTHBEARER" and self.sasl_token_file is None:
            raise ValueError("sasl_mechanism OAUTHBEARER needs sasl_token_file")
        return self


class RedisSettings(_Group):
    """Connection to Redis (or Valkey) and how long results live there."""

    url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="redis:// or rediss:// address")
    username: str | None = Field(None, description="who we are, with password_file; else the url says it")
    password_file: Path | None = Field(None, description="file with our secret, read at every connection")
    ssl_ca_file: Path | None = Field(None, description="PEM bundle of trusted authorities, with rediss://")
    ssl_cert_file: Path | None = Field(None, description="PEM client certificate, with rediss://")
    ssl_key_file: Path | None = Field(None, description="PEM client key, with rediss://")
    sentinels: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="host:port of each Sentinel, comma-separated; they replace the host and port of the url"
    )
    sentinel_master: str = Field("mymaster", description="what the Sentinels call our servers")
    sentinel_username: str | None = Field(None, description="who we are to the Sentinels, if they ask")
    sentinel_password: SecretStr | None = Field(None, description="our secret for the Sentinels, if they ask")
    cluster: bool = Field(False, description="the url is a node of a Redis Cluster")
    prefix: str = Field("callmood", pattern=r"^[A-Za-z0-9_.-]+$", description="first word of every key, in braces")
    timeout_s: PositiveFloat = Field(2.0, description="limit of one command")
    call_ttl_s: Positive = Field(14_400, description="life of a live call's keys after their last change")
    ended_ttl_s: Positive = Field(3_600, description="life of a call's keys after its end")
    state_ttl_s: Positive = Field(604_800, description="life of positions and call states after their last change")
    firehose_length: Positive = Field(100_000, description="entries kept in the utterance and alert streams, about")

    @model_validator(mode="after")
    def _one_kind(self) -> "RedisSettings":
        if self.cluster and self.sentinels:
            raise ValueError("cluster and sentinels exclude each other: a cluster needs no Sentinel")
        url = self.url.get_secret_value()
        if self.password_file and "@" in url:
            raise ValueError("a url with a user or a password and password_file exclude each other")
        if (self.ssl_ca_file or self.ssl_cert_file or self.ssl_key_file) and not url.startswith("rediss://"):
            raise ValueError("the ssl_ files are of no use without a rediss:// url")
        return self


class InputSettings(_Group):
    """What may stand on the audio topic."""

    format: Literal["headers", "json", "twilio"] = Field("headers", description="shape of the records")
    reorder_records: Annotated[int, Field(ge=0, le=256)] = Field(16, description="records held for a missing one")
    reorder_ms: Positive = Field(2_000, description="audio held for a missing record")
    max_record_ms: Positive = Field(5_000, description="longest audio in one record")
    conceal_ms: Annotated[int, Field(ge=0)] = Field(300, description="longest gap that is filled with silence")
    max_consecutive_bad: Positive = Field(1_000, description="bad records in a row that stop the worker")


class SegmentSettings(_Group):
    """How speech is cut into utterances; all times are media time."""

    vad_mode: Literal[0, 1, 2, 3] = Field(2, description="WebRTC VAD aggressiveness")
    open_window_ms: Positive = Field(200, description="window that decides that speech began")
    open_ratio: Annotated[float, Field(gt=0, le=1)] = Field(0.6, description="voiced share of the window that opens")
    close_window_ms: Positive = Field(500, description="window that decides that speech ended")
    close_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="unvoiced share of the window that closes"
    )
    padding_ms: Annotated[int, Field(ge=0)] = Field(140, description="audio kept around the voiced part")
    min_utterance_ms: Positive = Field(250, description="shorter voiced spans are dropped")
    max_utterance_s: Annotated[float, Field(ge=1, le=29)] = Field(
        15.0, description="longest utterance; longer speech splits"
    )
    split_search_s: PositiveFloat = Field(3.0, description="the split is at the quietest point of these last seconds")


class CallSettings(_Group):
    """Life of a call."""

    idle_s: Positive = Field(600, description="record time without a record after which a call has ended")
    ended_memory_s: Positive = Field(600, description="record time for which an ended call's late records are known")


class AlertSettings(_Group):
    """When to call a person."""

    rules_file: Path | None = Field(None, description="TOML file with the rules; without one the default rules apply")


class PolicySettings(_Group):
    """Whose emotion may be inferred (EU AI Act, Art. 5(1)(f)): customers, by default."""

    emotion_roles: Annotated[tuple[Role, ...], NoDecode, BeforeValidator(_split)] = Field(
        (Role.CUSTOMER,), description="roles whose speech the model may hear, comma-separated"
    )
    legal_basis: str | None = Field(
        None, description="written reason; required if emotion_roles has `agent`, `mixed` or `unknown`"
    )
    require_notice: bool = Field(False, description="no emotion unless the call says that notice was given")

    @model_validator(mode="after")
    def _agents_need_a_basis(self) -> "PolicySettings":
        at_work = [role.value for role in self.emotion_roles if role in _MAY_BE_AT_WORK]
        if at_work and not (self.legal_basis or "").strip():
            raise ValueError(
                f"emotion_roles has {', '.join(at_work)}, which may be a person at work: "
                "set policy.legal_basis to the written reason"
            )
        return self


class ModelSettings(_Group):
    """The model and how it is run."""

    path: str = Field(
        "demo-tiny",
        description="bundle or Hugging Face folder, or hf://OWNER/NAME@REVISION; `demo-tiny` is the bundled demo model",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one")
    dtype: Literal["auto", "fp32", "bf16", "int8", "int8+bf16"] = Field(
        "auto",
        description="auto: bf16 on a GPU, and for large models on a CPU that is found faster with it; else fp32. "
        "int8: on a CPU, the transformer layers only; int8+bf16: the rest in bf16",
    )
    recheck_below: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="in bf16 and int8: compute utterances again in fp32 whose best two emotions are closer than this; "
        "default: 0.03 on a CPU, none on a GPU",
    )
    packed: Literal["auto", "on", "off"] = Field(
        "auto", description="compute without padding; auto: on a CPU. off: padded batches, the reference"
    )
    gpu_memory_share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the GPU's memory that this process may take; for GPUs that others use too"
    )
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads; 0 leaves the choice to torch")
    batch_seconds: PositiveFloat = Field(60.0, description="padded seconds of audio per batch, at most")
    batch_ms: PositiveFloat = Field(
        500.0, description="longest run of a batch, as learned from those before it; keeps the delay low on a CPU"
    )
    max_wait_ms: Annotated[float, Field(ge=0)] = Field(20.0, description="longest wait for company in a batch")
    max_in_flight: Positive = Field(512, description="utterances in flight at which partitions pause")


class WorkerSettings(_Group):
    """Processes, time budgets and ports."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="who this worker is to Kafka, the same after a restart; default: the host",
    )

    ingest_processes: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="ingest processes, one consumer each; more than the cores is of no use"
    )
    output: Literal["redis", "kafka", "both"] = Field(
        "redis", description="where results are committed; both: in Kafka, and projected into Redis from there"
    )
    commit_interval_ms: Positive = Field(250, description="time between two commits of a partition")
    state_interval_ms: Positive = Field(
        2_000, description="audio a call may hold back before its state is saved anyway"
    )
    drain_timeout_s: PositiveFloat = Field(20.0, description="budget of SIGTERM")
    health_host: str = Field("0.0.0.0", description="address of /livez, /readyz, /metrics")  # noqa: S104 - for probes
    health_port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="0 picks a free port")
    stall_s: PositiveFloat = Field(60.0, description="no progress for this long makes /livez fail")


class LogSettings(_Group):
    """Logs."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is shown")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else JSON")


class TraceSettings(_Group):
    """Traces."""

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="OTLP/HTTP collector for OpenTelemetry traces, such as http://collector:4318; none: no traces",
    )


class Settings(BaseSettings):
    """All settings. Build with `load()`, which also refuses unknown `CALLMOOD_` variables."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    input: InputSettings = InputSettings()
    segment: SegmentSettings = SegmentSettings()
    call: CallSettings = CallSettings()
    alert: AlertSettings = AlertSettings()
    policy: PolicySettings = PolicySettings()
    model: ModelSettings = ModelSettings()
    worker: WorkerSettings = WorkerSettings()
    log: LogSettings = LogSettings()
    trace: TraceSettings = TraceSettings()


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: a value is wrong or a `CALLMOOD_` variable is unknown; the message names each.
    """
    groups = {name.upper() for name in Settings.model_fields}
    unknown = [
        name
        for name in os.environ
        if name.upper().startswith(PREFIX) and name[len(PREFIX) :].upper().partition("__")[0] not in groups
    ]
    if unknown:
        raise ConfigurationError(f"unknown settings: {', '.join(sorted(unknown))}")
    try:
        return Settings()
    except (ValidationError, SettingsError) as error:
        raise ConfigurationError(_in_words(error)) from error


def _in_words(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    return "; ".join(
        f"{PREFIX}{'__'.join(str(part).upper() for part in problem['loc'])}: "
        f"{'there is no such setting' if problem['type'] == 'extra_forbidden' else problem['msg']}"
        for problem in error.errors()
    )
