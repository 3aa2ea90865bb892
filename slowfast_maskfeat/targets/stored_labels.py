"""Class distributions of stored label maps of images as prediction target."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.base import Encodable
from slowfast_maskfeat.targets.class_target import ClassTarget
from slowfast_maskfeat.targets.label_maps import (
    crop_label_maps,
    dense_label_maps,
    label_distributions,
)

_NO_MAPS = (
    "label maps (MASK.LABEL_MAPS) must come with the images of a data set, whose loader reads "
    "them; got clips without any"
)


class StoredLabelTarget(ClassTarget):
    """The part of a stored label map that a clip shows, with a distribution for each token.

    Source: Token Labeling (arXiv:2104.10858), see `label_maps`.
    """

    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        """Raise an error: pixels have no label maps, see `encode_batch`.

        Raises:
            ValueError: always.
        """
        raise ValueError(_NO_MAPS)

    @torch.no_grad()
    def encode_batch(self, batch: Encodable, grid: Grid) -> Tensor:
        """Return the class distributions of every token: (B, N, K), see `Target.encode_batch`.

        Raises:
            ValueError: the batch has no label maps, or tokens of several time steps.
        """
        if batch.label_maps is None or batch.crops is None:
            raise ValueError(_NO_MAPS)
        if grid.t != 1:
            raise ValueError(f"label maps must be of images, whose grid has t = 1, got {grid}")
        maps = dense_label_maps(batch.label_maps, self.num_classes)
        return label_distributions(
            crop_label_maps(maps, batch.crops, batch.flips, (grid.h, grid.w))
        )
