"""Discrete variational autoencoders: a distribution over the codes, sampled by Gumbel-softmax.

Sources: DALL-E (arXiv:2102.12092), BEiT (arXiv:2106.08254) and its published code
(beit/modeling_discrete_vae.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.losses import kl_to_uniform
from slowfast_maskfeat.tokenizers.base import (
    ImageEncoder,
    Reconstruction,
    Tokenizer,
    check_image_size,
)
from slowfast_maskfeat.tokenizers.gumbel import gumbel_softmax
from slowfast_maskfeat.tokenizers.reconstruction import ReconstructionKind

# Of BEiT's published code; it matters to nothing but the last digits.
_EPSILON = 1e-10


class DVAE(Tokenizer):
    """A dVAE: an encoder to logits, and a decoder.

    Args:
        encoder: (B, 3, H, W) -> (B, K, h, w) logits.
        decoder: (B, D, h, w) -> (B, C, H, W); None: there are only codes, and no pictures.
        code_dim: D, width of the vector of a code; None: the decoder takes the weights of the codes
            themselves, D = K, as DALL-E's does.
        reconstruction: scale and loss of the pixels.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        decoder: nn.Module | None,
        *,
        code_dim: int | None,
        reconstruction: ReconstructionKind,
    ) -> None:
        super().__init__()
        self.codebook = None if code_dim is None else nn.Embedding(encoder.out_channels, code_dim)
        self.encoder = encoder
        self.decoder = decoder
        self.reconstruction = reconstruction

    @property
    def num_codes(self) -> int:
        """Number of codes K."""
        return self.encoder.out_channels

    @property
    def has_pictures(self) -> bool:
        """Whether `decode` makes images."""
        return super().has_pictures and self.decoder is not None

    @property
    def pixels_per_code(self) -> int:
        """Rows, and columns, of pixels that one code stands for."""
        return self.encoder.stride

    def logits(self, images: Tensor) -> Tensor:
        """Compute the logits of the codes: (B, 3, H, W) in [0, 1] -> (B, K, h, w).

        Raises:
            ValueError: height or width is no multiple of `pixels_per_code`.
        """
        check_image_size(images, self.pixels_per_code)
        logits: Tensor = self.encoder(self.reconstruction.scaled(images))
        return logits

    def forward(
        self, images: Tensor, noise: Tensor, *, temperature: float, hard: bool = False
    ) -> Reconstruction:
        """Reconstruct images from a sample of their codes.

        Args:
            images: (B, 3, H, W) in [0, 1].
            noise: (B, K, h, w), see `gumbel_noise`.
            temperature: of the Gumbel-softmax, > 0.
            hard: decode one code per cell, with the gradient of the soft weights.

        Returns:
            Its `loss` is the divergence of the codes' distribution from the uniform one, averaged
            over an image's cells. (BEiT's published code has the sum over batch and cells.)

        Raises:
            ValueError: a size or the temperature does not fit.
        """
        logits = self.logits(images)
        weights = gumbel_softmax(logits, noise, temperature=temperature, hard=hard)
        if self.codebook is not None:
            weights = torch.einsum("bkhw,kd->bdhw", weights, self.codebook.weight)
        divergence = kl_to_uniform(logits.movedim(1, -1), epsilon=_EPSILON).mean(dim=(1, 2))
        return Reconstruction(self._decoded(weights), logits.argmax(dim=1), divergence)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Find the most probable codes: (B, 3, H, W) in [0, 1] -> (B, h, w) int64.

        Raises:
            ValueError: height or width is no multiple of `pixels_per_code`.
        """
        return self.logits(images).argmax(dim=1)

    def decoder_output(self, codes: Tensor) -> Tensor:
        """Run the decoder on codes: (B, h, w) int64 -> (B, C, H, W).

        Raises:
            ValueError: there is no decoder.
        """
        if self.codebook is not None:
            return self._decoded(self.codebook(codes).movedim(-1, 1))
        dtype = next(self.encoder.parameters()).dtype
        return self._decoded(F.one_hot(codes, self.num_codes).movedim(-1, 1).to(dtype))

    def _decoded(self, vectors: Tensor) -> Tensor:
        if self.decoder is None:
            raise ValueError("a tokenizer must have a decoder to draw its codes, got an encoder")
        output: Tensor = self.decoder(vectors)
        return output
