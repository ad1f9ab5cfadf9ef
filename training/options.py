"""The options of a run, part by part: plain values with defaults. Each part refuses values that cannot work."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from callmood.worker.errors import ConfigurationError

TRAINABLE = ("all", "encoder", "head")
SCHEDULES = ("newbob", "step", "constant")
PRECISIONS = ("fp32", "bf16")
BALANCES = ("none", "classes", "classes_and_corpora")
HEADS = ("mean_linear", "hf_superb", "attentive_statistics", "attention_pooling_cnn")
LOSSES = ("cross_entropy", "focal")
WEIGHTS = ("none", "inverse_frequency")
_SHARES = ("dropout", "layerdrop", "_prob")  # how transformers' names of probabilities end
_COUNTS = (  # and begin
    *("num_", "hidden_size", "intermediate_size", "conv_dim", "conv_kernel", "conv_stride"),
    *("mask_time_length", "mask_feature_length"),
)
_SPEEDS = (0.25, 4.0)


@dataclasses.dataclass(frozen=True, slots=True)
class CorpusConfig:
    """The synthetic corpus, for configurations that make one.

    Attributes:
        seed: seed of all random draws.
        voices_per_split: highest number of voices in a split; no voice is in two splits.
        languages_per_voice: languages of each voice, among those in `synthetic.toml`.
        train_utterances: training utterances per voice, language and emotion.
        valid_utterances: validation utterances per voice, language and emotion.
        test_utterances: test utterances per voice, language and emotion.
    """

    seed: int
    voices_per_split: int
    languages_per_voice: int
    train_utterances: int
    valid_utterances: int
    test_utterances: int

    def __post_init__(self) -> None:
        _at_least_0(self, "seed")
        _positive(self, "voices_per_split", "languages_per_voice")
        _positive(self, "train_utterances", "valid_utterances", "test_utterances")

    def utterances(self, split: str) -> int:
        """Utterances per voice, language and emotion of a split."""
        return {"train": self.train_utterances, "valid": self.valid_utterances, "test": self.test_utterances}[split]


@dataclasses.dataclass(frozen=True, slots=True)
class RowConfig:
    """A row of a published table.

    Attributes:
        published: published accuracy by protocol, percent; the row runs these protocols.
        band: largest difference from the published accuracy at which a row counts as reproduced, points.
    """

    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    band: float = 1.5

    def __post_init__(self) -> None:
        _at_least_0(self, "band")


@dataclasses.dataclass(frozen=True, slots=True)
class ModelConfig:
    """The model.

    Attributes:
        id: name of the model in every published utterance.
        version: version of the model.
        summary: first paragraph of the model card.
        pretrained: encoder with which training starts: a hub id, `hf://OWNER/NAME@COMMIT`, or a folder; of a bundle,
            its head, too, if it is of the same kind; empty: random weights.
        encoder: transformers configuration of the encoder; with `pretrained`, only the values to change.
        head: `mean_linear` (the paper's), `hf_superb` (SUPERB's: weighted sum of layers, projector), or
            `attentive_statistics`; `attention_pooling_cnn` is a complete network without an encoder.
        normalize: scale each waveform to zero mean and unit variance; default: as the pre-trained encoder's
            preprocessor does.
        normalize_eps: constant added to the variance.
        output_norm: scale the encoder's output to zero mean and unit variance over each utterance; for `mean_linear`.
        filter_bank: initialise the first convolution as a filter bank; for encoders with random weights.
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
        _positive(self, "normalize_eps")
        if not self.id:
            raise ConfigurationError("id is empty: each published utterance names its model")
        for name, value in self.encoder.items():
            if name.endswith(_SHARES):
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                if not is_number or not 0 <= value <= 1:
                    raise ConfigurationError(f"encoder.{name} is {value!r}: use a number from 0 to 1")
            elif name.startswith(_COUNTS):
                _counts(name, value)


def _counts(name: str, value: Any) -> None:
    for one in value if isinstance(value, list) else [value]:
        if type(one) is not int or one < 1:
            raise ConfigurationError(f"encoder.{name} is {value!r}: use whole numbers of at least 1")


