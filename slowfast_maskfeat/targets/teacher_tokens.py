"""Tokens of a frozen network, on the grid of a prediction: what features and labels are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.ema import Teacher
from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.pixel_values import per_channel, pixel_values

Describe = Callable[[Any, Tensor], tuple[Tensor, Grid]]
"""(network, normalized clips (N, C, T, S, S)) -> its tokens (N, n, D), without a class token, and
their grid."""


class TeacherTokens(nn.Module):
    """Tokens of a frozen network, or an EMA teacher, for each token of a prediction.

    A network of images sees the predicted frames of a clip one by one. A network of videos sees the
    whole clip.

    Args:
        teacher: the network.
        describe: gives its tokens.
        is_of_images: the network takes clips of one frame.
        crop_size: height and width of its input, to which clips are resized.
        mean: per channel, of its normalization.
        std: per channel, of its normalization.
        clip_mean: per channel, of clips that are already normalized.
        clip_std: per channel, of clips that are already normalized.
        is_reversed: it takes the channels in the opposite order.
    """

    def __init__(
        self,
        teacher: FrozenNetwork | Teacher,
        describe: Describe,
        *,
        is_of_images: bool,
        crop_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        clip_mean: Sequence[float],
        clip_std: Sequence[float],
        is_reversed: bool = False,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.describe = describe
        self.is_of_images = is_of_images
        self.crop_size = crop_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.clip_mean, self.clip_std = tuple(clip_mean), tuple(clip_std)
        self.is_reversed = is_reversed

    @torch.no_grad()
    def forward(self, clips: Tensor, grid: Grid, *, all_frames: bool) -> Tensor:
        """Describe every token of a batch.

        Args:
            clips: (B, C, T, H, W), unmasked: uint8, or float and normalized with `clip_mean` and
                `clip_std`.
            grid: of the prediction.
            all_frames: a network of images sees every frame of a token, not only the first.

        Returns:
            (B, t, h, w, F, D) float32; F is the number of frames that the network saw of a token, 1
            for a network of videos.

        Raises:
            ValueError: the frames of the clip are not a multiple of the steps of the grid.
        """
        num_clips, _, num_frames = clips.shape[:3]
        if num_frames % grid.t:
            raise ValueError(
                f"clips must have a multiple of {grid.t} frames for {grid} tokens, got {num_frames}"
            )
        if self.is_of_images:
            stride = 1 if all_frames else num_frames // grid.t
            frames = clips[:, :, ::stride]
            # (B, C, t * F, H, W) -> (B * t * F, C, 1, H, W)
            clips = frames.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        inputs = self._prepared(clips)
        tokens, own = self.describe(self.teacher.network, inputs)
        maps = tokens.float().unflatten(1, tuple(own)).permute(0, 4, 1, 2, 3)  # (N, D, t', h', w')
        if self.is_of_images:
            maps = resize_maps(maps.squeeze(2), grid.h, grid.w)
            maps = maps.unflatten(0, (num_clips, grid.t, -1))  # (B, t, F, D, h, w)
            return maps.permute(0, 1, 4, 5, 2, 3)
        maps = _resize_steps(maps, grid.t).transpose(1, 2)  # (B, t, D, h', w')
        maps = resize_maps(maps.flatten(0, 1), grid.h, grid.w).unflatten(0, (num_clips, grid.t))
        return maps.permute(0, 1, 3, 4, 2).unsqueeze(4)

    def _prepared(self, clips: Tensor) -> Tensor:
        """Return clips in the size, normalization and channel order of the network."""
        pixels = pixel_values(clips, self.clip_mean, self.clip_std)
        if self.is_reversed:
            pixels = pixels.flip(1)
        prepared = (pixels - per_channel(self.mean, clips)) / per_channel(self.std, clips)
        size = (self.crop_size, self.crop_size)
        if prepared.shape[3:] == size:
            return prepared
        # Bicubic with an antialiasing filter, as images are resized for networks in evaluation.
        frames = prepared.transpose(1, 2).flatten(0, 1)
        frames = F.interpolate(frames, size, mode="bicubic", antialias=True, align_corners=False)
        return frames.unflatten(0, (len(prepared), -1)).transpose(1, 2)

    def extra_repr(self) -> str:
        """Return the text that `print` shows for the module."""
        is_frozen = isinstance(self.teacher, FrozenNetwork)
        source = self.teacher.source if is_frozen else "moving average"
        return f"{source}, is_of_images={self.is_of_images}, crop_size={self.crop_size}"


def resize_maps(maps: Tensor, height: int, width: int) -> Tensor:
    """Resize maps to a grid: the mean over whole cells where they divide, else bilinear.

    Args:
        maps: (N, D, h', w').
        height: rows of the grid.
        width: columns of the grid.

    Returns:
        (N, D, height, width).
    """
    rows, columns = maps.shape[2:]
    if (rows, columns) == (height, width):
        return maps
    if rows % height == 0 and columns % width == 0:
        return F.avg_pool2d(maps, (rows // height, columns // width))
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)


def _resize_steps(maps: Tensor, num_steps: int) -> Tensor:
    """Interpolate maps (N, D, t', h, w) to another number of time steps."""
    if maps.shape[2] == num_steps:
        return maps
    rows, columns = maps.shape[3:]
    flat = F.interpolate(
        maps.flatten(3).permute(0, 3, 1, 2).flatten(0, 1), num_steps, mode="linear"
    )  # (N * h * w, D, t)
    return flat.unflatten(0, (len(maps), rows, columns)).permute(0, 3, 4, 1, 2)
