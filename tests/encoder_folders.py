"""Pre-trained encoders as the hub has them, a few channels wide: configuration, preprocessor, weights by its names."""

import json
from pathlib import Path

import torch
import transformers
from tiny import BASE, LARGE, SIZE

# Configuration, class that was published, and the shape of the encoder.
KINDS = {
    "w2v-base": ("Wav2Vec2Config", "Wav2Vec2ForPreTraining", BASE),
    "w2v-base-960h": ("Wav2Vec2Config", "Wav2Vec2ForCTC", BASE),
    "w2v-large": ("Wav2Vec2Config", "Wav2Vec2ForPreTraining", BASE),
    "w2v-large-960h": ("Wav2Vec2Config", "Wav2Vec2ForCTC", BASE),
    "hbt-base": ("HubertConfig", "HubertModel", BASE),
    "hbt-large": ("HubertConfig", "HubertModel", LARGE),
    "hbt-large-960h": ("HubertConfig", "HubertForCTC", LARGE),
    "wavlm-large": ("WavLMConfig", "WavLMModel", LARGE),
    "w2v-large-robust": ("Wav2Vec2Config", "Wav2Vec2ForPreTraining", LARGE),
}


def write(folder: Path, kind: str, *, pickled: bool = False, normalize: bool = True) -> Path:
    """Write an encoder of a kind with random weights; returns its folder."""
    config_name, class_name, shape = KINDS[kind]
    config = getattr(transformers, config_name)(**SIZE, **shape, codevector_dim=16, proj_codevector_dim=16)
    torch.manual_seed(3)
    model = getattr(transformers, class_name)(config)
    model.save_pretrained(folder)
    if pickled:  # most of them were published so, under the names of their time
        (folder / "model.safetensors").unlink()
        names = {
            ".conv.parametrizations.weight.original0": ".conv.weight_g",
            ".conv.parametrizations.weight.original1": ".conv.weight_v",
        }
        tensors = {}
        for name, tensor in model.state_dict().items():
            for new, old in names.items():
                name = name.replace(new, old)  # noqa: PLW2901 - two names, one tensor
            tensors[name] = tensor
        torch.save(tensors, folder / "pytorch_model.bin")
    preprocessor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps({**preprocessor, "do_normalize": normalize}))
    return folder
