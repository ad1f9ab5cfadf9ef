"""Checkpoints on disk: our own bundle, and a Hugging Face sequence-classification folder. Files in, tensors out.

A bundle is a folder with `config.json` (encoder, head, labels, audio settings, calibration, id, version, git revision,
digest), `model.safetensors`, `README.md` (the model card) and, if there is one, `report.json`. Only safetensors is
read: a pickle can run code.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from callmood.schemas.common import EMOTIONS, Emotion
from callmood.worker.errors import ModelError
from callmood.worker.model import hub
from callmood.worker.records import ModelInfo

FORMAT: Final = "callmood.model/1"
RATE_HZ: Final = 16_000
EPS: Final = 1e-7
"""What transformers adds to the variance of a waveform."""
EPS_KEY: Final = "callmood_normalize_eps"
"""In a Hugging Face folder that we wrote, whose model was trained with another one."""
CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
DEMO_FOLDER: Final = Path(__file__).parent / "bundled" / "demo-tiny"

_NAMES: Final = {
    "ang": Emotion.ANGER,
    "angry": Emotion.ANGER,
    "anger": Emotion.ANGER,
    "hap": Emotion.HAPPINESS,
    "happy": Emotion.HAPPINESS,
    "happiness": Emotion.HAPPINESS,
    "neu": Emotion.NEUTRAL,
    "neutral": Emotion.NEUTRAL,
    "sad": Emotion.SADNESS,
    "sadness": Emotion.SADNESS,
}
ARCHITECTURES: Final = {
    "HubertForSequenceClassification": "hubert",
    "Wav2Vec2ForSequenceClassification": "wav2vec2",
    "WavLMForSequenceClassification": "wavlm",
}
PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth")


class HeadKind(StrEnum):
    """Kind of the head on the encoder.

    MEAN_LINEAR: mean of the last layer over the valid frames, then one linear layer without bias (arXiv 2111.02735).
    HF_SUPERB: weighted sum of all layers, projector, mean, linear layer, as in transformers and s3prl.
    ATTENTIVE_STATISTICS: mean and deviation of the last layer, weighted by attention, then one linear layer.
    """

    MEAN_LINEAR = "mean_linear"
    HF_SUPERB = "hf_superb"
    ATTENTIVE_STATISTICS = "attentive_statistics"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The shape of a model. `encoder` is a transformers configuration as plain values, with its `model_type`.

    `normalize`: each utterance is brought to zero mean and unit variance before the encoder; `normalize_eps` is added
    to the variance (1e-7 in transformers, 1e-5 in SpeechBrain: it matters for quiet audio).
    `output_norm`: the encoder's output too, over the whole utterance, before it is pooled (MEAN_LINEAR alone).
    """

    encoder: Mapping[str, Any]
    head: HeadKind = HeadKind.MEAN_LINEAR
    normalize: bool = True
    normalize_eps: float = EPS
    output_norm: bool = False


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted on validation data: softmax temperature, and the top probability below which the model abstains."""

    temperature: float = 1.0
    abstain_below: float = 0.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a folder holds. Tensors are named `encoder.*` and `head.*`; classes are in the order of `EMOTIONS`."""

    spec: ModelSpec
    tensors: Mapping[str, torch.Tensor]
    calibration: Calibration
    info: ModelInfo


def find(path: str | Path) -> Path:
    """The folder of a checkpoint: one on disk, one on the hub (`hf://`, downloaded), or the bundled `demo-tiny`.

    Raises:
        ModelError: there is no such folder.
    """
    folder = DEMO_FOLDER if str(path) == "demo-tiny" else hub.folder(str(path)) or Path(path)
    if not folder.is_dir():
        raise ModelError(
            f"{path}: no such folder; give a bundle, a Hugging Face folder, hf://OWNER/NAME@REVISION, or demo-tiny"
        )
    return folder


def read(path: str | Path) -> Checkpoint:
    """Read a bundle, a Hugging Face folder, either of them on the hub (`hf://`), or the bundled `demo-tiny`.

    Raises:
        ModelError: there is no such folder, it cannot be used, or its content does not match its stated digest.
    """
    folder = find(path)
    weights = _weights(folder)
    config = read_json(folder / CONFIG)
    digest = _digest(config, weights)
    try:
        if "format" in config:
            return _read_bundle(folder, config, digest)
        return _read_hugging_face(folder, config, digest)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG}: {type(error).__name__}: {error}") from error


