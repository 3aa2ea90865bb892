"""Targets of masked prediction, each with its loss."""

from __future__ import annotations

from slowfast_maskfeat.targets.base import Target
from slowfast_maskfeat.targets.hog import HOGTarget
from slowfast_maskfeat.targets.pixels import PixelTarget

__all__ = ["HOGTarget", "PixelTarget", "Target"]
