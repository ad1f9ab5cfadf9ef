"""What a training run is made of: a TOML file, and `--set part.key=value` over it. An unknown key is an error."""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from worker.errors import ConfigurationError

CONFIGS = Path(__file__).with_name("configs")
Trainable = Literal["all", "encoder", "head"]


@dataclasses.dataclass(frozen=True, slots=True)
class CorpusConfig:
    """The synthetic corpus; utterances are per voice, language and emotion."""

    seed: int
    voices_per_split: int
    languages_per_voice: int
    train_utterances: int
    valid_utterances: int
    test_utterances: int

    def utterances(self, split: str) -> int:
        """Utterances per voice, language and emotion of a split."""
        return {"train": self.train_utterances, "valid": self.valid_utterances, "test": self.test_utterances}[split]


@dataclasses.dataclass(frozen=True, slots=True)
class ModelConfig:
    """The model: what it is called, what its card says first, its encoder (a transformers configuration).

    `filter_bank`: the first convolution starts as one (`front_end`).
    """

    id: str
    version: str
    summary: str
    encoder: Mapping[str, Any]
    normalize: bool
    filter_bank: bool


@dataclasses.dataclass(frozen=True, slots=True)
class TrainConfig:
    """The loop. `train` is what learns: `all`, `encoder` (all but the CNN), `head`.

    `speeds`: training plays each clip at one of these, pitch and all.
    """

    seed: int
    epochs: int
    batch_size: int
    crop_s: float
    speeds: Sequence[float]
    train: Trainable
    encoder_lr: float
    head_lr: float
    warmup_steps: int
    max_grad_norm: float
    anneal_factor: float
    anneal_threshold: float

    def __post_init__(self) -> None:
        if self.train not in get_args(Trainable):
            raise ConfigurationError(f"train.train is {self.train!r}; it is one of {', '.join(get_args(Trainable))}")


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationConfig:
    """Abstention: the share of wrong labels among those given that is aimed at, on the validation split."""

    wanted_risk: float


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """One run."""

    corpus: CorpusConfig
    model: ModelConfig
    train: TrainConfig
    calibration: CalibrationConfig


_KINDS: dict[Any, Any] = {
    int: int,
    float: (int, float),
    str: str,
    Mapping[str, Any]: dict,
    Trainable: str,
    bool: bool,
    Sequence[float]: list,
}


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration; each override is `part.key=value` with a TOML value.

    Raises:
        ConfigurationError: a file, part or key is unknown or missing, or a value has the wrong type.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"no configuration at {path}") from error
    for override in overrides:
        _override(values, override)
    parts = get_type_hints(Config)
    _same_names(str(path), values, parts)
    return Config(**{name: _part(f"{path}: [{name}]", kind, values[name]) for name, kind in parts.items()})


def _override(values: dict[str, Any], override: str) -> None:
    name, _, value = override.partition("=")
    part, _, key = name.partition(".")
    if key not in values.get(part, {}):
        raise ConfigurationError(f"--set {override}: no such key")
    try:
        values[part][key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"--set {override}: {error}") from error


def _part(where: str, kind: type, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    _same_names(where, values, hints)
    for name, value in values.items():
        # bool is an int to Python, never to us
        if isinstance(value, bool) is not (hints[name] is bool) or not isinstance(value, _KINDS[hints[name]]):
            raise ConfigurationError(f"{where} {name} = {value!r} has the wrong type")
    return kind(**values)


def _same_names(where: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    if unknown := given.keys() - known.keys():
        raise ConfigurationError(f"{where}: unknown {', '.join(sorted(unknown))}")
    if missing := known.keys() - given.keys():
        raise ConfigurationError(f"{where}: missing {', '.join(sorted(missing))}")
