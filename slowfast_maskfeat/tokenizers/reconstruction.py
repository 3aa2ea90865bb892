"""Reconstruction of pixels, or of the features of a teacher, by the decoder of a tokenizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from slowfast_maskfeat.losses import (
    cosine_distance,
    logit_laplace,
    mean_absolute_error,
    mean_squared_error,
    smooth_l1,
)

_ERRORS = {"l1": mean_absolute_error, "l2": mean_squared_error, "smooth_l1": smooth_l1}
# DALL-E's published code (dall_e/utils.py) keeps pixels so far from 0 and 1, whose logits are
# infinite.
_MARGIN = 0.1


class ReconstructionKind(ABC):
    """A decoder's output: its scale, its loss, and the picture that it shows.

    Attributes:
        has_pictures: whether it shows one.
    """

    has_pictures: ClassVar[bool] = True

    @abstractmethod
    def scaled(self, images: Tensor) -> Tensor:
        """Scale images in [0, 1] for the encoder: (B, 3, H, W) -> the same."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each image: (B, C, H, W) and what it reconstructs -> (B,)."""

    @abstractmethod
    def pictures(self, output: Tensor) -> Tensor:
        """Make images in [0, 1] of the output: (B, C, H, W) -> (B, 3, H, W)."""


class PixelReconstruction(ReconstructionKind):
    """Colors, by default in [-1, 1] for encoder and decoder.

    Args:
        error: l1, l2 or smooth_l1, averaged over pixels and colors.
        value_range: that the colors are scaled to; the error is on this scale.
    """

    num_channels: ClassVar[int] = 3

    def __init__(self, error: str, *, value_range: tuple[float, float] = (-1.0, 1.0)) -> None:
        self._error = _ERRORS[error]
        self._low = value_range[0]
        self._extent = value_range[1] - value_range[0]

    def scaled(self, images: Tensor) -> Tensor:
        """Scale images from [0, 1] to the range of the colors."""
        return images * self._extent + self._low

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the mean error of each image: (B, 3, H, W), and images in [0, 1] -> (B,)."""
        return self._error(output.flatten(1), self.scaled(target).flatten(1))

    def pictures(self, output: Tensor) -> Tensor:
        """Scale the output to [0, 1]; what is outside is clamped."""
        return ((output.float() - self._low) / self._extent).clamp(0, 1)


class LogitLaplaceReconstruction(ReconstructionKind):
    """A distribution of each color: mean and log scale of a Laplace distribution of its logit.

    Source: DALL-E (arXiv:2102.12092) and its published code: colors are mapped from [0, 1] to
    [0.1, 0.9] for the encoder and the likelihood.
    """

    num_channels: ClassVar[int] = 6

    def scaled(self, images: Tensor) -> Tensor:
        """Scale images from [0, 1] to [0.1, 0.9]."""
        return images * (1 - 2 * _MARGIN) + _MARGIN

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the mean negative log-likelihood of each image: (B, 6, H, W) -> (B,)."""
        mean, log_scale = output.flatten(2).chunk(2, dim=1)
        return logit_laplace(mean.flatten(1), log_scale.flatten(1), self.scaled(target).flatten(1))

    def pictures(self, output: Tensor) -> Tensor:
        """Return the median of each color: the sigmoid of the mean, mapped back to [0, 1]."""
        mean = output.float().chunk(2, dim=1)[0]
        return ((mean.sigmoid() - _MARGIN) / (1 - 2 * _MARGIN)).clamp(0, 1)


class FeatureReconstruction(ReconstructionKind):
    """Features of a teacher, one for each code: BEiT v2's VQ-KD (arXiv:2208.06366)."""

    has_pictures: ClassVar[bool] = False

    def scaled(self, images: Tensor) -> Tensor:
        """Scale images from [0, 1] to [-1, 1]."""
        return images * 2 - 1

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute one minus the cosine, averaged over an image's codes: (B, D, h, w) twice -> (B,).

        Raises:
            ValueError: the features are on another grid, or of another width.
        """
        if output.shape != target.shape:
            raise ValueError(
                f"features must have the shape {tuple(output.shape)} (B, D, h, w) of the decoder's "
                f"output, got {tuple(target.shape)}"
            )
        rows, others = (x.flatten(2).transpose(1, 2).flatten(0, 1) for x in (output, target))
        return cosine_distance(rows, others).view(len(output), -1).mean(dim=1)

    def pictures(self, output: Tensor) -> Tensor:
        """Refuse: features are no picture.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "a tokenizer must reconstruct pixels to draw its codes, got one that reconstructs the "
            "features of a teacher"
        )


def pixel_reconstruction(loss: str) -> PixelReconstruction | LogitLaplaceReconstruction:
    """Make the reconstruction of pixels with a loss.

    Args:
        loss: l1, l2, smooth_l1 or logit_laplace.

    Raises:
        ValueError: another loss.
    """
    if loss == "logit_laplace":
        return LogitLaplaceReconstruction()
    if loss not in _ERRORS:
        names = [*_ERRORS, "logit_laplace"]
        raise ValueError(f"the loss of pixels must be one of {names}, got {loss!r}")
    return PixelReconstruction(loss)
