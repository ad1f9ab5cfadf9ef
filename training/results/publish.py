"""A bundle to others: to the hub, by whose commit the worker takes it, or as a folder that transformers loads."""

import json
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import save_file

from callmood.schemas.common import EMOTIONS
from callmood.training.results.export import CARD, REPORT
from callmood.worker.errors import ConfigurationError
from callmood.worker.model.checkpoints import ARCHITECTURES, CONFIG, EPS_KEY, RATE_HZ, WEIGHTS, HeadKind
from callmood.worker.model.model import load


def push(bundle: Path, repository: str, *, private: bool) -> str:
    """Upload a bundle that loads and has been judged.

    Returns:
        What `CALLMOOD_MODEL__PATH` takes.

    Raises:
        ConfigurationError: there is no report or card, or the hub refuses.
        ModelError: the bundle cannot be loaded, or its content is not what its digest says.
    """
    if missing := [name for name in (REPORT, CARD) if not (bundle / name).is_file()]:
        raise ConfigurationError(f"{bundle}: no {' and no '.join(missing)}: only what was judged is published")
    load(bundle)
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=bundle, commit_message="callmood bundle")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigurationError(f"{repository}: the hub refuses: {error}") from error
    return f"hf://{repository}@{commit.oid}"


def to_transformers(bundle: Path, folder: Path) -> None:
    """Write a bundle as transformers' own class for sequence classification has it, which the worker loads as well.

    Temperature and abstention threshold have no place there and are left behind. A weighted sum over a large-type
    encoder counts its last layer after the final norm, as the SUPERB checkpoints do; transformers 5 counts it before.

    Raises:
        ConfigurationError: transformers has no class for this head.
        ModelError: the bundle cannot be loaded.
    """
    model = load(bundle)
    if model.spec.head is not HeadKind.HF_SUPERB:
        raise ConfigurationError(f"{bundle}: transformers has no class for the head {model.spec.head}")
    kind = model.encoder.config.model_type
    tensors = {
        f"{kind}.{name.removeprefix('encoder.')}" if name.startswith("encoder.") else name.removeprefix("head."): tensor
        for name, tensor in model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
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