@dataclasses.dataclass(frozen=True, slots=True)
class TrainConfig:
    """The training loop.

    Attributes:
        seed: seed of all random draws.
        epochs: passes over the training split; 0: train for `steps`.
        batch_size: utterances in a batch on one device.
        train: parameters that learn: `all`, `encoder` (all but the CNN: the paper's partial fine-tuning), `head`.
        encoder_lr: learning rate of the encoder.
        head_lr: learning rate of the head.
        steps: optimiser steps, instead of `epochs`.
        evaluate_steps: optimiser steps between validations; 0: validate after each pass.
        checkpoint_steps: optimiser steps between checkpoints for `--resume`; each validation writes one, too.
        accumulate: batches whose gradients make one step.
        bucket_batches: batches of utterances that are sorted by length together; 1: no sorting.
        balance: how often a pass draws clips: each clip once (`none`), each class equally often (`classes`), or also
            each corpus or list equally often within a class (`classes_and_corpora`); the number of clips is the same.
        crop_s: length of random crops of longer utterances, s; 0: whole utterances.
        speeds: speed factors, drawn at random for each clip; the pitch changes, too.
        freeze_layers: number of transformer layers, from the bottom, that do not learn.
        layer_decay: ratio of a transformer layer's rate to that of the layer above; the top layer has `encoder_lr`.
        weight_decay: weight decay of Adam.
        warmup_steps: optimiser steps over which the rates rise linearly from 0.
        max_grad_norm: largest norm of all gradients together; larger ones are scaled down to it.
        schedule: `newbob` (by validation error), `step` (every `anneal_epochs`), `constant`.
        anneal_factor: factor by which the schedule multiplies the rates.
        anneal_threshold: relative improvement below which `newbob` multiplies the rates.
        anneal_epochs: with `step`, validations between two multiplications of the rates.
        precision: `fp32`, or `bf16` for matrix products (weights stay float32).
        gradient_checkpointing: compute activations again instead of keeping them: less memory, a third more work.
        workers: number of processes that read and augment; 0: the training process does it.
        deterministic: use torch's deterministic algorithms where a GPU has them; slower.
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
    balance: str = "none"
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
        _one_of("balance", self.balance, BALANCES)
        _positive(
            self, "batch_size", "checkpoint_steps", "accumulate", "bucket_batches", "max_grad_norm", "layer_decay"
        )
        _positive(self, "anneal_factor", "anneal_epochs")
        _at_least_0(self, "seed", "epochs", "steps", "evaluate_steps", "warmup_steps", "workers", "freeze_layers")
        _at_least_0(self, "encoder_lr", "head_lr", "crop_s", "weight_decay", "anneal_threshold")
        if (self.epochs > 0) is (self.steps > 0):
            raise ConfigurationError("give epochs or steps; the other is 0")
        lowest, highest = _SPEEDS
        if not self.speeds or not all(lowest <= speed <= highest for speed in self.speeds):
            raise ConfigurationError(f"speeds is {list(self.speeds)}: give at least one, from {lowest} to {highest:g}")
        if self.anneal_factor > 1:
            raise ConfigurationError(f"anneal_factor is {self.anneal_factor}: rates do not rise, use at most 1")
        if self.train == "head" and (self.freeze_layers or self.layer_decay != 1.0):
            raise ConfigurationError('freeze_layers and layer_decay have no effect with train = "head": remove them')


@dataclasses.dataclass(frozen=True, slots=True)
class LossConfig:
    """The loss.

    Attributes:
        kind: `cross_entropy`, or `focal`: cross-entropy times (1 - p)^gamma.
        focal_gamma: gamma of the focal loss.
        class_weights: `none`, or `inverse_frequency`: rare classes have more weight; the mean weight is 1.
        label_smoothing: share of each target that is spread evenly over all classes.
        soft_labels: use the annotators' votes as targets where the manifest has them.
        dimensions: weight of an auxiliary task, in training only: the prediction of valence, arousal and dominance
            where the manifest has them, with one minus the concordance (CCC) as its loss; 0: no such task.
    """

    kind: str = "cross_entropy"
    focal_gamma: float = 2.0
    class_weights: str = "none"
    label_smoothing: float = 0.0
    soft_labels: bool = False
    dimensions: float = 0.0

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, LOSSES)
        _one_of("class_weights", self.class_weights, WEIGHTS)
        _share(self, "label_smoothing")
        if self.label_smoothing == 1:
            raise ConfigurationError("label_smoothing is 1: nothing of the labels would be left")
        _at_least_0(self, "focal_gamma", "dimensions")


@dataclasses.dataclass(frozen=True, slots=True)
class LoraConfig:
    """Low-rank adapters, which learn instead of the weights of the transformer's projections.

    Attributes:
        rank: rank of each adapter; 0: no adapters.
        alpha: scale of the adapters: their product is multiplied by `alpha / rank`.
    """

    rank: int = 0
    alpha: float = 16.0

    def __post_init__(self) -> None:
        _at_least_0(self, "rank")
        _positive(self, "alpha")


@dataclasses.dataclass(frozen=True, slots=True)
class AugmentConfig:
    """The telephone chain on training clips; each step has its own probability within the chosen clips.

    Attributes:
        probability: share of clips that go through the chain.
        noise: share of these clips that get noise.
        noise_snr_db: lowest and highest ratio of speech to noise, dB.
        mu_law: share of these clips that go through mu-law.
        a_law: share of these clips that go through A-law; the others stay 16-bit.
        loss: share of these clips that lose packets of 20 ms, in bursts, replaced by silence or by the last packet.
        loss_rate: highest mean share of packets lost.
        sounds: share of these clips that get a tone, a tune or a noise before, after or behind the speech.
    """

    probability: float = 0.0
    noise: float = 0.7
    noise_snr_db: Sequence[float] = (5.0, 30.0)
    mu_law: float = 0.5
    a_law: float = 0.3
    loss: float = 0.5
    loss_rate: float = 0.05
    sounds: float = 0.0

    def __post_init__(self) -> None:
        _share(self, "probability", "noise", "mu_law", "a_law", "loss", "loss_rate", "sounds")
        if self.mu_law + self.a_law > 1:
            raise ConfigurationError(f"mu_law and a_law add up to {self.mu_law + self.a_law:g}: use at most 1")
        are_numbers = all(map(math.isfinite, self.noise_snr_db))
        if len(self.noise_snr_db) != 2 or not are_numbers or self.noise_snr_db[0] > self.noise_snr_db[1]:  # noqa: PLR2004 - lowest, highest
            raise ConfigurationError(f"noise_snr_db is {list(self.noise_snr_db)}: use [lowest, highest]")


@dataclasses.dataclass(frozen=True, slots=True)
class PretrainConfig:
    """Pre-training of an encoder by `callmood-train pretrain`, with the model, rates and batches of the other tables.

    Attributes:
        layer: transformer layer whose output is clustered; 0: 39 MFCCs.
        teacher: encoder whose layer that is, as `model.pretrained`; empty: the encoder that the run starts from.
        clusters: number of clusters, which the encoder predicts.
        cluster_hours: highest amount of speech, drawn at random, on which clusters are found, h; all of it is kept in
            memory: 0.6 GB an hour for a layer of 768 values.
        mask_prob: number of masked frames, over that of all frames, if no two masks overlapped.
        mask_length: frames of a mask; shorter utterances are dropped.
        feature_penalty: weight of the mean square of the CNN's output in the loss.
        valid_share: share of utterances that measure progress, if the list has no split `valid`.
    """

    layer: int = 0
    teacher: str = ""
    clusters: int = 100
    cluster_hours: float = 1.0
    mask_prob: float = 0.8
    mask_length: int = 10
    feature_penalty: float = 10.0
    valid_share: float = 0.05

    def __post_init__(self) -> None:
        _at_least_0(self, "layer", "feature_penalty")
        _positive(self, "clusters", "cluster_hours", "mask_prob", "mask_length", "valid_share")
        _share(self, "mask_prob", "valid_share")
        if self.clusters == 1:
            raise ConfigurationError("clusters is 1: there is nothing to predict")
        if self.teacher and not self.layer:
            raise ConfigurationError("teacher has no effect with layer = 0, which are MFCCs: remove it, or set layer")


@dataclasses.dataclass(frozen=True, slots=True)
class CompatConfig:
    """Behaviour of the authors' code of 2021 that ours leaves out; for exact reproduction.

    Attributes:
        batch_statistics: normalise waveform and output over the whole padded batch, and let attention see the padding:
            logits depend on the neighbours in the batch.
        speakers: read IEMOCAP's speaker at a fixed position in the file name, which is wrong for 65 utterances.
    """

    batch_statistics: bool = False
    speakers: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationConfig:
    """Temperature and abstention, both fitted on the validation split.

    Attributes:
        wanted_risk: highest share of wrong labels among the labels of new utterances like those of the validation
            split.
        confidence: probability with which the threshold keeps `wanted_risk`; with too few validation utterances, the
            model always abstains.
    """

    wanted_risk: float = 0.1
    confidence: float = 0.95

    def __post_init__(self) -> None:
        _share(self, "wanted_risk")
        if not 0 < self.confidence < 1:
            raise ConfigurationError(f"confidence is {self.confidence}: use a number between 0 and 1")


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"unknown {name} {value!r}: use {', '.join(allowed)}")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise ConfigurationError(f"{name} is {getattr(config, name)}: use a positive number")


def _at_least_0(config: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ConfigurationError(f"{name} is {getattr(config, name)}: use 0 or more")


def _share(config: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigurationError(f"{name} is {getattr(config, name)}: use a number from 0 to 1")
