"""Transforms of a whole batch on the device, before it is split into parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from slowfast_maskfeat.augment.mixing import Mix
from slowfast_maskfeat.augment.normalize import normalize
from slowfast_maskfeat.augment.random_erasing import erase
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.clips.device_crop import DeviceCrop

# Keeps the draws of batches apart from those of samples with the same seed.
_STREAM = 0x6D6978


@dataclass(frozen=True, kw_only=True)
class BatchTransform:
    """Crop of what workers left uncropped, normalization, random erasing, mixup or cutmix.

    Attributes:
        crop: of clips that come uncropped.
        mean: per channel, of the normalization.
        std: per channel, of the normalization.
        erase_mode: what erased rectangles are filled with.
        mix: mixup and cutmix, or None.
        seed: of the draws of a batch.
    """

    mean: Sequence[float]
    std: Sequence[float]
    crop: DeviceCrop | None = None
    erase_mode: str = "pixel"
    mix: Mix | None = None
    seed: int = 0

    def __call__(
        self, batch: ClipBatch, device: torch.device, *, epoch: int, step: int
    ) -> ClipBatch:
        """Transform a batch of this process.

        The draw comes from (seed, epoch, step), the same in all processes.

        Args:
            batch: on the CPU, uint8.
            device: of the result.
            epoch: from 0.
            step: of the epoch, from 0.

        Returns:
            The batch on the device. Several views of a sample stay as they are. Of one view, with
            float32 clips and, with `mix`, labels (B, K). Without
            erasing and mixing the clips stay uint8: the task normalizes them.
        """
        if batch.has_several_views:
            return batch.to(device)
        boxes = batch.erase
        batch = replace(batch, erase=None).to(device)
        if self.crop is not None:
            batch = self.crop(batch)
        if boxes is None and self.mix is None:
            return batch
        clips, labels = normalize(batch.clips, self.mean, self.std), batch.labels
        if boxes is not None:
            clips = erase(clips, boxes, self.erase_mode)
        if self.mix is not None:
            if labels is None:
                raise ValueError("MIXUP.ENABLE needs labels, but the annotation file has none")
            generator = np.random.default_rng((self.seed, epoch, step, _STREAM))
            draw = self.mix.draw(clips.shape[-2], clips.shape[-1], generator)
            clips, labels = self.mix.clips(clips, draw), self.mix.labels(labels, draw)
        return replace(batch, clips=clips, labels=labels)
