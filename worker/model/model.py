"""The emotion model: encoder, masked mean over valid frames, linear head. Shared by the worker and by training.

An utterance's logits do not depend on what it is batched or padded with: whatever looks along time (waveform
normalisation, the GroupNorm of base-type encoders, the positional convolution, attention, pooling) sees valid samples
only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils import parametrize

from callmood.worker.errors import ModelError
from callmood.worker.model import checkpoints, heads, masked
from callmood.worker.model.checkpoints import Calibration, Checkpoint, HeadKind, ModelSpec
from callmood.worker.records import ModelInfo

ENCODERS: Final = {
    "hubert": (transformers.HubertConfig, transformers.HubertModel),
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
    "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
}
_NOT_SHAPE: Final = {"_name_or_path", "id2label", "label2id", "transformers_version"}  # transformers' words
_OPTIONAL: Final = {"encoder.masked_spec_embed"}  # SpecAugment's; inference never reads it


@dataclass(frozen=True, slots=True)
class Release:
    """The description of a saved bundle, beside its weights."""

    id: str
    version: str
    revision: str
    calibration: Calibration = field(default_factory=Calibration)


class _KeyMask:
    """A mask for WavLM's attention, which asks it `.ne(1)` for torch's `key_padding_mask`: here, numbers to be added.

    torch deprecates a mask of bools beside a bias of numbers.
    """

    def __init__(self, valid: Tensor, dtype: torch.dtype) -> None:
        self._added = torch.zeros(valid.shape, dtype=dtype, device=valid.device).masked_fill(~valid, -torch.inf)

    def ne(self, _other: int) -> Tensor:
        """0 for valid frames, minus infinity for padding: [batch, frames]."""
        return self._added


class EmotionModel(nn.Module):
    """Waveforms in, logits of the four emotions out.

    Attributes:
        spec: the shape, enough to build the model again.
        info: which model it is; a model that was never saved has empty fields.
        calibration: what turns logits into calibrated probabilities.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.encoder = _encoder(spec.encoder)
        self.head = heads.build(spec, self.encoder.config)
        self.spec = spec
        self.info = ModelInfo(id="", version="", digest="")
        self.calibration = Calibration()

    @classmethod
    def new(
        cls, encoder: Mapping[str, Any], *, head: HeadKind = HeadKind.MEAN_LINEAR, normalize: bool = True, **more: Any
    ) -> "EmotionModel":
        """Build a model with random weights.

        Args:
            encoder: a transformers configuration as plain values; needs `model_type` (`hubert`, `wav2vec2`, `wavlm`).
            head: kind of the head on the encoder.
            normalize: bring each utterance to zero mean and unit variance.
            more: other fields of `ModelSpec`.

        Raises:
            ModelError: the configuration makes no encoder.
        """
        return cls(ModelSpec(encoder=encoder, head=head, normalize=normalize, **more))

    @property
    def min_samples(self) -> int:
        """Fewest samples that give one encoder frame."""
        samples = 1
        for kernel, stride in reversed(self._convolutions()):
            samples = (samples - 1) * stride + kernel
        return samples

    def frames(self, samples: Tensor) -> Tensor:
        """Encoder frames that `samples` samples give; the same shape."""
        for kernel, stride in self._convolutions():
            samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
        return samples.clamp(min=0)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Logits for a batch of utterances.

        Args:
            waveforms: float32 [batch, samples], 16 kHz, full scale is 1; samples beyond a length are ignored.
            lengths: int64 [batch], valid samples of each, at least `min_samples`.

        Returns:
            float32 [batch, 4] in the order of `EMOTIONS`.
        """
        features, valid = self.features(waveforms, lengths)
        logits: Tensor = self.head(self.layers(features, valid), valid)
        return logits.float()

    def features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The front end's output [batch, frames, channels], and which frames are valid [batch, frames]."""
        valid = masked.valid_mask(lengths, waveforms.shape[1])
        waveforms = waveforms.masked_fill(~valid, 0.0)
        if self.spec.normalize:
            waveforms = masked.normalized(waveforms, valid, self.spec.normalize_eps)
        features = self._features(waveforms.to(self.encoder.dtype), lengths)
        return features, masked.valid_mask(self.frames(lengths), features.shape[1])

    def _context(self, valid: Tensor) -> dict[str, Any]:
        """Arguments of each layer beside its input, so that its attention sees valid frames only.

        WavLM's layers share a bias by distance [batch * heads, frames, frames], which each multiplies by a gate of any
        sign: there, the mask is added after the gate.
        """
        if self.encoder.config.model_type != "wavlm":
            return {"attention_mask": valid[:, None, None, :]}
        frames = valid.shape[1]
        bias = self.encoder.encoder.layers[0].attention.compute_bias(frames, frames)[None]
        shared = bias.expand(len(valid), -1, -1, -1).flatten(0, 1)
        return {"attention_mask": _KeyMask(valid, bias.dtype), "position_bias": shared}

    def fuse(self) -> "EmotionModel":
        """Fold the weight normalisation of the positional convolution: faster, equal, and no longer to be saved."""
        for module in self.modules():
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")
        return self

    def _convolutions(self) -> list[tuple[int, int]]:
        config = self.encoder.config
        return list(zip(config.conv_kernel, config.conv_stride, strict=True))

    def _features(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """The convolutional front end: [batch, frames, channels].

        Frames that reach into the padding hold garbage, and only they: a convolution that adds no padding of its own
        makes valid outputs of valid inputs only.
        """
        features = waveforms[:, None]
        for index, layer in enumerate(self.encoder.feature_extractor.conv_layers):
            if index == 0 and self.encoder.config.feat_extract_norm == "group":
                features = layer.conv(features)
                kernel, stride = self._convolutions()[0]
                valid = masked.valid_mask(
                    torch.div(lengths - kernel, stride, rounding_mode="floor") + 1, features.shape[2]
                )
                features = layer.activation(masked.group_norm(features, valid, layer.layer_norm))
            else:
                features = layer(features)
        return features.transpose(1, 2)

    def _positions(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """The positional convolution, which meets zeros beyond the end, as it does alone: [batch, frames, width]."""
        embedding = self.encoder.encoder.pos_conv_embed
        norm = getattr(embedding, "batch_norm", None)
        if norm is None:
            positions: Tensor = embedding(hidden)
            return positions
        normed = norm(hidden.transpose(1, 2)) * valid[:, None, :]
        positions = embedding.activation(embedding.padding(embedding.conv(normed)))
        return positions.transpose(1, 2)

    def layers(self, features: Tensor, valid: Tensor, masked_frames: Tensor | None = None) -> list[Tensor]:
        """The input of the first transformer layer and the output of each: [batch, frames, width].

        `masked_frames` [batch, frames] are replaced by the encoder's mask embedding, as in pre-training.
        The last one is the encoder's output, after its final LayerNorm: so s3prl and transformers 4 had it when the
        SUPERB checkpoints were made. transformers 5 weighs the raw output of the last layer instead.
        """
        encoder = self.encoder.encoder
        config = self.encoder.config
        hidden = first_of(self.encoder.feature_projection(features))
        if masked_frames is not None:
            embedding = self.encoder.masked_spec_embed.to(hidden.dtype)
            hidden = torch.where(masked_frames[:, :, None], embedding, hidden)
        # transformers refuses to mask a batch that is shorter than one mask of SpecAugment's.
        elif self.encoder.training and hidden.shape[1] >= config.mask_time_length:
            hidden = self.encoder._mask_hidden_states(hidden, attention_mask=valid)  # noqa: SLF001 - SpecAugment has no public name
        hidden = hidden * valid[:, :, None]
        hidden = hidden + self._positions(hidden, valid)
        if not config.do_stable_layer_norm:
            hidden = encoder.layer_norm(hidden)
        hidden = encoder.dropout(hidden)
        layers = [hidden]
        context = self._context(valid)
        for layer in encoder.layers:
            dropped = self.encoder.training and bool(torch.rand([]) < config.layerdrop)
            if not dropped:
                hidden = first_of(layer(hidden, **context))
            layers.append(hidden)
        if config.do_stable_layer_norm:
            layers[-1] = encoder.layer_norm(hidden)
        return layers


def load(path: str | Path) -> EmotionModel:
    """Load a bundle, a Hugging Face folder or `demo-tiny`, ready to infer, in float32 on the CPU.

    Raises:
        ModelError: the checkpoint cannot be used.
    """
    checkpoint = checkpoints.read(path)
    with torch.device("meta"):  # weights come from the file: none are drawn
        model = EmotionModel(checkpoint.spec)
    tensors = {name: tensor.float() for name, tensor in checkpoint.tensors.items()}
    broken = sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all())
    if broken:
        raise ModelError(f"{path}: weights are not finite: {', '.join(broken)}")
    try:
        keys = model.load_state_dict(tensors, strict=False, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{path}: {error}") from error
    wrong = sorted({*keys.missing_keys, *keys.unexpected_keys} - _OPTIONAL)
    if wrong:
        raise ModelError(f"{path}: tensors are missing or unknown: {', '.join(wrong)}")
    if "encoder.masked_spec_embed" in keys.missing_keys:
        model.encoder.masked_spec_embed = nn.Parameter(torch.rand(model.encoder.config.hidden_size))
    model.info, model.calibration = checkpoint.info, checkpoint.calibration
    return model.eval()


def save_bundle(
    model: EmotionModel, folder: str | Path, release: Release, *, storage: torch.dtype = torch.float16
) -> ModelInfo:
    """Write the model as a bundle: `config.json` and `model.safetensors`; card and report may lie beside them.

    Returns:
        The info with the digest of what was written; `storage` rounds the weights, so load the bundle to evaluate it.
    """
    tensors = {name: tensor.detach().to("cpu", storage) for name, tensor in model.state_dict().items()}
    encoder = {key: value for key, value in model.encoder.config.to_dict().items() if key not in _NOT_SHAPE}
    spec = replace(model.spec, encoder=encoder)
    info = ModelInfo(id=release.id, version=release.version, digest="")
    return checkpoints.write(
        Path(folder), Checkpoint(spec, tensors, release.calibration, info), revision=release.revision
    )


def _encoder(values: Mapping[str, Any]) -> Any:
    kind = values.get("model_type")
    if kind not in ENCODERS:
        raise ModelError(f"model_type {kind!r}: only {' and '.join(ENCODERS)} are supported")
    config_class, model_class = ENCODERS[kind]
    try:
        config = config_class.from_dict(dict(values))
        # As transformers' own models set it; our mask is made for it. WavLM's attention is its own.
        config._attn_implementation = "eager" if kind == "wavlm" else "sdpa"  # noqa: SLF001 - no public name
        return model_class(config)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the encoder's configuration is not valid: {error}") from error


def first_of(value: Any) -> Any:
    """Some of transformers' modules answer with a tuple."""
    return value[0] if isinstance(value, tuple) else value
