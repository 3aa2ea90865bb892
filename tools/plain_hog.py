"""Textbook HOG: convolve, scatter the magnitudes over a bin axis, pool, normalize.

Tests and `tools/benchmark.py` compare the one-pass implementation of
`slowfast_maskfeat.targets.hog` with it. It stores a (C, bins, H, W) tensor per image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.hog import HOGTarget


def plain_hog(images: Tensor, *, bins: int = 9, cell: int = 8, window: int = 0) -> Tensor:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005; MaskFeat, section 3.2).

    Args:
        images: (N, C, H, W), any dtype; computed in float32, or in float64 for float64 input.
        bins: number of unsigned orientations.
        cell: side of a cell in pixels; divides H and W.
        window: side in pixels of the Gaussian windows that tile the image; 0 for none.

    Returns:
        (N, C, bins, H / cell, W / cell), of unit L2 norm over `bins` or zero.
    """
    num_channels, height, width = images.shape[1:]
    images = images if images.dtype == torch.float64 else images.float()
    sobel = images.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    kernel = sobel.repeat(num_channels, 1, 1, 1)  # (C, 1, 3, 3)
    across = F.conv2d(padded, kernel, groups=num_channels)
    down = F.conv2d(padded, kernel.transpose(2, 3), groups=num_channels)
    magnitude = torch.stack((across, down), dim=-1).norm(dim=-1)
    if window:
        offset = torch.arange(window, dtype=images.dtype, device=images.device) - (window - 1) / 2
        profile = torch.exp(-0.5 * (offset / (window // 2)) ** 2)
        magnitude = magnitude * torch.outer(
            profile.repeat(height // window), profile.repeat(width // window)
        )
    phase = torch.atan2(across, down) / math.pi * bins
    index = phase.floor().long() % bins
    spread = images.new_zeros((*images.shape[:2], bins, height, width))
    spread.scatter_(2, index.unsqueeze(2), magnitude.unsqueeze(2))
    pooled = F.avg_pool2d(spread.flatten(1, 2), cell)  # (N, C * bins, H / cell, W / cell)
    return F.normalize(pooled.unflatten(1, (num_channels, bins)), dim=2)


class PlainHOGTarget(HOGTarget):
    """The HOG target computed by `plain_hog`."""

    @torch.no_grad()
    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        """Encode clips as in `HOGTarget.encode`."""
        frames = clips[:, :, :: self.token_size[0]].transpose(1, 2).flatten(0, 1)
        with torch.autocast(clips.device.type, enabled=False):  # which would convolve coarsely
            cells = plain_hog(frames, bins=self.bins, cell=self.cell, window=self.window)
        rows, columns = cells.shape[3] // grid.h, cells.shape[4] // grid.w
        cells = cells.view(*cells.shape[:3], grid.h, rows, grid.w, columns)
        tokens = cells.permute(0, 3, 5, 1, 2, 4, 6)
        return tokens.reshape(len(clips), grid.num_tokens, self.dim)
