"""Tokenizers with a vector quantizer: VQ-VAE (arXiv:1711.00937), BEiT v2 (arXiv:2208.06366)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slowfast_maskfeat.tokenizers.base import (
    ImageEncoder,
    Reconstruction,
    Tokenizer,
    check_image_size,
)
from slowfast_maskfeat.tokenizers.quantizer import Quantizer
from slowfast_maskfeat.tokenizers.reconstruction import ReconstructionKind


class VQTokenizer(Tokenizer):
    """An encoder, a vector quantizer and a decoder.

    A subclass may have layers of its own between encoder and quantizer (`to_vectors`), and around
    the decoder (`from_vectors`).

    Args:
        encoder: (B, 3, H, W) -> (B, D, h, w).
        quantizer: of vectors of width D.
        decoder: (B, D, h, w) -> (B, C, H, W), or (B, C, h, w) for features.
        reconstruction: scale and loss of what the decoder returns.
        projects: a subclass projects the encoder's output to the width of the codes.

    Raises:
        ValueError: the widths of encoder and quantizer differ, and nothing projects.
    """

    # The quantizer keeps vectors of a step for later, which a graph cannot.
    compiled_parts = ("_vectors", "from_vectors")

    def __init__(
        self,
        encoder: ImageEncoder,
        quantizer: Quantizer,
        decoder: nn.Module,
        *,
        reconstruction: ReconstructionKind,
        projects: bool = False,
    ) -> None:
        super().__init__()
        if not projects and encoder.out_channels != quantizer.dim:
            raise ValueError(
                f"the encoder must have the width {quantizer.dim} of the codes, got "
                f"{encoder.out_channels}"
            )
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder
        self.reconstruction = reconstruction

    @property
    def num_codes(self) -> int:
        """Number of codes K."""
        return self.quantizer.num_codes

    @property
    def pixels_per_code(self) -> int:
        """Rows, and columns, of pixels that one code stands for."""
        return self.encoder.stride

    def forward(self, images: Tensor, samples: Tensor | None = None) -> Reconstruction:
        """Reconstruct images from their codes.

        Args:
            images: (B, 3, H, W) in [0, 1].
            samples: (B,) int64, the number of each image, see `Quantizer.forward`.

        Returns:
            Its `loss` is that of the quantizer, averaged over an image's codes.

        Raises:
            ValueError: height or width is no multiple of `pixels_per_code`.
        """
        result = self.quantizer(self._vectors(images), samples)
        output = self.from_vectors(result.vectors.movedim(-1, 1))
        return Reconstruction(output, result.codes, result.loss.mean(dim=(1, 2)))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Find the nearest codes: (B, 3, H, W) in [0, 1] -> (B, h, w) int64.

        Raises:
            ValueError: height or width is no multiple of `pixels_per_code`.
        """
        return self.quantizer.encode(self._vectors(images))

    def decoder_output(self, codes: Tensor) -> Tensor:
        """Run the decoder on codes: (B, h, w) int64 -> (B, C, H, W)."""
        return self.from_vectors(self.quantizer.decode(codes).movedim(-1, 1))

    def to_vectors(self, encoded: Tensor) -> Tensor:
        """Make the vectors to quantize of the encoder's output: (B, D', h, w) -> (B, D, h, w)."""
        return encoded

    def from_vectors(self, vectors: Tensor) -> Tensor:
        """Decode the vectors of codes: (B, D, h, w) -> (B, C, H, W)."""
        output: Tensor = self.decoder(vectors)
        return output

    def after_step(self, taken: Tensor) -> None:
        """Move the codebook, see `Quantizer.after_step`."""
        self.quantizer.after_step(taken)

    def _vectors(self, images: Tensor) -> Tensor:
        """Encode: (B, 3, H, W) -> (B, h, w, D)."""
        check_image_size(images, self.pixels_per_code)
        encoded = self.encoder(self.reconstruction.scaled(images))
        return self.to_vectors(encoded).movedim(1, -1)
