"""Pixels as prediction target: MAE (arXiv:2111.06377), SimMIM (arXiv:2111.09886), MaskFeat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowfast_maskfeat.losses import mean_absolute_error
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.base import Target, check_clip_size

# Added to the variance of a token (published value).
_EPSILON = 1e-6


class PixelTarget(Target):
    """The colors of every token's pixels, by default scaled to zero mean and unit variance.

    Attributes:
        token_size: frames, rows and columns of pixels per token.
        all_frames: predict every frame of a token (MASK.TIME_STRIDE_LOSS False), not only the
            first.
        norm: normalize every token by its own mean and variance (MASK.NORM_PRED_PIXEL).
        color_first: order values as (color, row, column), as published for images, instead of
            (row, column, color), as published for video.
        absolute: use the absolute error (SimMIM) as loss instead of the squared one (MAE).

    Raises:
        ValueError: `color_first` with several predicted frames per token.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        token_size: Sequence[int],
        *,
        mean: Sequence[float] = (0.45, 0.45, 0.45),
        std: Sequence[float] = (0.225, 0.225, 0.225),
        all_frames: bool = False,
        norm: bool = True,
        color_first: bool = False,
        absolute: bool = False,
    ) -> None:
        super().__init__()
        frames, rows, columns = token_size
        if color_first and all_frames and frames > 1:
            raise ValueError(
                "MASK.TIME_STRIDE_LOSS must be True with color_first and tokens of several frames, "
                "got False: no such order of values is published"
            )
        self.token_size = (frames, rows, columns)
        self.all_frames = all_frames
        self.norm = norm
        self.color_first = color_first
        self.absolute = absolute
        # Not in a checkpoint: the configuration has them (DATA.MEAN, DATA.STD).
        shape = (1, len(mean), 1, 1, 1)
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)

    @property
    def dim(self) -> int:
        """Predicted frames x rows x columns x channels per token."""
        return pixel_width(
            self.token_size, all_frames=self.all_frames, num_channels=self.mean.numel()
        )

    @torch.no_grad()
    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        """Return the pixels of every token.

        Args:
            clips: (B, C, T, H, W); uint8 is divided by 255 and normalized with `mean` and `std`,
                float is used unchanged.
            grid: token grid of the prediction.

        Returns:
            (B, N, dim) float32, in the order (frame, row, column, channel), or (channel, row,
            column) with `color_first`.

        Raises:
            ValueError: the clip does not consist of `grid` tokens of `token_size`.
        """
        tokens = self._unscaled(clips, grid)
        if self.norm:
            variance, mean = torch.var_mean(tokens, dim=-1, keepdim=True)
            tokens = (tokens - mean) / (variance + _EPSILON).sqrt()
        return tokens

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compute the squared or absolute error of every masked token: (M, dim) twice -> (M,)."""
        if self.absolute:
            return mean_absolute_error(prediction, target)
        return super().loss(prediction, target)

    def constant_prediction(self, target: Tensor) -> Tensor:
        """Compute the best constant prediction: the median for absolute errors, else the mean."""
        return target.median(dim=0).values if self.absolute else super().constant_prediction(target)

    def _unscaled(self, clips: Tensor, grid: Grid) -> Tensor:
        """Return the pixels of every token of the normalized clip: (B, N, dim)."""
        check_clip_size(clips, grid, self.token_size)
        if not self.all_frames:
            clips = clips[:, :, :: self.token_size[0]]
        if clips.dtype == torch.uint8:
            pixels = (clips.float() / 255 - self.mean) / self.std
        else:
            pixels = clips.float()
        _, rows, columns = self.token_size
        # (B, C, t, frame, h, row, w, column) -> (B, t, h, w, ...)
        pixels = pixels.reshape(
            *pixels.shape[:2], grid.t, pixels.shape[2] // grid.t, grid.h, rows, grid.w, columns
        )
        inside = (1, 3, 5, 7) if self.color_first else (3, 5, 7, 1)
        return pixels.permute(0, 2, 4, 6, *inside).reshape(len(clips), grid.num_tokens, self.dim)

    @torch.no_grad()
    def to_frames(self, tokens: Tensor, clips: Tensor, grid: Grid) -> Tensor:
        """Convert tokens, targets or predictions, to frames: the inverse of `encode`.

        With `norm`, tokens are denormalized by mean and variance of the clip, since the network
        predicts neither.

        Args:
            tokens: (B, N, dim).
            clips: (B, C, T, H, W) uint8, the clips of the tokens.
            grid: of the tokens.

        Returns:
            (B, C, T', H, W) uint8; T' is t, the first frame of each token, or T with `all_frames`.
        """
        tokens = tokens.float()
        if self.norm:
            variance, mean = torch.var_mean(self._unscaled(clips, grid), dim=-1, keepdim=True)
            tokens = tokens * (variance + _EPSILON).sqrt() + mean
        frames, rows, columns = self.token_size
        inside = (frames if self.all_frames else 1, rows, columns)
        channels = self.mean.numel()
        shape = (channels, *inside) if self.color_first else (*inside, channels)
        pixels = tokens.reshape(len(tokens), *grid, *shape)
        if not self.color_first:
            pixels = pixels.movedim(-1, 4)
        # (B, t, h, w, C, frame, row, column) -> (B, C, t, frame, h, row, w, column)
        pixels = pixels.permute(0, 4, 1, 5, 2, 6, 3, 7)
        pixels = pixels.reshape(len(tokens), channels, -1, grid.h * rows, grid.w * columns)
        values = (pixels * self.std + self.mean) * 255
        return values.round().clamp(0, 255).to(torch.uint8)

    def extra_repr(self) -> str:
        """Return the text that `print` shows for the module."""
        return (
            f"token_size={self.token_size}, all_frames={self.all_frames}, norm={self.norm}, "
            f"color_first={self.color_first}, absolute={self.absolute}, dim={self.dim}"
        )


def pixel_width(token_size: Sequence[int], *, all_frames: bool, num_channels: int) -> int:
    """Count the predicted pixel values of a token.

    Args:
        token_size: frames, rows and columns of pixels per token.
        all_frames: predict every frame of a token, not only the first.
        num_channels: of a clip.
    """
    frames, rows, columns = token_size
    return (frames if all_frames else 1) * rows * columns * num_channels
