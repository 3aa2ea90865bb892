"""Targets of masked prediction, each with its loss."""

from __future__ import annotations

from slowfast_maskfeat.targets.base import Target
from slowfast_maskfeat.targets.class_target import ClassTarget
from slowfast_maskfeat.targets.features import FeatureTarget
from slowfast_maskfeat.targets.hog import HOGTarget
from slowfast_maskfeat.targets.pixels import PixelTarget
from slowfast_maskfeat.targets.pseudo_labels import PseudoLabelTarget
from slowfast_maskfeat.targets.stored_labels import StoredLabelTarget
from slowfast_maskfeat.targets.tokens import TokenTarget

__all__ = [
    "ClassTarget",
    "FeatureTarget",
    "HOGTarget",
    "PixelTarget",
    "PseudoLabelTarget",
    "StoredLabelTarget",
    "Target",
    "TokenTarget",
]