def write(folder: Path, checkpoint: Checkpoint, *, revision: str) -> ModelInfo:
    """Write `config.json` and `model.safetensors` of a bundle; return its info with the digest of what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors lets its owner alone read it, and a worker may be somebody else
    spec = checkpoint.spec
    config: dict[str, Any] = {
        "format": FORMAT,
        "id": checkpoint.info.id,
        "version": checkpoint.info.version,
        "revision": revision,
        "labels": list(EMOTIONS),
        "head": spec.head,
        "output_norm": spec.output_norm,
        "audio": {"rate_hz": RATE_HZ, "normalize": spec.normalize, "normalize_eps": spec.normalize_eps},
        "calibration": asdict(checkpoint.calibration),
        "encoder": dict(spec.encoder),
    }
    config["digest"] = _digest(config, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return ModelInfo(id=config["id"], version=config["version"], digest=config["digest"])


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: the file is missing or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: not a JSON object")
    return value


def _weights(folder: Path) -> Path:
    path = folder / WEIGHTS
    if path.is_file():
        return path
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise ModelError(
            f"{folder}: {', '.join(pickles)} can run code when loaded and is refused; "
            f"convert it once with `callmood-train convert {folder} TARGET`"
        )
    raise ModelError(f"{folder}: file {WEIGHTS} is missing")


def _digest(config: Mapping[str, Any], weights: Path) -> str:
    """Hash of the configuration (without the digest itself, keys sorted) followed by the weights."""
    plain = {key: value for key, value in config.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())
    with weights.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _read_bundle(folder: Path, config: Mapping[str, Any], digest: str) -> Checkpoint:
    if config["format"] != FORMAT:
        raise ModelError(f"{folder}: format {config['format']!r}; this version reads {FORMAT}")
    if config.get("digest", digest) != digest:
        raise ModelError(f"{folder}: content is {digest}, but {CONFIG} states {config['digest']}")
    _require_rate(folder, config["audio"]["rate_hz"])
    head = HeadKind(config["head"])
    output = "head.classifier" if head is HeadKind.HF_SUPERB else "head.linear"
    spec = ModelSpec(
        encoder=config["encoder"],
        head=head,
        normalize=bool(config["audio"]["normalize"]),
        normalize_eps=float(config["audio"].get("normalize_eps", EPS)),
        output_norm=bool(config.get("output_norm", False)),
    )
    return Checkpoint(
        spec=spec,
        tensors=_in_order(_tensors(folder), output, label_order(folder, config["labels"])),
        calibration=Calibration(**config["calibration"]),
        info=ModelInfo(id=config["id"], version=config["version"], digest=digest),
    )


def _read_hugging_face(folder: Path, config: Mapping[str, Any], digest: str) -> Checkpoint:
    model_type = ARCHITECTURES.get((config.get("architectures") or [""])[0])
    if model_type is None or config.get("model_type") != model_type:
        raise ModelError(f"{folder}: architectures must be one of {', '.join(ARCHITECTURES)}")
    if config.get("add_adapter"):
        raise ModelError(f"{folder}: encoders with an adapter are not supported")
    preprocessor = read_json(folder / "preprocessor_config.json")
    _require_rate(folder, preprocessor["sampling_rate"])
    labels = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]
    tensors = {own_name(name, model_type): tensor for name, tensor in _tensors(folder).items()}
    return Checkpoint(
        spec=ModelSpec(
            encoder=config,
            head=HeadKind.HF_SUPERB,
            normalize=bool(preprocessor["do_normalize"]),
            normalize_eps=float(preprocessor.get(EPS_KEY, EPS)),
        ),
        tensors=_in_order(tensors, "head.classifier", label_order(folder, labels)),
        calibration=Calibration(),
        info=ModelInfo(id=config.get("_name_or_path") or folder.name, version=digest[7:19], digest=digest),
    )


def _require_rate(folder: Path, rate_hz: int) -> None:
    if rate_hz != RATE_HZ:
        raise ModelError(f"{folder}: made for {rate_hz} Hz; only {RATE_HZ} Hz is supported")


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ModelError(f"{folder / WEIGHTS}: {error}") from error


def weight_norm_name(name: str) -> str:
    """A tensor's name as torch has it now, whichever name of weight normalisation the file uses."""
    name = name.replace(".conv.weight_g", ".conv.parametrizations.weight.original0")
    return name.replace(".conv.weight_v", ".conv.parametrizations.weight.original1")


def own_name(name: str, model_type: str) -> str:
    """Our name of a tensor of a Hugging Face checkpoint."""
    name = weight_norm_name(name)
    if name.startswith(f"{model_type}."):
        return "encoder." + name.removeprefix(f"{model_type}.")
    return f"head.{name}"


def label_order(folder: Path, labels: list[str]) -> list[int]:
    """For each of `EMOTIONS`, its index among the checkpoint's classes."""
    known = [_NAMES.get(str(label).lower()) for label in labels]
    if len(known) != len(EMOTIONS) or set(known) != set(EMOTIONS):
        raise ModelError(f"{folder}: classes are {', '.join(map(str, labels))}; they must be {', '.join(EMOTIONS)}")
    return [known.index(emotion) for emotion in EMOTIONS]


def _in_order(tensors: dict[str, torch.Tensor], output: str, order: list[int]) -> dict[str, torch.Tensor]:
    for name in (f"{output}.weight", f"{output}.bias"):
        if name in tensors and tensors[name].shape[0] == len(order):
            tensors[name] = tensors[name][order]
    return tensors
