"""The model of a run: a head on an encoder, pre-trained (from the hub or a folder) or with random weights."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from callmood.training import checkpoint
from callmood.training.networks import front_end
from callmood.training.networks.attention_pooling import AttentionPoolingCnn
from callmood.training.options import ModelConfig
from callmood.worker.errors import ConfigurationError, ModelError
from callmood.worker.model import hub
from callmood.worker.model.audio import RATE_HZ
from callmood.worker.model.checkpoints import CONFIG, HeadKind, ModelSpec, read_json
from callmood.worker.model.model import ENCODERS, EmotionModel, load

_PREPROCESSOR: Final = "preprocessor_config.json"
_WEIGHTS: Final = (".safetensors", ".bin")
_DAMAGED: Final = (SafetensorError, pickle.UnpicklingError, EOFError)
_NEVER_READ: Final = {"masked_spec_embed"}  # SpecAugment's; an encoder that does not use it comes without


def new(settings: ModelConfig, seed: int) -> nn.Module:
    """Build the model; weights that are not pre-trained are drawn from `seed`.

    Raises:
        ConfigurationError: the encoder is not available, is of an unknown kind, or its weights do not fit.
    """
    torch.manual_seed(seed)
    if settings.head == "attention_pooling_cnn":
        return AttentionPoolingCnn()
    try:
        if settings.pretrained:
            return _pretrained(settings)
        normalize = settings.normalize if settings.normalize is not None else True
        model = EmotionModel(_spec(settings, dict(settings.encoder), normalize=normalize))
    except (ModelError, TypeError, ValueError, StrictDataclassError) as error:  # of transformers' own checks
        raise ConfigurationError(str(error).strip().replace("\n", " ")) from error
    except (ArithmeticError, KeyError, RuntimeError) as error:  # of values that it does not check
        raise ConfigurationError(f"model.encoder: no network of these values: {error!r}") from error
    if settings.filter_bank:
        front_end.start_as_filter_bank(model)
    return model


def digest(source: str) -> str:
    """SHA-256 of configuration and weights in a folder; empty for other sources, such as a commit of the hub."""
    if not source or not Path(source).is_dir():
        return ""
    found = hashlib.sha256()
    for path in sorted(Path(source).iterdir()):
        if path.suffix in _WEIGHTS or path.name in ("config.json", _PREPROCESSOR):
            with path.open("rb") as file:
                found.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def checkpoint_activations(model: EmotionModel) -> None:
    """Compute the transformer's activations again when gradients need them, instead of keeping them."""
    encoder: Any = model.encoder
    # transformers 5 gave it another name in one of its releases
    enable = getattr(encoder, "activation_checkpointing_enable", None) or encoder.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def save(model: EmotionModel, folder: Path) -> None:
    """Write the encoder alone as a folder that `model.pretrained` takes.

    Raises:
        OSError: a file cannot be written.
    """
    encoder: Any = model.encoder
    transformers.utils.logging.disable_progress_bar()
    encoder.save_pretrained(folder)
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "sampling_rate": RATE_HZ,
        "do_normalize": model.spec.normalize,
    }
    checkpoint.write_text(folder / _PREPROCESSOR, json.dumps(preprocessor, indent=2) + "\n")


def _pretrained(settings: ModelConfig) -> EmotionModel:
    source = str(hub.folder(settings.pretrained, pickles=True) or settings.pretrained)
    described = Path(source) / CONFIG
    if described.is_file() and "format" in read_json(described):
        return _of_bundle(settings, source)
    config = _config(settings, source)
    model = EmotionModel(_spec(settings, config.to_dict(), normalize=_normalize(settings, source)))
    _, encoder_class = ENCODERS[config.model_type]
    transformers.utils.logging.disable_progress_bar()
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # it warns of every head of another task
    try:
        encoder, info = encoder_class.from_pretrained(
            source, config=model.encoder.config, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, *_DAMAGED) as error:
        raise _not_available(source, error) from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    wrong = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])} - _NEVER_READ
    if wrong:
        raise ConfigurationError(f"{source}: weights missing or of another shape: {', '.join(sorted(wrong))}")
    model.encoder = encoder
    return model


def _of_bundle(settings: ModelConfig, source: str) -> EmotionModel:
    """The encoder of a bundle; and its head, unless the configuration has another one."""
    start = load(source)
    if unknown := settings.encoder.keys() - start.spec.encoder.keys():
        raise ConfigurationError(f"model.encoder.{min(unknown)}: the encoder of {source} has no such setting")
    normalize = start.spec.normalize if settings.normalize is None else settings.normalize
    model = EmotionModel(_spec(settings, {**start.spec.encoder, **settings.encoder}, normalize=normalize))
    try:
        missing, unexpected = model.encoder.load_state_dict(start.encoder.state_dict(), strict=False)
        if (model.spec.head, model.spec.output_norm) == (start.spec.head, start.spec.output_norm):
            model.head.load_state_dict(start.head.state_dict())
    except RuntimeError as error:
        raise ConfigurationError(f"{source}: its weights do not fit model.encoder: {error}") from error
    if wrong := {*missing, *unexpected} - _NEVER_READ:
        raise ConfigurationError(f"{source}: its weights do not fit model.encoder: {', '.join(sorted(wrong))}")
    return model


def _config(settings: ModelConfig, source: str) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _not_available(source, error) from error
    if config.model_type not in ENCODERS:
        raise ConfigurationError(f"{source} is a {config.model_type}; known encoders are {', '.join(ENCODERS)}")
    for name, value in settings.encoder.items():
        if not hasattr(config, name):
            raise ConfigurationError(f"model.encoder.{name}: {config.model_type} has no such setting")
        setattr(config, name, value)
    return config


def _spec(settings: ModelConfig, encoder: dict[str, Any], *, normalize: bool) -> ModelSpec:
    return ModelSpec(
        encoder=encoder,
        head=HeadKind(settings.head),
        normalize=normalize,
        normalize_eps=settings.normalize_eps,
        output_norm=settings.output_norm,
    )


def _normalize(settings: ModelConfig, source: str) -> bool:
    """The configuration's value, or else that of the encoder's preprocessor."""
    if settings.normalize is not None:
        return settings.normalize
    try:
        if Path(source).is_dir():
            return bool(read_json(Path(source) / _PREPROCESSOR)["do_normalize"])
        return bool(transformers.AutoFeatureExtractor.from_pretrained(source, trust_remote_code=False).do_normalize)
    except (OSError, ValueError, KeyError, AttributeError, ModelError) as error:
        raise ConfigurationError(
            f"{source}: its {_PREPROCESSOR} does not say do_normalize ({error}); set model.normalize"
        ) from error


def _not_available(source: str, error: Exception) -> ConfigurationError:
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    return ConfigurationError(f"no encoder at {source}: {first}; without a network, give a folder with --encoder")
