"""Augmentation of uint8 frames: crops, RandAugment, color, erasing, mixing, normalization."""

from __future__ import annotations

from slowfast_maskfeat.augment.color_recipe import ColorRecipe
from slowfast_maskfeat.augment.mixing import Mix
from slowfast_maskfeat.augment.normalize import normalize
from slowfast_maskfeat.augment.randaugment import RandAugment, parse_policy
from slowfast_maskfeat.augment.random_erasing import EraseSampler
from slowfast_maskfeat.augment.transforms import (
    TestTransform,
    TrainTransform,
    WholeFrameTransform,
)

__all__ = [
    "ColorRecipe",
    "EraseSampler",
    "Mix",
    "RandAugment",
    "TestTransform",
    "TrainTransform",
    "WholeFrameTransform",
    "normalize",
    "parse_policy",
]
