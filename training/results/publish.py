"""Publish a bundle: to the hub, where the worker loads it by its commit, or as a folder that transformers loads."""

import json
import shutil
from pathlib import Path
from typing import Final

import torch
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import save_file

from callmood.schemas.common import EMOTIONS
from callmood.training.results.export import CARD, REPORT
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.checkpoints import ARCHITECTURES, CONFIG, EPS_KEY, RATE_HZ, WEIGHTS, HeadKind
from callmood.worker.model.model import EmotionModel, load

_TOLERANCE: Final = 0.01  # of a logit; transformers knows no eps but 1e-7, which is worth less


def push(bundle: Path, repository: str, *, private: bool) -> str:
    """Upload a bundle that can be loaded and has been evaluated.

    Returns:
        The value of `CALLMOOD_MODEL__PATH` that loads it.

    Raises:
        ConfigurationError: there is no report or card, or the hub refuses.
        ModelError: the bundle cannot be loaded, or its content is not what its digest says.
    """
    if missing := [name for name in (REPORT, CARD) if not (bundle / name).is_file()]:
        raise ConfigurationError(f"{bundle}: no {' and no '.join(missing)}: only an evaluated bundle can be published")
    load(bundle)
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=bundle, commit_message="callmood bundle")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigurationError(f"{repository}: the hub refuses: {error}") from error
    return f"hf://{repository}@{commit.oid}"


def to_transformers(bundle: Path, folder: Path) -> None:
    """Write a bundle in the layout of transformers' class for sequence classification; the worker loads it as well.

    The layout has no place for temperature and abstention threshold. What was written is loaded by transformers once:
    its weighted sum over a large-type encoder differs from ours. We count the last layer after the final norm, as the
    SUPERB checkpoints do, and transformers 5 counts it before.

    Raises:
        ConfigurationError: transformers has no class for this head, the installed version computes other logits, or
            the folder exists.
        ModelError: the bundle cannot be loaded.
    """
    if folder.exists():
        raise ConfigurationError(f"{folder} exists already")
    model = load(bundle)
    if model.spec.head is not HeadKind.HF_SUPERB:
        raise ConfigurationError(f"{bundle}: transformers has no class for the head {model.spec.head}")
    try:
        _write(model, folder)
        _refuse_other_answers(model, folder)
    except BaseException:  # also a full disk and Ctrl-C: half a folder would refuse the next command
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(model: EmotionModel, folder: Path) -> None:
    kind = model.encoder.config.model_type
    tensors = {
        f"{kind}.{name.removeprefix('encoder.')}" if name.startswith("encoder.") else name.removeprefix("head."): tensor
        for name, tensor in model.state_dict().items()
    }
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)
    config = {
        **model.encoder.config.to_dict(),
        "architectures": [name for name, known in ARCHITECTURES.items() if known == kind],
        "id2label": {str(index): str(emotion) for index, emotion in enumerate(EMOTIONS)},
        "label2id": {str(emotion): index for index, emotion in enumerate(EMOTIONS)},
    }
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": model.spec.normalize,
        "return_attention_mask": True,
        "sampling_rate": RATE_HZ,
        "padding_value": 0.0,
        EPS_KEY: model.spec.normalize_eps,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n", encoding="utf-8")


def _refuse_other_answers(model: EmotionModel, folder: Path) -> None:
    """Compare the logits for one second of noise."""
    theirs = transformers.AutoModelForAudioClassification.from_pretrained(folder).eval()
    prepare = transformers.AutoFeatureExtractor.from_pretrained(folder)
    waveform = torch.randn(1, RATE_HZ, generator=torch.Generator().manual_seed(0)) / 10
    with torch.inference_mode():
        ours = model(waveform, torch.tensor([RATE_HZ]))
        inputs = prepare(waveform[0].numpy(), sampling_rate=RATE_HZ, return_tensors="pt")
        difference = float((theirs(inputs["input_values"]).logits - ours).abs().max())
    if not difference <= _TOLERANCE:
        raise ConfigurationError(
            f"transformers {transformers.__version__} computes other logits: one differs by {difference:.2g}. "
            "It weighs the layers of a large-type encoder differently, so nothing was written"
        )
