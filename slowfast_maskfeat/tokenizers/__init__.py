"""Tokenizers: networks that turn images into discrete tokens, and these back into images."""

from __future__ import annotations

from slowfast_maskfeat.tokenizers.codebooks import (
    DirectionEMAQuantizer,
    EMAQuantizer,
    LearnedQuantizer,
)
from slowfast_maskfeat.tokenizers.gumbel import gumbel_noise, gumbel_softmax
from slowfast_maskfeat.tokenizers.quantizer import Quantized, Quantizer

__all__ = [
    "DirectionEMAQuantizer",
    "EMAQuantizer",
    "LearnedQuantizer",
    "Quantized",
    "Quantizer",
    "gumbel_noise",
    "gumbel_softmax",
]
