"""torchaudio's HuBERT pre-training model, with the weights of an encoder of `tiny`."""

import torch
from tiny import SIZE
from torchaudio import models
from torchaudio.compliance import kaldi
from torchaudio.functional import compute_deltas

from callmood.worker.model.model import EmotionModel

__all__ = ["compute_deltas", "kaldi", "pretraining"]
_LAYERS = [(16, 10, 5), *[(16, 3, 2)] * 4, *[(16, 2, 2)] * 2]  # channels, kernel, stride: HuBERT's, narrow
_MASKS = {
    "mask_prob": 0.8,
    "mask_selection": "static",
    "mask_other": 0.0,
    "mask_length": 10,
    "no_mask_overlap": False,
    "mask_min_space": 1,
    "mask_channel_prob": 0.0,
    "mask_channel_selection": "static",
    "mask_channel_other": 0.0,
    "mask_channel_length": 10,
    "no_mask_channel_overlap": False,
    "mask_channel_min_space": 1,
}


def pretraining(model: EmotionModel, is_large: bool, clusters: int) -> torch.nn.Module:  # noqa: FBT001 - one flag
    """The reference; without dropout, and with `clusters` clusters."""
    reference = models.hubert_pretrain_model(
        extractor_mode="layer_norm" if is_large else "group_norm",
        extractor_conv_layer_config=_LAYERS,
        extractor_conv_bias=is_large,
        encoder_embed_dim=SIZE["hidden_size"],
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=SIZE["num_conv_pos_embeddings"],
        encoder_pos_conv_groups=SIZE["num_conv_pos_embedding_groups"],
        encoder_num_layers=SIZE["num_hidden_layers"],
        encoder_num_heads=SIZE["num_attention_heads"],
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=SIZE["intermediate_size"],
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=is_large,
        encoder_layer_drop=0.0,
        skip_masked=False,
        skip_nomask=True,
        num_classes=clusters,
        final_dim=256,
        feature_grad_mult=None,
        **_MASKS,
    )
    names = {
        "feature_extractor.": "wav2vec2.feature_extractor.",
        "feature_projection.": "wav2vec2.encoder.feature_projection.",
        "encoder.": "wav2vec2.encoder.transformer.",
        "masked_spec_embed": "mask_generator.mask_embedding",
    }
    known = set(reference.state_dict())
    renamed = {}
    for name, tensor in model.encoder.state_dict().items():
        ours = next(start for start in names if name.startswith(start))
        theirs = names[ours] + name.removeprefix(ours)
        if theirs not in known:  # the two halves of a normalised weight, by torch's older names
            theirs = theirs.replace("parametrizations.weight.original0", "weight_g")
            theirs = theirs.replace("parametrizations.weight.original1", "weight_v")
        renamed[theirs] = tensor
    missing = reference.load_state_dict(renamed, strict=False)
    assert all(name.startswith("logit_generator.") for name in missing.missing_keys), missing
    assert not missing.unexpected_keys, missing
    return reference.train()
