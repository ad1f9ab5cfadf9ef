"""Convert checkpoints of other projects: pickles in, safetensors out. Nothing but tensors is unpickled.

Two layouts are known: a Hugging Face folder with `pytorch_model.bin`, and SpeechBrain's IEMOCAP recipe
(`wav2vec2.ckpt`, `model.ckpt`, `label_encoder.txt`), which becomes a bundle: encoder, norm of the whole output, mean,
linear layer.
"""

import ast
import json
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from safetensors.torch import save_file

from callmood.schemas.common import EMOTIONS
from callmood.worker.errors import ModelError
from callmood.worker.model import checkpoints
from callmood.worker.model.checkpoints import CONFIG, PICKLES, WEIGHTS, HeadKind, label_order
from callmood.worker.model.model import EmotionModel, Release, load, save_bundle
from callmood.worker.records import ModelInfo

_SPEECHBRAIN: Final = ("wav2vec2.ckpt", "model.ckpt", "label_encoder.txt")
_SPEECHBRAIN_EPS: Final = 1e-5  # SpeechBrain normalises waveforms by torch's layer_norm
_PREPROCESSOR: Final = "preprocessor_config.json"


def convert(source: Path, target: Path, encoder: Mapping[str, Any] | None = None) -> ModelInfo:
    """Convert a downloaded folder, and load the result once as a check.

    Args:
        source: the folder as downloaded.
        target: a folder that does not exist yet.
        encoder: the encoder's configuration, which a SpeechBrain folder lacks; default: wav2vec 2.0 base, as of the
            published checkpoint. Not used for other folders.

    Raises:
        ModelError: the layout of the source is unknown, the source lacks something, or the target exists.
    """
    if target.exists():
        raise ModelError(f"{target} exists already")
    if not source.is_dir():
        raise ModelError(f"{source}: no such folder")
    try:
        if all((source / name).is_file() for name in _SPEECHBRAIN):
            _speechbrain(source, target, encoder or transformers.Wav2Vec2Config().to_dict())
        else:
            _hugging_face(source, target)
        return load(target).info
    except BaseException:  # also a full disk and Ctrl-C: half a conversion would refuse the next one
        shutil.rmtree(target, ignore_errors=True)
        raise


def _hugging_face(source: Path, target: Path) -> None:
    pickles = sorted(file for file in source.iterdir() if file.suffix in PICKLES)
    if len(pickles) != 1:
        found = ", ".join(file.name for file in pickles) or "none"
        raise ModelError(f"{source}: expected one file of weights ({', '.join(PICKLES)}); found: {found}")
    tensors = _unpickled(pickles[0])
    target.mkdir(parents=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, target / WEIGHTS)
    (target / WEIGHTS).chmod(0o644)
    for name in (CONFIG, _PREPROCESSOR):
        (target / name).write_text(json.dumps(checkpoints.read_json(source / name), indent=2) + "\n")


def _speechbrain(source: Path, target: Path, encoder: Mapping[str, Any]) -> None:
    labels = _labels(source / "label_encoder.txt")
    order = label_order(source, labels)
    model = EmotionModel.new(
        encoder, head=HeadKind.MEAN_LINEAR, normalize=True, normalize_eps=_SPEECHBRAIN_EPS, output_norm=True
    )
    tensors = {
        f"encoder.{checkpoints.weight_norm_name(name.removeprefix('model.'))}": tensor
        for name, tensor in _unpickled(source / "wav2vec2.ckpt").items()
    }
    tensors["head.linear.weight"] = _only(source / "model.ckpt", ".w.weight")[order]
    try:
        keys = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{source}: {error}") from error
    wrong = sorted({*keys.missing_keys, *keys.unexpected_keys} - {"encoder.masked_spec_embed"})
    if wrong:
        raise ModelError(f"{source}: tensors are missing or unknown: {', '.join(wrong)}; is it another encoder?")
    release = Release(source.name, "speechbrain", "converted")
    save_bundle(model, target, release, storage=torch.float32)


def _only(path: Path, ending: str) -> torch.Tensor:
    """The head's one matrix, [4, width]: the recipe's linear layer has no bias."""
    tensors = _unpickled(path)
    named = [name for name in tensors if name.endswith(ending)]
    if len(tensors) != 1 or not named or tensors[named[0]].shape[0] != len(EMOTIONS):
        raise ModelError(
            f"{path}: expected one matrix of {len(EMOTIONS)} rows; found: {', '.join(tensors) or 'nothing'}"
        )
    return tensors[named[0]]


def _labels(path: Path) -> list[str]:
    """Class names by index: `'neu' => 0`, one a line, up to a line of `=`."""
    found: dict[int, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("==="):
            break
        name, _, index = line.partition(" => ")
        try:
            found[int(index)] = str(ast.literal_eval(name))
        except (SyntaxError, ValueError) as error:
            raise ModelError(f"{path}: {line!r} names no class") from error
    if sorted(found) != list(range(len(found))):
        raise ModelError(f"{path}: classes are numbered {sorted(found)}")
    return [found[index] for index in range(len(found))]


def _unpickled(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path}: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ModelError(f"{path}: not a dictionary of tensors")
    return tensors
