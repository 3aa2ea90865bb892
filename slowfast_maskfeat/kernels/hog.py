"""HOG of tokens from the pixels of a clip, as one operator of torch.

Each pixel is read from memory once, as it is (uint8), and each histogram written once, where its
token has it. The bin of a pixel is found by comparing the ratio of its gradients with thresholds
that are those of the plain form, so that ties fall as they do there. The operator is opaque to
torch.compile and has a form without values for fake tensors.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor, nn

from slowfast_maskfeat.kernels import triton_hog

_PIXELS = 1024  # of a program


class FusedHOG(nn.Module):
    """HOG of every token, in the order (channel, bin, cell row, cell column).

    Args:
        thresholds: (bins,), see `bin_thresholds` of `targets/hog.py`.
        profile: (window,) of the Gaussian windows; empty for none.
        cell: pixels per side of a cell.
        token_rows: cells of a token along its height.
        token_columns: cells of a token along its width.
    """

    thresholds: Tensor
    profile: Tensor

    def __init__(
        self,
        thresholds: Tensor,
        profile: Tensor,
        *,
        cell: int,
        token_rows: int,
        token_columns: int,
    ) -> None:
        super().__init__()
        self.register_buffer("thresholds", thresholds, persistent=False)
        self.register_buffer("profile", profile, persistent=False)
        self.cell = cell
        self.token_cells = (token_rows, token_columns)

    def forward(self, frames: Tensor) -> Tensor:
        """Compute the histograms.

        Args:
            frames: (B, T, C, H, W), uint8 (exact) or float, with any strides; H and W are multiples
                of the token, and of the window.

        Returns:
            (B, T * h * w, C * bins * token_rows * token_columns) float32.
        """
        return torch.ops.slowfast_maskfeat.hog_tokens(
            frames, self.thresholds, self.profile, self.cell, *self.token_cells
        )


@torch.library.custom_op(
    "slowfast_maskfeat::hog_tokens",
    mutates_args=(),
    schema="(Tensor frames, Tensor thresholds, Tensor profile, int cell, int token_rows, "
    "int token_columns) -> Tensor",
)
def _hog_tokens(
    frames: Tensor,
    thresholds: Tensor,
    profile: Tensor,
    cell: int,
    token_rows: int,
    token_columns: int,
) -> Tensor:
    _, num_frames, num_channels, height, width = frames.shape
    rows, columns, bins = height // cell, width // cell, len(thresholds)
    num_cells = frames.shape[:3].numel() * rows * columns
    tokens = _empty_tokens(frames, thresholds, profile, cell, token_rows, token_columns)
    pixels = triton.next_power_of_2(cell * cell)
    num_cells_each = max(1, _PIXELS // pixels)
    with torch.cuda.device_of(frames):
        triton_hog.hog_tokens[(triton.cdiv(num_cells, num_cells_each),)](
            frames,
            thresholds,
            profile,
            tokens,
            *frames.stride(),
            num_cells,
            num_frames,
            num_channels,
            rows,
            columns,
            len(profile),
            BINS=bins,
            CELL=cell,
            HAS_WINDOW=len(profile) > 0,
            TOKEN_ROWS=token_rows,
            TOKEN_COLUMNS=token_columns,
            CELLS=num_cells_each,
            PIXELS=pixels,
            PADDED_BINS=triton.next_power_of_2(bins),
        )
    return tokens


@_hog_tokens.register_fake
def _empty_tokens(
    frames: Tensor,
    thresholds: Tensor,
    profile: Tensor,
    cell: int,
    token_rows: int,
    token_columns: int,
) -> Tensor:
    batch, num_frames, num_channels, height, width = frames.shape
    cells = token_rows * token_columns
    num_tokens = num_frames * (height // cell // token_rows) * (width // cell // token_columns)
    dim = num_channels * len(thresholds) * cells
    return torch.empty((batch, num_tokens, dim), device=frames.device)
