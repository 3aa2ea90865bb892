"""Interface of tokenizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from slowfast_maskfeat.tokenizers.published import own_names
from slowfast_maskfeat.tokenizers.reconstruction import ReconstructionKind


class Reconstruction(NamedTuple):
    """Forward pass of a tokenizer in training.

    Attributes:
        output: (B, C, H, W) of the decoder, see `Tokenizer.reconstruction`.
        codes: (B, h, w) int64, the codes of the images, without noise.
        loss: (B,), the regularizer of the codes, averaged over an image's codes: the divergence
            from the uniform distribution of a dVAE, the quantizer's loss of a vector quantizer.
    """

    output: Tensor
    codes: Tensor
    loss: Tensor


class ImageEncoder(nn.Module):
    """A network from images (B, 3, H, W) to logits or vectors of codes (B, out_channels, h, w).

    Attributes:
        stride: rows, and columns, of pixels that a code stands for.
        out_channels: number of codes, or width of their vectors.
    """

    stride: int
    out_channels: int


class Tokenizer(nn.Module, ABC):
    """A network that turns an image into a grid of discrete tokens, and these into an image.

    All images are RGB in [0, 1]; a tokenizer has a normalization of its own.

    Attributes:
        reconstruction: scale and loss of what the decoder returns, and the picture that it shows.
    """

    reconstruction: ReconstructionKind

    @property
    @abstractmethod
    def num_codes(self) -> int:
        """Number of codes K; codes are 0 to K - 1."""

    @property
    def has_pictures(self) -> bool:
        """Whether `decode` makes images."""
        return self.reconstruction.has_pictures

    @property
    @abstractmethod
    def pixels_per_code(self) -> int:
        """Rows, and columns, of pixels that one code stands for."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Find the codes of images, without gradients.

        Args:
            images: (B, 3, H, W) float in [0, 1]; H and W are multiples of `pixels_per_code`.

        Returns:
            (B, h, w) int64.

        Raises:
            ValueError: the size is no such multiple.
        """

    @abstractmethod
    def decoder_output(self, codes: Tensor) -> Tensor:
        """Run the decoder on codes: (B, h, w) int64 -> (B, C, H, W), see `reconstruction`."""

    def decode(self, codes: Tensor) -> Tensor:
        """Make images of codes.

        Args:
            codes: (B, h, w) int64.

        Returns:
            (B, 3, H, W) in [0, 1].

        Raises:
            ValueError: there is no decoder, or it reconstructs features.
        """
        return self.reconstruction.pictures(self.decoder_output(codes))

    def after_step(self, taken: Tensor) -> None:
        """Update codebooks, once per optimizer step; collective.

        Args:
            taken: () bool on the device: False if the step was skipped; then nothing may change.
        """

    def own_names(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the weights of a published file the names here, for `checkpoints.load_weights`."""
        return own_names(weights)


def check_image_size(images: Tensor, pixels_per_code: int) -> None:
    """Check that images consist of whole cells.

    Args:
        images: (B, 3, H, W).
        pixels_per_code: rows and columns of a cell.

    Raises:
        ValueError: they do not, or have other axes.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images must have the axes (B, 3, H, W), got the shape {tuple(images.shape)}"
        )
    height, width = images.shape[2:]
    if height % pixels_per_code or width % pixels_per_code:
        raise ValueError(
            f"height and width of images must be multiples of {pixels_per_code}, the pixels of a "
            f"code, got {height} x {width}"
        )
