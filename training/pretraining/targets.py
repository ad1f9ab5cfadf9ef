"""Clusters of frames: k-means on MFCCs, or on what a layer of an encoder makes of the audio."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from callmood.schemas.common import Encoding
from callmood.training import wav
from callmood.training.loop import data
from callmood.training.loop.data import Clip
from callmood.training.options import PretrainConfig
from callmood.training.pretraining import mfcc
from callmood.training.pretraining.masked import Targets
from callmood.worker.errors import ConfigurationError
from callmood.worker.model import audio
from callmood.worker.model.model import EmotionModel

Frames = NDArray[np.float32]
_BATCH: Final = 10_000  # this and the rest as HuBERT's learn_kmeans.py in fairseq
_FITTING: Final = {"batch_size": _BATCH, "n_init": 20, "max_no_improvement": 100, "reassignment_ratio": 0.0, "tol": 0.0}


class Clusters:
    """Frames of utterances, and the cluster of each.

    Args:
        model: gives the number of frames; and their features, if `config.layer` is not 0.
        config: which features, and how many clusters.
        batch_size: utterances that the model hears at a time.

    Raises:
        ConfigurationError: the encoder has no such layer, or its frames do not fit those of MFCCs.
    """

    def __init__(self, model: EmotionModel, config: PretrainConfig, batch_size: int) -> None:
        layers = model.encoder.config.num_hidden_layers
        if config.layer > layers:
            raise ConfigurationError(f"pretrain.layer is {config.layer}; the encoder has {layers} layers")
        self._model = model.eval()
        self._config = config
        self._batch_size = batch_size
        self._step, uneven = divmod(int(np.prod(model.encoder.config.conv_stride)), mfcc.HOP)
        if not config.layer and (uneven or model.min_samples < mfcc.WINDOW):
            raise ConfigurationError(
                "MFCCs have frames of 25 ms every 10 ms, the encoder has others: set pretrain.layer"
            )
        # The window in the middle of what a frame of the encoder hears.
        self._first = (model.min_samples - mfcc.WINDOW) // 2 // mfcc.HOP

    def of(self, clips: Sequence[Clip], seed: int) -> list[Targets]:
        """Find clusters on a random part of the utterances; the cluster of each frame of all of them.

        Raises:
            ConfigurationError: the part has fewer frames than there are clusters, or scikit-learn is missing.
        """
        try:
            from sklearn.cluster import MiniBatchKMeans  # noqa: PLC0415 - an extra, and slow to import
        except ImportError as error:
            raise ConfigurationError("clusters need scikit-learn: pip install 'callmood[train]'") from error
        part: list[Clip] = []
        left_s = self._config.cluster_hours * 3600
        for index in np.random.default_rng(seed).permutation(len(clips)):
            if left_s <= 0:
                break
            part.append(clips[index])
            left_s -= clips[index].seconds
        frames = self._together(part)
        if len(frames) < self._config.clusters:
            raise ConfigurationError(f"{len(frames)} frames for {self._config.clusters} clusters: use more speech")
        kmeans: Any = MiniBatchKMeans(self._config.clusters, random_state=seed, **_FITTING).fit(frames)
        targets: dict[int, Targets] = {
            index: kmeans.predict(found).astype(np.int64) for index, found in self._frames(clips)
        }
        return [targets[index] for index in range(len(clips))]

    def _together(self, clips: Sequence[Clip]) -> Frames:
        """Features of all frames [frames, width], in one array that is never copied: they are most of the memory."""
        samples = [audio.resampled(len(clip.audio) // wav.SAMPLE_BYTES, clip.rate_hz) for clip in clips]
        width = self._model.encoder.config.hidden_size if self._config.layer else mfcc.WIDTH
        together = np.empty((int(self._model.frames(torch.tensor(samples)).sum()), width), np.float32)
        end = 0
        for _, found in self._frames(clips):
            together[end : end + len(found)] = found
            end += len(found)
        return together[:end]

    def _frames(self, clips: Sequence[Clip]) -> Iterator[tuple[int, Frames]]:
        """Index of each clip, and its features [frames, width]."""
        return self._of_layer(clips) if self._config.layer else self._of_mfcc(clips)

    def _of_mfcc(self, clips: Sequence[Clip]) -> Iterator[tuple[int, Frames]]:
        for index, clip in enumerate(clips):
            (waveform,), lengths = audio.prepare([(Encoding.S16LE, clip.rate_hz, clip.audio)])
            frames = int(self._model.frames(lengths)[0])
            yield index, mfcc.mfcc(waveform)[self._first :: self._step][:frames]

    @torch.inference_mode()
    def _of_layer(self, clips: Sequence[Clip]) -> Iterator[tuple[int, Frames]]:
        device = self._model.encoder.device
        for indices, batch in data.evaluation_batches(clips, batch_size=self._batch_size):
            features, valid = self._model.features(batch.waveforms.to(device), batch.lengths.to(device))
            layer = self._model.layers(features, valid)[self._config.layer]
            for index, found, count in zip(indices, layer.cpu().numpy(), valid.sum(dim=1).tolist(), strict=True):
                yield index, found[:count]
