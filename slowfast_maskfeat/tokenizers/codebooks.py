"""Three ways to train a codebook: moving averages of sums, of directions, and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.losses import unit_length
from slowfast_maskfeat.tokenizers.quantizer import Quantizer, assign

# A code whose average size has fallen below this stays where it is: its sum has no digits left.
_SMALLEST_SIZE = 1e-10


class EMAQuantizer(Quantizer):
    """Codebook of moving averages: of the sum of a code's vectors, over that of their number.

    Sources: van den Oord et al., "Neural Discrete Representation Learning" (arXiv:1711.00937),
    appendix A.1; sizes are smoothed by `(size + epsilon) / (total + K epsilon) * total`.

    Args:
        num_codes: K.
        dim: D.
        decay: of the averages per step, in [0, 1).
        epsilon: of the smoothing.
        **options: of `Quantizer`.

    Attributes:
        sizes: (K,), average number of vectors in a step.
        totals: (K, D), average of their sum.

    Raises:
        ValueError: a number is outside its range.
    """

    sizes: Tensor
    totals: Tensor

    def __init__(
        self, num_codes: int, dim: int, *, decay: float, epsilon: float = 1e-5, **options: Any
    ) -> None:
        super().__init__(num_codes, dim, **options)
        self.decay = _checked_decay(decay)
        self.epsilon = epsilon
        self.register_buffer("sizes", torch.ones(num_codes))
        self.register_buffer("totals", self.codebook.clone())

    def _move(self, counts: Tensor, sums: Tensor, taken: Tensor) -> None:
        sizes = self.sizes.lerp(counts, 1 - self.decay)
        totals = self.totals.lerp(sums, 1 - self.decay)
        total = sizes.sum()
        smoothed = (sizes + self.epsilon) / (total + self.num_codes * self.epsilon) * total
        codebook = totals / smoothed[:, None]
        codebook = unit_length(codebook) if self.unit_sphere else codebook
        assign(self.codebook, codebook, taken & (sizes > _SMALLEST_SIZE)[:, None])
        assign(self.sizes, sizes, taken)
        assign(self.totals, totals, taken)

    def _set_use(self, which: Tensor, codes: Tensor, sizes: Tensor) -> None:
        assign(self.sizes, sizes, which)
        assign(self.totals, codes * sizes[:, None], which[:, None])


class DirectionEMAQuantizer(Quantizer):
    """Codebook on the unit sphere: moving averages of the mean direction of a code's vectors.

    A code that a step does not use stays. Source: BEiT v2 (arXiv:2208.06366) and its published
    code, beit2/norm_ema_quantizer.py.

    Args:
        num_codes: K.
        dim: D.
        decay: of the averages per step, in [0, 1).
        **options: of `Quantizer` but `unit_sphere`.

    Attributes:
        sizes: (K,), average number of vectors in a step, from 0.

    Raises:
        ValueError: a number is outside its range.
    """

    sizes: Tensor

    def __init__(self, num_codes: int, dim: int, *, decay: float, **options: Any) -> None:
        super().__init__(num_codes, dim, unit_sphere=True, **options)
        self.decay = _checked_decay(decay)
        self.register_buffer("sizes", torch.zeros(num_codes))

    def _move(self, counts: Tensor, sums: Tensor, taken: Tensor) -> None:
        mean = unit_length(sums / counts.clamp(min=1)[:, None])
        mean = torch.where(counts[:, None] > 0, mean, self.codebook)
        codebook = unit_length(self.codebook.lerp(mean, 1 - self.decay))
        assign(self.codebook, codebook, taken)
        assign(self.sizes, self.sizes.lerp(counts, 1 - self.decay), taken)


class LearnedQuantizer(Quantizer):
    """Codebook that is a parameter: its loss moves the codes to the vectors they stand for.

    Args:
        num_codes: K.
        dim: D.
        beta_on_codebook: weight the codebook's loss by `beta`, and the commitment loss by 1, as
            VQGAN's published code does by default. False: the reverse (arXiv:1711.00937, equation
            3). Both have the same value, but other gradients.
        **options: of `Quantizer`.

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self, num_codes: int, dim: int, *, beta_on_codebook: bool = False, **options: Any
    ) -> None:
        super().__init__(num_codes, dim, **options)
        self.beta_on_codebook = beta_on_codebook

    def _register_codebook(self, codebook: Tensor) -> None:
        self.codebook = nn.Parameter(codebook)

    def _codes(self) -> Tensor:
        return unit_length(self.codebook) if self.unit_sphere else self.codebook

    def _loss(self, vectors: Tensor, chosen: Tensor) -> Tensor:
        commitment = (vectors - chosen.detach()).square().mean(dim=-1)
        codebook = (vectors.detach() - chosen).square().mean(dim=-1)
        if self.beta_on_codebook:
            return commitment + self.beta * codebook
        return codebook + self.beta * commitment

    def _move(self, counts: Tensor, sums: Tensor, taken: Tensor) -> None:
        """Nothing: the optimizer moves the codebook."""


def _checked_decay(decay: float) -> float:
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"the decay of a codebook must be in [0, 1), got {decay}")
    return decay
