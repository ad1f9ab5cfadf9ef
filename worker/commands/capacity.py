"""How much of everything a number of calls needs: formulas over the figures of capacity.toml.

A formula is kept as text, and its value is computed from that text, so what is shown is what was computed. Formulas use
the names of the load, of the figures, and of formulas before them.
"""

import math
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np

from callmood.worker.errors import ConfigurationError
from callmood.worker.server_settings import RedisSettings
from callmood.worker.settings import ModelSettings

MODELS: Final = ("base", "large")
_MOST_PROCESSES: Final = 64
"""Of a worker, as `worker.ingest_processes` allows."""


class Load(NamedTuple):
    """What is to be carried, and what is known of the machines."""

    calls: int
    chunk_ms: int = 200
    legs: int = 2
    is_separate: bool = False
    """Each leg comes in records of its own; otherwise one record has all legs interleaved."""
    call_s: int = 300
    gpu: str | None = None
    """Name of the GPU; None: the model runs on the CPU."""
    model: Literal["base", "large"] = "large"
    cores: int = 16
    """Of the machine or pod of one worker."""
    spare: int = 1
    """Workers that may fail without a delay."""
    channels_per_core: float | None = None
    """From `callmood bench realtime`; None: from the figures."""
    seconds_per_second: float | None = None
    """Audio that one GPU, or one core, computes in a second; None: from the figures, if they have it."""
    redis_us: float | None = None
    """CPU time of Redis for a changed call; None: from the figures."""


class _Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    command: str
    machine: str
    date: date


class Ingest(_Measured, frozen=True):
    """CPU time of an ingest process for a record, us, by the record's length in ms."""

    one_channel_us: dict[int, float]
    two_channels_us: dict[int, float]


class Calls(_Measured, frozen=True):
    """Memory of a live call, kB, and of an ingest process without calls, MB."""

    call_kb: float
    process_mb: float


class Kafka(_Measured, frozen=True):
    """Size of a record on the broker beside its audio."""

    overhead_bytes: float


class Redis(_Measured, frozen=True):
    """Memory and CPU time of the server."""

    call_bytes: float
    utterance_bytes: float
    entry_bytes: float
    server_us: float
    changes_per_s: float
    utterances_per_min: float


