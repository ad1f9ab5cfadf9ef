"""Models that the worker and transformers' pipeline both load, with the same weights."""

import gc
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import transformers

from callmood.bench import engine
from callmood.bench.synthetic import speak
from callmood.schemas.common import EMOTIONS
from callmood.worker.model.checkpoints import DEMO_FOLDER
from callmood.worker.model.model import load

DEMO: Final = "demo"
SHAPES: Final = (*engine.SHAPES, DEMO)
_FITTED: Final = 40
_FITTED_S: Final = 2.0


def demo() -> Any:
    """The demo model as transformers' own class: its projector is the identity, so the logits are the same."""
    model = load(DEMO_FOLDER)
    size = model.encoder.config.hidden_size
    config = type(model.encoder.config)(
        **model.encoder.config.to_dict()
        | {
            "classifier_proj_size": size,
            "id2label": dict(enumerate(map(str, EMOTIONS))),
            "use_weighted_layer_sum": False,
        }
    )
    theirs = transformers.HubertForSequenceClassification(config).eval()
    theirs.hubert.load_state_dict(model.encoder.state_dict())
    with torch.no_grad():
        theirs.projector.weight.copy_(torch.eye(size))
        theirs.projector.bias.zero_()
        theirs.classifier.weight.copy_(next(model.head.parameters()))
        theirs.classifier.bias.zero_()
    return theirs


class Written(NamedTuple):
    """What the programs load: the worker, and the others; a small model is computed with one thread."""

    worker: str
    others: str
    is_small: bool


def write(shape: str, folder: Path) -> Written:
    """Write a model for transformers' pipeline into this folder.

    Args:
        shape: `demo` is the demo model; `base` and `large` have random weights and a head that is fitted to synthetic
            utterances, so that their labels differ.
        folder: an empty one. The worker loads the same folder, or the bundled demo model itself.
    """
    if shape == DEMO:
        model, normalize, path = demo(), load(DEMO_FOLDER).spec.normalize, str(DEMO_FOLDER)
    else:
        model = engine.build(shape, [speak(_FITTED_S, seed) for seed in range(_FITTED)])[0]
        normalize, path = False, str(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=True)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    del model
    gc.collect()  # the weights of a large model must not stay beside those of the program that is measured
    return Written(path, str(folder), is_small=shape == DEMO)
