"""Settings, read once from the environment: `CALLMOOD_`, group, `__`, name. Descriptions give the units."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from callmood.schemas.common import Role
from callmood.worker.errors import ConfigurationError
from callmood.worker.server_settings import (
    MOST,
    Group,
    KafkaSettings,
    Positive,
    PositiveFloat,
    RedisSettings,
    split,
)

PREFIX = "CALLMOOD_"

_MAY_BE_AT_WORK = frozenset((Role.AGENT, Role.MIXED, Role.UNKNOWN))


class InputSettings(Group):
    """Records on the audio topic."""

    format: Literal["headers", "json", "twilio"] = Field("headers", description="format of the records")
    reorder_records: Annotated[int, Field(ge=0, le=256)] = Field(
        16, description="maximum number of records of a stream that wait for a missing one"
    )
    reorder_ms: Positive = Field(2_000, description="maximum audio that waits for a missing record, ms")
    max_record_ms: Positive = Field(5_000, description="maximum length of the audio in one record, ms")
    conceal_ms: Annotated[int, Field(ge=0, le=MOST)] = Field(
        700,
        description="longest loss of audio that the worker fills with the sound before it, ms; a longer one ends the "
        "utterance",
    )
    max_consecutive_bad: Annotated[int, Field(ge=0, le=MOST)] = Field(
        0, description="most consecutive bad records on a partition; one more stops the worker; 0: no limit"
    )


class SegmentSettings(Group):
    """How speech is split into utterances. All times are media time, that is, positions in the audio."""

    vad_mode: Literal[0, 1, 2, 3] = Field(
        2, description="aggressiveness of the WebRTC voice detector (VAD): 3 accepts the least audio as speech"
    )
    open_window_ms: Positive = Field(200, description="window in which the start of speech is detected, ms")
    open_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6, description="voiced share of the window that starts an utterance"
    )
    close_window_ms: Positive = Field(500, description="window in which the end of speech is detected, ms")
    close_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="unvoiced share of the window that ends an utterance"
    )
    padding_ms: Annotated[int, Field(ge=0, le=MOST)] = Field(
        140, description="audio kept before and after the voiced part, ms"
    )
    min_utterance_ms: Positive = Field(
        250, description="shortest voiced part of an utterance, ms; shorter utterances are dropped"
    )
    max_utterance_s: Annotated[float, Field(ge=1, le=29)] = Field(
        15.0, description="longest utterance, s; longer speech is split"
    )
    split_search_s: PositiveFloat = Field(
        3.0, description="time before max_utterance_s in which the worker looks for the quietest place to split, s"
    )


class CallSettings(Group):
    """When a call ends. The worker measures these times by record timestamps."""

    idle_s: Positive = Field(600, description="time without a record after which a call ends, s")
    leave_s: Positive = Field(60, description="time without a record after which a call ends if a stream has ended, s")
    hold_s: Positive = Field(14_400, description="time without a record after which a call on hold ends, s")
    resume_s: Positive = Field(3_600, description="time after an idle end in which a new record continues the call, s")
    ended_memory_s: Positive = Field(600, description="time after a call's end in which late records are dropped, s")


class AlertSettings(Group):
    """Alert rules."""

    rules_file: Path | None = Field(None, description="TOML file with alert rules; default: the built-in rules")


class PolicySettings(Group):
    """Roles whose emotion the worker infers: customers, by default (EU AI Act, Art. 5(1)(f))."""

    emotion_roles: Annotated[tuple[Role, ...], NoDecode, BeforeValidator(split)] = Field(
        (Role.CUSTOMER,), description="roles whose speech the model analyses"
    )
    legal_basis: Annotated[str, Field(max_length=1024)] | None = Field(
        None,
        description="written reason for inferring emotions of other roles; required if"
        " emotion_roles has `agent`, `mixed` or `unknown`",
    )
    require_notice: bool = Field(False, description="infer emotion only for calls with `notice=given`")

    @model_validator(mode="after")
    def _agents_need_a_basis(self) -> "PolicySettings":
        at_work = [role.value for role in self.emotion_roles if role in _MAY_BE_AT_WORK]
        if at_work and not (self.legal_basis or "").strip():
            raise ValueError(
                f"emotion_roles has {', '.join(at_work)}, which may be a person at work: "
                "set policy.legal_basis to the written reason"
            )
        return self


class ModelSettings(Group):
    """The model and how it runs."""

    path: str = Field(
        "demo-tiny",
        description="bundle or Hugging Face folder, or hf://OWNER/NAME@REVISION; `demo-tiny` is the bundled demo model",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda if there is a GPU, otherwise cpu")
    dtype: Literal["auto", "fp32", "bf16", "int8", "int8+bf16"] = Field(
        "auto",
        description="number format of the computation. auto: bf16 on a GPU, and for a large model on a CPU that is "
        "faster in bf16; otherwise fp32. int8 (CPU only): transformer layers in int8, the rest in fp32. int8+bf16: "
        "as int8, but the rest in bf16",
    )
    recheck_below: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="in bf16 and int8: recompute an utterance in fp32 if its two highest probabilities differ by less "
        "than this; default: 0.03 on a CPU, none on a GPU",
    )
    packed: Literal["auto", "on", "off"] = Field(
        "auto",
        description="on: compute without padding; off: padded batches; auto: on for a CPU if the model "
        "supports it, otherwise off",
    )
    gpu_memory_share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="largest share of the GPU's memory for this worker; below 1 if several workers share the GPU",
    )
    speech_check: bool = Field(True, description="count only utterances that are speech; false: count all")
    threads: Annotated[int, Field(ge=0, le=MOST)] = Field(
        0,
        description="CPU threads of the model, shared by up to 8 batches side by side; 0: one per core or CPU limit, "
        "and one below 10 million weights",
    )
    batch_seconds: PositiveFloat = Field(
        60.0,
        description="maximum audio per batch, including padding, s; on a CPU, of all batches side by side; a longer "
        "utterance is a batch of its own",
    )
    batch_ms: PositiveFloat = Field(
        500.0,
        description="longest expected compute time of one batch, ms; estimated from earlier batches",
    )
    max_wait_ms: Annotated[float, Field(ge=0)] = Field(
        20.0, description="longest time an utterance waits for others in its batch, ms"
    )
    max_in_flight: Positive = Field(512, description="number of utterances at the model at which reading pauses")
    max_in_flight_mb: PositiveFloat = Field(64.0, description="audio at the model at which reading pauses, MB")
    skip_after_s: Annotated[float, Field(ge=0, le=MOST)] = Field(
        0.0,
        description="if the model is behind: age of an utterance from which it gets no emotion if it is short, s; "
        "0: no utterance is skipped",
    )
    skip_below_s: PositiveFloat = Field(
        1.5,
        description="an utterance of the age skip_after_s is skipped if it is shorter than this, s; at twice the age, "
        "twice as long; at most three times",
    )


class WorkerSettings(Group):
    """Processes, time limits and ports."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="name of this worker, unique among the workers; with static membership, the same "
        "after a restart; default: the host name",
    )
    ingest_processes: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="number of ingest processes, each with one Kafka consumer; use at most one per CPU core"
    )
    pin: bool = Field(False, description="a core for each ingest process, the others for the model (docs/capacity.md)")
    output: Literal["redis", "kafka", "both"] = Field(
        "redis", description="where the worker stores results; both: in Kafka, with a copy in Redis"
    )
    commit_interval_ms: Positive = Field(250, description="time between two commits, ms; less if there is time for it")
    state_interval_ms: Positive = Field(
        4_000,
        description="longest time between two stored states of a call without new results, by record timestamps, ms",
    )
    drain_timeout_s: PositiveFloat = Field(20.0, description="time to finish work after SIGTERM, s")
    health_host: str = Field("0.0.0.0", description="address of /livez, /readyz, /metrics")  # noqa: S104 - for probes
    health_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8080, description="port of /livez, /readyz, /metrics; 0: a free port"
    )
    stall_s: PositiveFloat = Field(60.0, description="time without progress after which /livez fails, s")


class LogSettings(Group):
    """Level and format of the logs."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, JSON elsewhere"
    )


class TraceSettings(Group):
    """Traces of utterances, for an OpenTelemetry collector."""

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="address of the OTLP/HTTP collector, for example http://collector:4318; unset: no traces",
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
    problems = [f"{name}: unknown setting" for name in sorted(unknown)]
    try:
        settings = Settings()
    except (ValidationError, SettingsError) as error:
        raise ConfigurationError("; ".join([*problems, _in_words(error)])) from error
    if problems:
        raise ConfigurationError("; ".join(problems))
    return settings


def _in_words(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    return "; ".join(
        f"{PREFIX}{'__'.join(str(part).upper() for part in problem['loc'])}: "
        f"{'unknown setting' if problem['type'] == 'extra_forbidden' else problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors()
    )
