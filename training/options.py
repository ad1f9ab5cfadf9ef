"""The options of a run, part by part. Plain values with defaults; each refuses what cannot work."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from callmood.worker.errors import ConfigurationError

TRAINABLE = ("all", "encoder", "head")
SCHEDULES = ("newbob", "step", "constant")
PRECISIONS = ("fp32", "bf16")
HEADS = ("mean_linear", "hf_superb", "attentive_statistics", "attention_pooling_cnn")
LOSSES = ("cross_entropy", "focal")
WEIGHTS = ("none", "inverse_frequency")


@dataclasses.dataclass(frozen=True, slots=True)
class CorpusConfig:
    """The synthetic corpus, for configurations that make one.

    Attributes:
        seed: of everything that is drawn.
        voices_per_split: at most; each split has voices of its own.
        languages_per_voice: of those listed in `synthetic.toml`.
        train_utterances: per voice, language and emotion.
        valid_utterances: per voice, language and emotion.
        test_utterances: per voice, language and emotion.
    """

    seed: int
    voices_per_split: int
    languages_per_voice: int
    train_utterances: int
    valid_utterances: int
    test_utterances: int

    def utterances(self, split: str) -> int:
        """Utterances per voice, language and emotion of a split."""
        return {"train": self.train_utterances, "valid": self.valid_utterances, "test": self.test_utterances}[split]


@dataclasses.dataclass(frozen=True, slots=True)
class RowConfig:
    """A row of a published table.

    Attributes:
        published: accuracy in percent by protocol (`protocols.PROTOCOLS`); the row runs these.
        band: how far from it, in points, ours may lie and still count as reproduced.
    """

    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    band: float = 1.5


@dataclasses.dataclass(frozen=True, slots=True)
class ModelConfig:
    """The model.

    Attributes:
        id: what it is called.
        version: of this model, beside its id.
        summary: what its card says first.
        pretrained: the encoder to start from: a hub id, `hf://OWNER/NAME@COMMIT`, or a folder; none: random weights.
        encoder: a transformers configuration; beside `pretrained`, what differs from its own.
        head: `mean_linear` (the paper's), `hf_superb` (SUPERB's: weighted sum of layers, projector), or
            `attentive_statistics`; `attention_pooling_cnn` is a network of its own, without an encoder.
        normalize: each waveform to zero mean and unit variance; left away, as the pre-trained encoder's preprocessor
            says.
        normalize_eps: added to the variance.
        output_norm: the encoder's output to zero mean and unit variance, over each utterance (`mean_linear` alone).
        filter_bank: the first convolution starts as one; for encoders with random weights.
    """

    id: str
    version: str = "0"
    summary: str = ""
    pretrained: str = ""
    encoder: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    head: str = "mean_linear"
    normalize: bool | None = None
    normalize_eps: float = 1e-7
    output_norm: bool = False
    filter_bank: bool = False

    def __post_init__(self) -> None:
        _one_of("head", self.head, HEADS)
        has_encoder = bool(self.pretrained or self.encoder)
        if has_encoder is (self.head == "attention_pooling_cnn"):
            raise ConfigurationError(f"head {self.head!r} {'takes no' if has_encoder else 'needs an'} encoder")
        if self.output_norm and self.head != "mean_linear":
            raise ConfigurationError(f"head {self.head!r} has no output_norm")
        if self.encoder and not self.pretrained and "model_type" not in self.encoder:
            raise ConfigurationError("encoder needs a model_type")


@dataclasses.dataclass(frozen=True, slots=True)
class TrainConfig:
    """The loop.

    Attributes:
        seed: of everything that is drawn.
        epochs: passes over the training split; 0: `steps` says how long.
        batch_size: utterances of a batch on one device.
        train: what learns: `all`, `encoder` (all but the CNN: the paper's partial fine-tuning), `head`.
        encoder_lr: learning rate of the encoder.
        head_lr: learning rate of the head.
        steps: optimiser steps instead of `epochs`.
        evaluate_steps: validate after so many steps; 0: after each pass.
        checkpoint_steps: save what `--resume` needs after so many steps, and after each validation.
        accumulate: batches whose gradients make one step.
        bucket_batches: batches' worth of utterances that are sorted by length; 1: plainly shuffled.
        crop_s: random crops of longer utterances; 0: whole.
        speeds: training plays each clip at one of these, pitch and all.
        freeze_layers: the first transformer layers, which do not learn either.
        layer_decay: each transformer layer's rate is this times that of the layer above; the top one has `encoder_lr`.
        weight_decay: Adam's.
        warmup_steps: the rates rise linearly at first.
        max_grad_norm: gradients are clipped to it, all together.
        schedule: `newbob` (by validation error), `step` (every `anneal_epochs`), `constant`.
        anneal_factor: what the rates are multiplied with.
        anneal_threshold: NewBob's: the relative improvement below which it does so.
        anneal_epochs: for `step`.
        precision: `fp32`, or `bf16` for matrix products (weights stay float32).
        gradient_checkpointing: compute activations again instead of keeping them: less memory, a third more work.
        workers: processes that read and augment.
        deterministic: torch's deterministic algorithms, which a GPU has for most of what is done here; slower.
    """

    seed: int
    epochs: int
    batch_size: int
    train: str
    encoder_lr: float
    head_lr: float
    steps: int = 0
    evaluate_steps: int = 0
    checkpoint_steps: int = 500
    accumulate: int = 1
    bucket_batches: int = 8
    crop_s: float = 0.0
    speeds: Sequence[float] = (1.0,)
    freeze_layers: int = 0
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    warmup_steps: int = 0
    max_grad_norm: float = 5.0
    schedule: str = "newbob"
    anneal_factor: float = 0.9
    anneal_threshold: float = 0.0025
    anneal_epochs: int = 10
    precision: str = "fp32"
    gradient_checkpointing: bool = False
    workers: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        _one_of("train", self.train, TRAINABLE)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("precision", self.precision, PRECISIONS)
        _positive(
            self, "batch_size", "checkpoint_steps", "accumulate", "bucket_batches", "max_grad_norm", "layer_decay"
        )
        _positive(self, "anneal_factor", "anneal_epochs")
        if (self.epochs > 0) is (self.steps > 0):
            raise ConfigurationError("give epochs or steps; the other is 0")
        if not self.speeds or min(self.speeds) <= 0:
            raise ConfigurationError("speeds are positive, and there is at least one")
        if self.train == "head" and (self.freeze_layers or self.layer_decay != 1.0):
            raise ConfigurationError('freeze_layers and layer_decay mean nothing with train = "head"')


@dataclasses.dataclass(frozen=True, slots=True)
class LossConfig:
    """What is minimised.

    Attributes:
        kind: `cross_entropy`, or `focal`: (1 - p)^gamma times it.
        focal_gamma: gamma.
        class_weights: `none`, or `inverse_frequency`: rare classes weigh more, the mean weight is 1.
        label_smoothing: the share of each target that goes to all classes alike.
        soft_labels: targets are the annotators' votes where the manifest has them.
    """

    kind: str = "cross_entropy"
    focal_gamma: float = 2.0
    class_weights: str = "none"
    label_smoothing: float = 0.0
    soft_labels: bool = False

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, LOSSES)
        _one_of("class_weights", self.class_weights, WEIGHTS)
        _share(self, "label_smoothing")


@dataclasses.dataclass(frozen=True, slots=True)
class LoraConfig:
    """Low-rank adapters on the transformer's projections, which learn instead of their weights.

    Attributes:
        rank: of each; 0: no adapters.
        alpha: they count `alpha / rank` times.
    """

    rank: int = 0
    alpha: float = 16.0


@dataclasses.dataclass(frozen=True, slots=True)
class AugmentConfig:
    """The telephone chain on training clips, each step by its own probability within a clip that is chosen at all.

    Attributes:
        probability: share of clips that go through the chain; the others stay as they are.
        noise: share of those that get noise.
        noise_snr_db: lowest and highest, in dB.
        mu_law: share through mu-law.
        a_law: share through A-law; what is left keeps its 16 bits.
        loss: share that loses packets of 20 ms, in bursts, which are hidden by silence or by repeating the last one.
        loss_rate: highest mean share of packets that is lost.
    """

    probability: float = 0.0
    noise: float = 0.7
    noise_snr_db: Sequence[float] = (5.0, 30.0)
    mu_law: float = 0.5
    a_law: float = 0.3
    loss: float = 0.5
    loss_rate: float = 0.05

    def __post_init__(self) -> None:
        _share(self, "probability", "noise", "mu_law", "a_law", "loss", "loss_rate")
        if self.mu_law + self.a_law > 1:
            raise ConfigurationError("mu_law and a_law are shares of one whole")
        if len(self.noise_snr_db) != 2 or self.noise_snr_db[0] > self.noise_snr_db[1]:  # noqa: PLR2004 - lowest, highest
            raise ConfigurationError("noise_snr_db is [lowest, highest]")


@dataclasses.dataclass(frozen=True, slots=True)
class CompatConfig:
    """What the authors' code did in 2021 and ours does not, for exact reproduction.

    Attributes:
        batch_statistics: waveform and output are normalised over the whole padded batch, and attention sees the
            padding: logits depend on the neighbours in the batch.
        speakers: IEMOCAP's speakers by a fixed position in the name, which is wrong for 65 utterances.
    """

    batch_statistics: bool = False
    speakers: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationConfig:
    """Temperature and abstention, both fitted on the validation split.

    Attributes:
        wanted_risk: the share of wrong labels among those given that is aimed at.
    """

    wanted_risk: float = 0.1

    def __post_init__(self) -> None:
        _share(self, "wanted_risk")


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} is {value!r}; it is one of {', '.join(allowed)}")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ConfigurationError(f"{name} is {getattr(config, name)}; it is positive")


def _share(config: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigurationError(f"{name} is {getattr(config, name)}; it is between 0 and 1")
