"""Masked prediction: the encoder hears an utterance with stretches masked, and predicts the clusters of masked frames.

Source: HuBERT (arXiv 2106.07447) and torchaudio's `HuBERTPretrainModel`; masks by transformers.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers.models.hubert.modeling_hubert import _compute_mask_indices

from callmood.training.config import Config
from callmood.training.loop import data
from callmood.training.loop.data import Clip, Draw
from callmood.training.loop.loop import autocast, seed
from callmood.worker.model.model import EmotionModel

Targets = NDArray[np.int64]
_CODE_WIDTH: Final = 256
_TEMPERATURE: Final = 0.1
_FEWEST_MASKS: Final = 2  # in an utterance that has room
_NO_TARGET: Final = -1
_MEASURED: Final = 2**32  # no step has this number: masks of validation are the same in each round


class Codes(nn.Module):
    """A head for pre-training: compares a projection of each frame with a learned code of each cluster."""

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, _CODE_WIDTH)
        self.codes = nn.Parameter(torch.rand(clusters, _CODE_WIDTH))

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [frames, clusters] of frames [frames, width]: cosines over a temperature, in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            projected = functional.normalize(self.projection(hidden.float()), dim=1)
            return projected @ functional.normalize(self.codes, dim=1).T / _TEMPERATURE


class Found(NamedTuple):
    """Logits [n, clusters] and clusters [n] of n masked frames, and the mean square of the front end's output."""

    logits: Tensor
    targets: Tensor
    energy: Tensor


class Masked(nn.Module):
    """The forward pass of pre-training, around a model whose head is `Codes`."""

    def __init__(self, model: EmotionModel, mask_prob: float, mask_length: int) -> None:
        super().__init__()
        self.model = model
        self._mask_prob = mask_prob
        self._mask_length = mask_length

    def forward(self, waveforms: Tensor, lengths: Tensor, targets: Tensor) -> Found:
        """Draw masks from numpy's global generator, and predict under them.

        Args:
            waveforms: see `EmotionModel.forward`.
            lengths: as there.
            targets: int64 [batch, frames], padded with -1.
        """
        features, valid = self.model.features(waveforms, lengths)
        masks = self.masks(valid)
        hidden = self.model.layers(features, valid, masks)[-1]
        # a resampled telephone line may have a frame more or less than the audio of the targets
        targets = functional.pad(targets, (0, masks.shape[1] - targets.shape[1]), value=_NO_TARGET)
        predicted = masks & (targets != _NO_TARGET)
        return Found(self.model.head(hidden[predicted]), targets[predicted], features[valid].float().pow(2).mean())

    def masks(self, valid: Tensor) -> Tensor:
        """Which of the valid frames are masked: bool [batch, frames]."""
        drawn = _compute_mask_indices(
            tuple(valid.shape), self._mask_prob, self._mask_length, attention_mask=valid.long(), min_masks=_FEWEST_MASKS
        )
        return torch.from_numpy(drawn).to(valid.device) & valid


class Batch(NamedTuple):
    """Arguments of `Masked.forward`."""

    waveforms: Tensor
    lengths: Tensor
    targets: Tensor

    @property
    def inputs(self) -> "Batch":
        """All of them."""
        return self

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Prediction:
    """Masked prediction as the loop's task.

    Args:
        model: the model to train; its head becomes `Codes`.
        settings: of the run.
        clips: utterances to train on, with their targets.
        valid: utterances to measure on.
    """

    def __init__(
        self,
        model: EmotionModel,
        settings: Config,
        clips: Sequence[tuple[Clip, Targets]],
        valid: Sequence[tuple[Clip, Targets]],
    ) -> None:
        options = settings.pretrain
        torch.manual_seed(settings.train.seed)
        model.head = Codes(model.encoder.config.hidden_size, options.clusters)  # type: ignore[assignment]
        self.net = Masked(model, options.mask_prob, options.mask_length)
        self.clips = [clip for clip, _ in clips]
        self._penalty = options.feature_penalty
        self._settings = settings
        self._pairs = clips
        self._valid = sorted(valid, key=lambda pair: pair[0].seconds)

    def to_train(self) -> None:
        """See `Task`."""
        self.net.train()

    def batches(self, draws: Iterable[list[Draw]]) -> Iterator[Batch]:
        """See `Task`; what is heard over a telephone line has the targets of the audio before it."""
        return iter(
            DataLoader(
                _Drawn(self._pairs, self._settings),
                batch_sampler=draws,
                collate_fn=_collate,
                num_workers=self._settings.train.workers,
                pin_memory=torch.cuda.is_available(),
            )
        )

    def loss(self, found: Found, batch: Batch) -> Tensor:  # noqa: ARG002 - of `Task`
        """Mean cross-entropy over masked frames, and the penalty of large features."""
        return functional.cross_entropy(found.logits, found.targets) + self._penalty * found.energy

    def measure(self) -> tuple[float, float]:
        """Share of masked frames with another cluster, and the mean negative log-likelihood of theirs."""
        self.net.eval()
        size, precision = self._settings.train.batch_size, self._settings.train.precision
        device = next(self.net.parameters()).device
        wrong, nll, frames = 0, 0.0, 0
        for start in range(0, len(self._valid), size):
            seed(_MEASURED, start)
            batch = _collate(self._valid[start : start + size]).to(device)
            with torch.inference_mode(), autocast(device, precision):
                logits, targets, _ = self.net(*batch)
            wrong += int((logits.argmax(dim=1) != targets).sum())
            nll += float(functional.cross_entropy(logits, targets, reduction="sum"))
            frames += len(targets)
        return wrong / frames, nll / frames


class _Drawn(Dataset[tuple[Clip, Targets]]):
    """Utterances as training hears them, by draw."""

    def __init__(self, pairs: Sequence[tuple[Clip, Targets]], settings: Config) -> None:
        self._pairs = pairs
        self._settings = settings

    def __getitem__(self, draw: Draw) -> tuple[Clip, Targets]:
        clip, targets = self._pairs[draw[1]]
        return clip.through(self._settings.augment, data.generator(self._settings.train.seed, draw)), targets


def _collate(pairs: Sequence[tuple[Clip, Targets]]) -> Batch:
    batch = data.collate([clip for clip, _ in pairs])
    targets: Any = [torch.from_numpy(targets) for _, targets in pairs]
    return Batch(
        batch.waveforms,
        batch.lengths,
        nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=_NO_TARGET),
    )
