"""What masked tokens are to be predicted as leaves this room: targets, each with its loss."""

from __future__ import annotations

from slowfast_maskfeat.targets.base import Target
from slowfast_maskfeat.targets.hog import HOGTarget
from slowfast_maskfeat.targets.pixels import PixelTarget

__all__ = ["HOGTarget", "PixelTarget", "Target"]
