"""The configuration of a run: a TOML file, and `--set part.key=value` over it. An unknown key is an error."""

import dataclasses
import tomllib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from callmood.training.options import (
    AugmentConfig,
    CalibrationConfig,
    CompatConfig,
    CorpusConfig,
    LoraConfig,
    LossConfig,
    ModelConfig,
    PretrainConfig,
    RowConfig,
    TrainConfig,
)
from callmood.worker.errors import ConfigurationError

CONFIGS = Path(__file__).with_name("configs")


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """One run. A value that the file omits has the default of `options`; `corpus` is for synthetic speech alone."""

    model: ModelConfig
    train: TrainConfig
    corpus: CorpusConfig | None = None
    row: RowConfig = dataclasses.field(default_factory=RowConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    paper_compat: CompatConfig = dataclasses.field(default_factory=CompatConfig)
    calibration: CalibrationConfig = dataclasses.field(default_factory=CalibrationConfig)

    def __post_init__(self) -> None:
        if self.lora.rank and self.train.train != "encoder":
            raise ConfigurationError('lora.rank needs train.train = "encoder": adapters are in the transformer')
        if self.paper_compat.batch_statistics and self.model.head != "mean_linear":
            raise ConfigurationError('paper_compat.batch_statistics needs model.head = "mean_linear"')
        if self.loss.dimensions and (self.model.head == "attention_pooling_cnn" or self.paper_compat.batch_statistics):
            raise ConfigurationError("loss.dimensions needs an encoder, and no paper_compat.batch_statistics")
        if self.loss.dimensions and self.train.train == "head":
            raise ConfigurationError('loss.dimensions has no effect on a frozen encoder: train.train = "head" needs 0')
        if self.train.balance != "none" and self.loss.class_weights != "none":
            raise ConfigurationError("train.balance and loss.class_weights both balance the classes: use one of them")


def find(name: str) -> Path:
    """The file of a configuration, given its path or the name of a shipped one, such as `PF-hbt-large`.

    Raises:
        ConfigurationError: neither exists; the message lists the shipped configurations.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = {path.stem: path for path in sorted(CONFIGS.rglob("*.toml"))}
    if name not in shipped:
        raise ConfigurationError(
            f"no file {name}, and no shipped configuration of this name. Shipped: {', '.join(shipped)}"
        )
    return shipped[name]


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration; each override is `part.key=value` with a TOML value.

    Raises:
        ConfigurationError: a file, part or key is unknown or missing, or a value has the wrong type or is out of range.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"no configuration at {path}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    for override in overrides:
        _override(values, override)
    return of_values(str(path), values)


def of_values(where: str, values: Mapping[str, Any]) -> Config:
    """A configuration of plain values, as a file holds them; parts that are None have their defaults.

    Raises:
        ConfigurationError: see `load`.
    """
    given = {name: value for name, value in values.items() if value is not None}
    parts = _parts()
    _same_names(where, given, Config)
    return Config(**{name: _part(f"{where}: [{name}]", parts[name], value) for name, value in given.items()})


def _parts() -> dict[str, Any]:
    return {name: bare(hint) for name, hint in get_type_hints(Config).items()}


def _override(values: dict[str, Any], override: str) -> None:
    parts = _parts()
    name, _, value = override.partition("=")
    part, _, path = name.partition(".")
    key, _, inner = path.partition(".")  # model.encoder.layerdrop: one value of a table
    if part not in parts or key not in get_type_hints(parts[part]):
        raise ConfigurationError(f"--set {override}: no such key")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"--set {override}: {error}") from error
    table = values.setdefault(part, {})
    if inner:
        table[key] = {**table.get(key, {}), inner: parsed}
    else:
        table[key] = parsed


def _part(where: str, kind: type, values: Any) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{where} is not a table")
    hints = get_type_hints(kind)
    _same_names(where, values, kind)
    values = {name: value for name, value in values.items() if value is not None}
    for name, value in values.items():
        if not _fits(value, bare(hints[name])):
            raise ConfigurationError(f"{where} {name} = {value!r} has the wrong type")
    try:
        return kind(**values)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value has a type. A bool is not accepted as an int, although Python has it so."""
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is float:
        return isinstance(value, int | float)
    if hint == Sequence[float]:
        return isinstance(value, list) and all(_fits(one, float) for one in value)
    if hint == Mapping[str, Any]:
        return isinstance(value, dict)
    if hint == Mapping[str, float]:
        return isinstance(value, dict) and all(_fits(one, float) for one in value.values())
    return isinstance(value, hint)


def bare(hint: Any) -> Any:
    """The type T of an optional T."""
    return get_args(hint)[0] if isinstance(hint, types.UnionType) else hint


def _same_names(where: str, given: Mapping[str, Any], kind: Any) -> None:
    fields = dataclasses.fields(kind)
    if unknown := given.keys() - {field.name for field in fields}:
        raise ConfigurationError(f"{where}: unknown {', '.join(sorted(unknown))}")
    needed = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if missing := needed - given.keys():
        raise ConfigurationError(f"{where}: missing {', '.join(sorted(missing))}")
