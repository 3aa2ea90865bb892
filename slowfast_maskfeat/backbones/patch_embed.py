"""Clip -> patch tokens: one strided convolution, over space and time or over space alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slowfast_maskfeat.shapes import Grid


class PatchEmbed(nn.Module):
    """Cuts a clip into (overlapping) patches and projects each to a token.

    A kernel of three numbers is a convolution over time, rows and columns; a kernel of two numbers
    is one over rows and columns, for images, which are clips with T = 1.
    Source: MViT (Fan et al., 2021), section 4.1; ViT (Dosovitskiy et al., 2021), section 3.1.

    Args:
        in_channels: channels C of the clip.
        width: width D of a token.
        kernel: patch size (frames, rows, columns) or (rows, columns), in frames and pixels.
        stride: step from patch to patch, as many numbers as `kernel`.
        padding: zeros on each side of the clip, as many numbers as `kernel`.

    Raises:
        ValueError: `kernel`, `stride` and `padding` are not all of two or all of three numbers.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        width: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
    ) -> None:
        super().__init__()
        sizes = {len(kernel), len(stride), len(padding)}
        if sizes not in ({2}, {3}):
            raise ValueError(
                "MVIT.PATCH_KERNEL, PATCH_STRIDE and PATCH_PADDING must have two numbers each with "
                "MVIT.PATCH_2D True and three with False, got "
                f"{list(kernel)}, {list(stride)} and {list(padding)}"
            )
        self.is_2d = len(kernel) == 2
        convolution = nn.Conv2d if self.is_2d else nn.Conv3d
        self.proj = convolution(
            in_channels,
            width,
            kernel_size=tuple(kernel),  # type: ignore[arg-type]
            stride=tuple(stride),  # type: ignore[arg-type]
            padding=tuple(padding),  # type: ignore[arg-type]
        )
        leading = (1,) if self.is_2d else ()
        self.kernel: tuple[int, ...] = (*leading, *kernel)
        self.stride: tuple[int, ...] = (*leading, *stride)
        self.padding: tuple[int, ...] = ((0,) if self.is_2d else ()) + tuple(padding)

    def grid(self, clip_size: Sequence[int]) -> Grid:
        """Token grid of a clip.

        Args:
            clip_size: (T, H, W) in frames and pixels.

        Returns:
            Grid(t, h, w).

        Raises:
            ValueError: the clip has several frames but the patches are two-dimensional, or it is
                smaller than a patch.
        """
        frames, height, width = clip_size
        if self.is_2d and frames != 1:
            raise ValueError(
                "clips must have T = 1 (DATA.NUM_FRAMES 1) with MVIT.PATCH_2D True, got "
                f"{frames} frames"
            )
        sizes = (self._num_frames(frames), height, width)
        cells = [
            (size + 2 * padding - kernel) // stride + 1
            for size, kernel, stride, padding in zip(
                sizes, self.kernel, self.stride, self.padding, strict=True
            )
        ]
        if min(cells) < 1:
            raise ValueError(
                f"clips must be at least one patch (MVIT.PATCH_KERNEL {list(self.kernel)}), got "
                f"{frames} frames of {height}x{width}"
            )
        return Grid(*cells)

    def _num_frames(self, frames: int) -> int:
        """Frames that reach the convolution: a single frame is repeated to fill the kernel."""
        if frames == 1 and not self.is_2d:
            return max(1, self.kernel[0] - 2 * self.padding[0])
        return frames

    def forward(self, clips: Tensor) -> tuple[Tensor, Grid]:
        """Embed clips.

        Args:
            clips: (B, C, T, H, W), float, normalized.

        Returns:
            Tokens (B, N, D) in the order of (t, h, w), and their grid.

        Raises:
            ValueError: `clips` does not have five axes, or see `grid`.
        """
        if clips.ndim != 5:
            raise ValueError(
                f"clips must have the axes (B, C, T, H, W), got the shape {tuple(clips.shape)}; "
                "an image is a clip with T = 1"
            )
        frames = clips.shape[2]
        grid = self.grid(clips.shape[2:])
        if self.is_2d:
            tokens = self.proj(clips.squeeze(2))  # (B, D, h, w)
        else:
            needed = self._num_frames(frames)
            if needed != frames:
                clips = clips.expand(-1, -1, needed, -1, -1)
            tokens = self.proj(clips)  # (B, D, t, h, w)
        tokens = torch.flatten(tokens, 2).transpose(1, 2)  # (B, N, D)
        return tokens, grid