class Engine(_Measured, frozen=True):
    """Audio that a core computes, s/s, by the size of HuBERT."""

    base: float
    large: float


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What capacity.toml holds."""

    ingest: Ingest
    calls: Calls
    kafka: Kafka
    redis: Redis
    engine: Engine


class Formula(NamedTuple):
    """How a value follows from others."""

    name: str
    unit: str
    text: str


class Step(NamedTuple):
    """A formula with its value and those that went in."""

    formula: Formula
    value: float
    given: Mapping[str, float]


ASSUMED: Final[Mapping[str, float]] = {
    "use": 2 / 3,  # share of what was measured that is planned for
    "speech_share": 0.4,  # of a call's time, speech of the customer, for which the model is asked
    "audio_bytes_per_s": 8_000,  # of a leg: G.711; base64 in JSON is a third more
    "retention_s": 3_600,  # of the audio topic
    "replicas_of_topics": 3,
    "least_partitions": 12,
    "inference_mib": 4_096,  # memory of the inference process: not measured; the chart's default for a worker
    "in_flight_mb": 2 * ModelSettings().max_in_flight_mb,  # the audio, and its copy in the socket
    "scale_age_s": 10,  # age of audio at which the autoscaler adds workers
    "ended_ttl_s": RedisSettings().ended_ttl_s,
    "firehose_length": RedisSettings().firehose_length,
}
"""What is set, not measured."""

_INGEST: Final = (
    Formula("records_per_s", "records/s", "calls * streams * 1000 / chunk_ms"),
    Formula("ingest_cores", "cores", "records_per_s * record_us / 1000000"),
    Formula("ingest_processes", "processes", "ceil(ingest_cores / use)"),
    Formula("audio_per_s", "s/s", "calls * speech_share"),
)
_GPU: Final = (Formula("gpus", "GPUs", "ceil(audio_per_s / (seconds_per_second * use))"),)
_ON_GPU: Final = (
    Formula("workers", "workers", "max(gpus, ceil(ingest_processes / (cores - 1)))"),
    Formula("threads", "threads", "1"),
)
_ON_CPU: Final = (
    Formula("model_cores", "cores", "ceil(audio_per_s / (seconds_per_second * use))"),
    Formula("workers", "workers", "ceil((ingest_processes + model_cores) / (cores - 1))"),
    Formula("threads", "threads", "ceil(model_cores / workers)"),
)
_REST: Final = (
    Formula("replicas", "workers", "workers + spare"),
    Formula("processes_per_worker", "processes", "ceil(ingest_processes / workers)"),
    Formula("cores_per_worker", "cores", "processes_per_worker + threads"),
    Formula("all_processes", "processes", "replicas * processes_per_worker"),
    Formula(
        "partitions", "partitions", "all_processes * ceil(max(least_partitions, 2 * all_processes) / all_processes)"
    ),
    Formula("calls_per_process", "calls", "ceil(calls / (workers * processes_per_worker))"),
    Formula("process_mib", "MiB", "(process_mb + in_flight_mb + calls_per_process * call_kb / 1000) / 1.049"),
    Formula("memory_mib", "MiB", "ceil(inference_mib + processes_per_worker * process_mib)"),
    Formula("bytes_per_call", "bytes", "call_bytes + call_s / 60 * utterances_per_min * utterance_bytes"),
    Formula("redis_live_mb", "MB", "calls * bytes_per_call / 1000000"),
    Formula("redis_ended_mb", "MB", "calls / call_s * ended_ttl_s * bytes_per_call / 1000000"),
    Formula("redis_streams_mb", "MB", "firehose_length * entry_bytes / 1000000"),
    Formula("redis_maxmemory_mb", "MB", "ceil(2 * (redis_live_mb + redis_ended_mb + redis_streams_mb))"),
    Formula("redis_cores", "cores", "calls * changes_per_s * server_us / 1000000"),
    Formula("kafka_mb_per_s", "MB/s", "(calls * legs * audio_bytes_per_s + records_per_s * overhead_bytes) / 1000000"),
    Formula("kafka_disk_gb", "GB", "kafka_mb_per_s * retention_s * replicas_of_topics / 1000"),
    Formula("unread_records", "records", "ceil(records_per_s * scale_age_s)"),
    Formula("calls_per_partition", "streams", "ceil(calls * streams / partitions)"),
)


@cache
def figures() -> Figures:
    """The measured figures."""
    text = files(__package__).joinpath("capacity.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), Figures, strict=False)


def record_us(measured: Mapping[int, float], chunk_ms: int) -> float:
    """CPU time of a record of this length: between the measured lengths by interpolation, above them in proportion.

    A shorter record than the shortest that was measured costs as much as that one.
    """
    lengths = sorted(measured)
    longest = lengths[-1]
    if chunk_ms > longest:
        return measured[longest] * chunk_ms / longest
    return float(np.interp(chunk_ms, lengths, [measured[length] for length in lengths]))


class Plan:
    """What the load needs.

    Raises:
        ConfigurationError: more than one Redis, or a worker of this size, can carry; the message says how much can be.
    """

    def __init__(self, load: Load, measured: Figures | None = None) -> None:
        self.load = load
        self.is_gpu_known = load.gpu is None or load.seconds_per_second is not None
        self._values = {**ASSUMED, **_given(load, measured or figures())}
        self.steps = list(self._compute())
        self._refuse()

    def __getitem__(self, name: str) -> float:
        """The value of a formula, of a figure or of the load."""
        return self._values[name]

    def _compute(self) -> Iterator[Step]:
        for formula in formulas(is_on_gpu=self.load.gpu is not None, is_gpu_known=self.is_gpu_known):
            code = compile(formula.text, formula.name, "eval")
            value = float(eval(code, {"ceil": _ceil, "max": max}, self._values))  # noqa: S307 - a constant of ours
            given = {name: self._values[name] for name in code.co_names if name in self._values}
            self._values[formula.name] = value
            yield Step(formula, value, given)

    def _refuse(self) -> None:
        if self["redis_cores"] > self["use"]:
            most = math.floor(self.load.calls * self["use"] / self["redis_cores"])
            raise ConfigurationError(
                f"{self.load.calls:,} calls are too many for one Redis, which has one core for commits and carries "
                f"about {most:,} calls by the figures. Run several deployments, each with its own Redis and audio "
                "topic, and plan each; or give --redis-us from `callmood bench servers` on your machine"
            )
        if self["processes_per_worker"] > _MOST_PROCESSES:
            raise ConfigurationError(
                f"{self['processes_per_worker']:,.0f} ingest processes for each worker: a worker has at most "
                f"{_MOST_PROCESSES}; give fewer --cores, so that the plan has more workers"
            )


def formulas(*, is_on_gpu: bool, is_gpu_known: bool = True) -> tuple[Formula, ...]:
    """All formulas in their order."""
    model = (*(_GPU if is_gpu_known else ()), *_ON_GPU) if is_on_gpu else _ON_CPU
    return *_INGEST, *model, *_REST


def _given(load: Load, measured: Figures) -> dict[str, float]:
    """The load and the figures by the names that formulas use."""
    streams = load.legs if load.is_separate else 1
    channels = load.legs // streams
    by_length = measured.ingest.one_channel_us if channels == 1 else measured.ingest.two_channels_us
    record = record_us(by_length, load.chunk_ms)
    if load.channels_per_core is not None:
        record = channels * load.chunk_ms * 1000 / load.channels_per_core
    numbers: dict[str, Any] = {
        **{name: value for name, value in load._asdict().items() if isinstance(value, int)},
        **{name: value for part in (measured.calls, measured.kafka, measured.redis) for name, value in _numbers(part)},
        "streams": streams,
        "record_us": record,
        "seconds_per_second": load.seconds_per_second or getattr(measured.engine, load.model),
    }
    if load.redis_us is not None:
        numbers["server_us"] = load.redis_us
    if load.gpu is not None and load.seconds_per_second is None:
        numbers |= {"gpus": 1}  # at least: how many, nobody has measured
    return numbers


def _ceil(value: float) -> int:
    """Rounded up, but not because of the last bits of a fraction."""
    return math.ceil(round(value, 9))


def _numbers(part: _Measured) -> Iterator[tuple[str, float]]:
    for name, value in msgspec.structs.asdict(part).items():
        if isinstance(value, int | float):
            yield name, value
