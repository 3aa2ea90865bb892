"""Histograms of oriented gradients as prediction target.

HOG: Dalal and Triggs, CVPR 2005. As target of masked prediction: MaskFeat, arXiv:2112.09133,
section 3.2: 9 unsigned orientations, cells of 8x8 pixels, each color channel separately, each
histogram scaled to unit length.

The textbook form scatters the magnitudes into a (C, bins, H, W) tensor and pools it. Here gradients
are differences of slices, and magnitudes are summed directly into their cell and bin. From uint8
values the gradients are exact integers, so ties are exact too: a pixel without horizontal gradient
is in bin 0 whatever the sign of the zero, and a flat cell is all zeros. The clip needs no
normalization, since each histogram is normalized.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.augment.to_device import to_device
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.base import Target, check_clip_size

# Pixels per chunk. On a CPU the intermediate planes should stay in the cache; on other devices few
# large kernels are faster, and the limit only bounds the memory: about 80 bytes per pixel.
_CHUNK_PIXELS_CPU = 2**20
_CHUNK_PIXELS = 2**23


class HOGTarget(Target):
    """HOG of the first frame of every token: the concatenated cells of the token.

    Attributes:
        token_size: frames, rows and columns of pixels per token.
        bins: orientations.
        cell: pixels per side of a cell.
        window: side of the Gaussian windows in pixels; 0 for none.
        fused: computes the tokens of frames (B, t, C, H, W) in place of `hog`; None: nothing does.
    """

    def __init__(
        self,
        token_size: Sequence[int],
        *,
        bins: int = 9,
        cell: int = 8,
        window: int = 0,
        num_channels: int = 3,
    ) -> None:
        super().__init__()
        frames, rows, columns = token_size
        self.token_size = (frames, rows, columns)
        self.bins = bins
        self.cell = cell
        self.window = window
        self.num_channels = num_channels
        self.fused: nn.Module | None = None
        self._dim = hog_width(token_size, bins=bins, cell=cell, num_channels=num_channels)

    @property
    def dim(self) -> int:
        """Channels x bins x cells per token."""
        return self._dim

    @torch.no_grad()
    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        """Compute the HOG of every token, in the order (channel, bin, cell row, cell column).

        Args:
            clips: (B, C, T, H, W), uint8 (preferred: exact) or float.
            grid: token grid of the prediction.

        Returns:
            (B, N, dim) float32.

        Raises:
            ValueError: the clip does not consist of `grid` tokens of `token_size`.
        """
        check_clip_size(clips, grid, self.token_size)
        frames = clips[:, :, :: self.token_size[0]].transpose(1, 2)  # (B, t, C, H, W)
        if self.fused is not None:
            return self.fused(frames)
        cells = hog(frames.flatten(0, 1), bins=self.bins, cell=self.cell, window=self.window)
        num_rows, num_columns = cells.shape[3] // grid.h, cells.shape[4] // grid.w
        cells = cells.view(*cells.shape[:3], grid.h, num_rows, grid.w, num_columns)
        # (B * t, C, bins, h, cell row, w, cell column) -> (B * t, h, w, C, bins, row, column)
        tokens = cells.permute(0, 3, 5, 1, 2, 4, 6)
        return tokens.reshape(len(clips), grid.num_tokens, self.dim)

    def to_cells(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Arrange tokens, targets or predictions, as planes of cells: the inverse of `encode`.

        Args:
            tokens: (B, N, dim).
            grid: of the tokens.

        Returns:
            (B, t, C, bins, rows of cells, columns of cells).
        """
        _, rows, columns = self.token_size
        inside = (self.num_channels, self.bins, rows // self.cell, columns // self.cell)
        cells = tokens.reshape(len(tokens), *grid, *inside).permute(0, 1, 4, 5, 2, 6, 3, 7)
        return cells.reshape(
            len(tokens), grid.t, *inside[:2], grid.h * inside[2], grid.w * inside[3]
        )

    def extra_repr(self) -> str:
        """Return the text that `print` shows for the module."""
        return (
            f"token_size={self.token_size}, bins={self.bins}, cell={self.cell}, "
            f"window={self.window}, dim={self.dim}"
        )


def hog_width(token_size: Sequence[int], *, bins: int, cell: int, num_channels: int) -> int:
    """Count the HOG values of a token: channels x bins x cells.

    Args:
        token_size: frames, rows and columns of pixels per token.
        bins: orientations.
        cell: pixels per side of a cell.
        num_channels: of a clip.

    Raises:
        ValueError: a token does not consist of whole cells.
    """
    _, rows, columns = token_size
    if rows % cell or columns % cell:
        raise ValueError(
            f"MASK.HOG_CELL must divide the {rows}x{columns} pixels of a token at every depth of "
            f"MASK.PRETRAIN_DEPTH, got {cell}; predict deeper, where tokens are larger"
        )
    return num_channels * bins * (rows // cell) * (columns // cell)


@torch.no_grad()
def hog(images: Tensor, bins: int = 9, cell: int = 8, window: int = 0) -> Tensor:
    """Compute histograms of oriented gradients, in float32 whatever the dtype of the images.

    Args:
        images: (N, C, H, W), uint8 (exact) or float, with any strides.
        bins: unsigned orientations; bin k holds gradients at k to k + 1 times 180 / bins degrees
            from the vertical.
        cell: pixels per side of a cell; divides H and W.
        window: side in pixels of the Gaussian windows that tile the image and weight its
            magnitudes (standard deviation: half the side); 0 for none; divides H and W.

    Returns:
        (N, C, bins, H / cell, W / cell) float32, of unit length over `bins`, or zero where flat.

    Raises:
        ValueError: the images do not have four axes, their size is not a multiple of `cell` and
            `window`, or `bins`, `cell` or `window` is too small.
    """
    _check_arguments(images, bins, cell, window)
    _, num_channels, height, width = images.shape
    weight = _gaussian_weight(height, width, window, images.device) if window else None
    is_cpu = images.device.type == "cpu"
    chunk_pixels = _CHUNK_PIXELS_CPU if is_cpu else _CHUNK_PIXELS
    chunk = max(1, chunk_pixels // max(1, num_channels * height * width))
    if is_cpu:
        first_bin = _first_bin_of_cells(height, width, cell, bins + 1)
    else:
        thresholds = to_device(_sorted_thresholds(bins), torch.float32, images.device)
    sums = []
    for part in images.split(chunk):
        magnitude, ratio = _polar_gradients(part)
        if weight is not None:
            magnitude.mul_(weight)
        if is_cpu:
            position = _position_of_ratio(ratio, bins)
            sums.append(_sums_by_scatter(magnitude, position, first_bin, cell, bins + 1))
        else:
            sums.append(_sums_by_bin(magnitude, ratio, thresholds, cell, bins + 1))
    histograms = F.normalize(_fold_ends(torch.cat(sums), bins), dim=-1)
    return histograms.movedim(-1, 2).contiguous()


def _check_arguments(images: Tensor, bins: int, cell: int, window: int) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must have the axes (N, C, H, W), got {tuple(images.shape)}")
    if bins < 2 or cell < 2 or window < 0:
        raise ValueError(
            "HOG must have bins >= 2, cell >= 2 and window >= 0, got "
            f"bins={bins}, cell={cell}, window={window}"
        )
    for name, side in (("height", images.shape[2]), ("width", images.shape[3])):
        for option, multiple in (("cell", cell), ("window", window)):
            if multiple and (side % multiple or side == 0):
                raise ValueError(
                    f"the {name} of images must be a multiple of {option}={multiple} for HOG, got "
                    f"{side}"
                )


def _gaussian_weight(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """Return tiled Gaussian windows, (H, W); the normalization removes their common scale."""
    profile = window_profile(window, device)
    return torch.outer(profile.repeat(height // window), profile.repeat(width // window))


def window_profile(window: int, device: torch.device) -> Tensor:
    """Compute a Gaussian window along one axis.

    Args:
        window: its side in pixels.
        device: of the result.

    Returns:
        (window,) float32, at most 1; the window is the product of two of them.
    """
    offset = torch.arange(window, dtype=torch.float32, device=device) - (window - 1) / 2
    return torch.exp(-0.5 * (offset / max(1, window // 2)) ** 2)


def _first_bin_of_cells(height: int, width: int, cell: int, num_bins: int) -> Tensor:
    """Return, for every pixel, the index of its cell's first bin in the plane: (H * W,)."""
    row = torch.arange(height) // cell * (width // cell)
    column = torch.arange(width) // cell
    return ((row[:, None] + column) * num_bins).flatten()


def _polar_gradients(images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the magnitude of the Sobel gradient, and the ratio across / down.

    Args:
        images: (N, C, H, W).

    Returns:
        Two (N, C, H, W) float32 tensors, contiguous; the ratio of a flat pixel is NaN.
    """
    num_images, num_channels, height, width = images.shape
    # Convert, make contiguous and pad by reflection in one pass.
    padded = torch.empty((num_images, num_channels, height + 2, width + 2), device=images.device)
    padded[..., 1:-1, 1:-1] = images
    padded[..., 0, :] = padded[..., 2, :]
    padded[..., -1, :] = padded[..., -3, :]
    padded[..., 0] = padded[..., 2]
    padded[..., -1] = padded[..., -3]
    difference = padded[..., :-2] - padded[..., 2:]
    across = torch.add(difference[..., :-2, :], difference[..., 1:-1, :], alpha=2)
    across.add_(difference[..., 2:, :])
    smooth = torch.add(padded[..., :-2], padded[..., 1:-1], alpha=2).add_(padded[..., 2:])
    down = smooth[..., :-2, :] - smooth[..., 2:, :]
    ratio = torch.div(across, down)
    magnitude = across.square_().addcmul_(down, down).sqrt_()
    return magnitude, ratio


def _position_of_ratio(ratio: Tensor, bins: int) -> Tensor:
    """Compute the orientation in units of bins from across / down, in place.

    The orientation is atan(across / down), which does not depend on the sign of a zero: 0 for a
    gradient straight down or up, between -bins / 2 and bins / 2. It is shifted by half of `bins`,
    rounded up, so that its integer part is 0 to `bins`; the first and the last are the same bin.
    """
    # 0 / 0 at flat pixels counts as orientation 0 with magnitude 0.
    return ratio.nan_to_num_().atan_().mul_(bins / math.pi).add_((bins + 1) // 2)


def bin_thresholds(bins: int) -> Tensor:
    """Find the smallest ratios across / down whose position has the integer part 1, 2, ..., bins.

    They are found by bisection over the float32 numbers, so that a comparison with them gives the
    bin that `hog` gives on a CPU, to the last bit.

    Args:
        bins: orientations.

    Returns:
        (bins,) float32 on the CPU; NaN, which no ratio reaches, where there is none.
    """
    wanted = torch.arange(1, bins + 1, device="cpu")
    largest = torch.tensor(torch.finfo(torch.float32).max, device="cpu").view(torch.int32).long()
    low, high = (-largest - 1).expand(bins), (largest + 1).expand(bins)
    while (high - low > 1).any():
        middle = (low + high).div(2, rounding_mode="floor")
        reaches = _position_of_ratio(_nth_float(middle), bins).long() >= wanted
        low, high = torch.where(reaches, low, middle), torch.where(reaches, middle, high)
    return torch.where(high > largest, math.nan, _nth_float(high.clamp(max=largest)))


def _nth_float(number: Tensor) -> Tensor:
    """Return the n-th float32 number after 0, or before it where n is negative."""
    magnitude = number.abs().to(torch.int32).view(torch.float32)
    return torch.where(number < 0, -magnitude, magnitude)


def _sums_by_scatter(
    magnitude: Tensor, position: Tensor, first_bin: Tensor, cell: int, num_bins: int
) -> Tensor:
    """Sum magnitudes per cell and bin in one pass; on a CPU one thread sums each plane in order.

    Args:
        magnitude: (N, C, H, W).
        position: (N, C, H, W), integer part 0 to `num_bins` - 1.
        first_bin: (H * W,) from `_first_bin_of_cells`.
        cell: pixels per side of a cell.
        num_bins: bins per cell.

    Returns:
        (N, C, H / cell, W / cell, num_bins).
    """
    num_images, num_channels, height, width = magnitude.shape
    num_rows, num_columns = height // cell, width // cell
    index = position.flatten(0, 1).flatten(1).long().add_(first_bin)  # (N * C, H * W)
    sums = magnitude.new_zeros(len(index), num_rows * num_columns * num_bins)
    sums.scatter_add_(1, index, magnitude.view_as(index))
    return sums.view(num_images, num_channels, num_rows, num_columns, num_bins)


def _sums_by_bin(
    magnitude: Tensor, ratio: Tensor, thresholds: Tensor, cell: int, num_bins: int
) -> Tensor:
    """Sum magnitudes per cell and bin as plain reductions.

    It moves more bytes than `_sums_by_scatter`, but is deterministic on a GPU, where the order of
    atomic additions is not.

    Args:
        magnitude: (N, C, H, W).
        ratio: (N, C, H, W), across / down.
        thresholds: from `_sorted_thresholds`, on the device.
        cell: pixels per side of a cell.
        num_bins: bins per cell.

    Returns:
        (N, C, H / cell, W / cell, num_bins).
    """
    num_images, num_channels, height, width = magnitude.shape
    shape = (num_images, num_channels, height // cell, cell, width // cell, cell)
    # A flat pixel, whose ratio is NaN, gets some bin, and adds its magnitude 0 to it.
    index = torch.bucketize(ratio, thresholds, out_int32=True, right=True).view(shape)
    numbers = torch.arange(num_bins, dtype=torch.int32, device=index.device)
    is_in = index == numbers.view(-1, 1, 1, 1, 1, 1, 1)  # (bins, N, C, rows, cell, columns, cell)
    return torch.where(is_in, magnitude.view(shape), 0.0).sum(dim=(4, 6)).movedim(0, -1)


@cache
def _sorted_thresholds(bins: int) -> tuple[float, ...]:
    """Return those of `bin_thresholds` that a ratio reaches, ascending."""
    thresholds = bin_thresholds(bins)
    return tuple(thresholds[~thresholds.isnan()].tolist())


def _fold_ends(sums: Tensor, bins: int) -> Tensor:
    """Merge the two end bins and undo the shift: (..., bins + 1) -> (..., bins)."""
    shift = (bins + 1) // 2
    folded = sums[..., :bins].clone()
    folded[..., 0] += sums[..., bins]
    return folded.roll(-shift, dims=-1)
