"""Mask generators: (grid, ratio, generator) -> bool (t, h, w), True = masked."""

from __future__ import annotations

from slowfast_maskfeat.masks.bevt import bevt_mask
from slowfast_maskfeat.masks.block import block_mask
from slowfast_maskfeat.masks.cube import cube_mask
from slowfast_maskfeat.masks.frame import frame_mask
from slowfast_maskfeat.masks.random import random_mask
from slowfast_maskfeat.masks.sampler import MaskSampler
from slowfast_maskfeat.masks.tube import tube_mask

__all__ = [
    "MaskSampler",
    "bevt_mask",
    "block_mask",
    "cube_mask",
    "frame_mask",
    "random_mask",
    "tube_mask",
]
