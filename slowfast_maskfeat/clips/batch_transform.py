"""Transforms of a whole batch on the device, before it is split into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from slowfast_maskfeat.augment.mixing import Mix
from slowfast_maskfeat.augment.normalize import normalize
from slowfast_maskfeat.augment.random_erasing import erase
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.clips.device_crop import DeviceCrop, crop_views

# Separates the random stream of batches from those of samples with the same seed.
_STREAM = 0x6D6978


@dataclass(frozen=True, kw_only=True)
class BatchTransform:
    """Crop on the device, normalization, random erasing, and mixup or cutmix.

    Attributes:
        crops: of the clips of each kind of views that workers leave uncropped; empty if they crop.
        mean: per-channel mean of the normalization.
        std: per-channel standard deviation of the normalization.
        erase_mode: fill of erased rectangles, see `erase`.
        mix: mixup and cutmix, or None.
        seed: seed of the random draws.
    """

    mean: Sequence[float]
    std: Sequence[float]
    crops: Sequence[DeviceCrop] = ()
    erase_mode: str = "pixel"
    mix: Mix | None = None
    seed: int = 0

    def __call__(
        self, batch: ClipBatch, device: torch.device, *, epoch: int, step: int
    ) -> ClipBatch:
        """Transform this process's batch.

        Draws are seeded with (seed, epoch, step) and the same in all processes.

        Args:
            batch: uint8 clips on the CPU.
            device: device of the result.
            epoch: index of the epoch, from 0.
            step: index of the step in the epoch, from 0.

        Returns:
            The batch on the device, cropped. With several views per sample, and without erasing and
            mixing, clips stay uint8: the task normalizes them. Else clips are float32 and labels,
            if mixed, (B, K).

        Raises:
            ValueError: there are no labels to mix.
        """
        boxes = batch.erase
        batch = replace(batch, erase=None).to(device)
        if self.crops:
            batch = crop_views(batch, self.crops)
        if batch.has_several_views or (boxes is None and self.mix is None):
            return batch
        clips, labels = normalize(batch.clips, self.mean, self.std), batch.labels
        if boxes is not None:
            clips = erase(clips, boxes, self.erase_mode)
        if self.mix is not None:
            if labels is None:
                raise ValueError(
                    "MIXUP.ENABLE must be False for an annotation file without labels, got True"
                )
            generator = np.random.default_rng((self.seed, epoch, step, _STREAM))
            draw = self.mix.draw(clips.shape[-2], clips.shape[-1], generator)
            clips, labels = self.mix.clips(clips, draw), self.mix.labels(labels, draw)
        return replace(batch, clips=clips, labels=labels)
