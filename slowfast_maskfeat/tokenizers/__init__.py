"""Tokenizers: networks that turn images into discrete tokens, and these back into images."""

from __future__ import annotations

from slowfast_maskfeat.tokenizers.base import ImageEncoder, Reconstruction, Tokenizer
from slowfast_maskfeat.tokenizers.codebooks import (
    DirectionEMAQuantizer,
    EMAQuantizer,
    LearnedQuantizer,
)
from slowfast_maskfeat.tokenizers.convolutional import ConvDecoder, ConvEncoder, FeatureDecoder
from slowfast_maskfeat.tokenizers.dalle import DalleDecoder, DalleEncoder
from slowfast_maskfeat.tokenizers.dvae import DVAE
from slowfast_maskfeat.tokenizers.gumbel import gumbel_noise, gumbel_softmax
from slowfast_maskfeat.tokenizers.quantizer import Quantized, Quantizer
from slowfast_maskfeat.tokenizers.reconstruction import (
    FeatureReconstruction,
    LogitLaplaceReconstruction,
    PixelReconstruction,
    ReconstructionKind,
    pixel_reconstruction,
)
from slowfast_maskfeat.tokenizers.vq import VQTokenizer
from slowfast_maskfeat.tokenizers.vqgan import VQGAN, VQGANDecoder, VQGANEncoder
from slowfast_maskfeat.tokenizers.vqkd import VQKD, PatchTransformer

__all__ = [
    "DVAE",
    "VQGAN",
    "VQKD",
    "ConvDecoder",
    "ConvEncoder",
    "DalleDecoder",
    "DalleEncoder",
    "DirectionEMAQuantizer",
    "EMAQuantizer",
    "FeatureDecoder",
    "FeatureReconstruction",
    "ImageEncoder",
    "LearnedQuantizer",
    "LogitLaplaceReconstruction",
    "PatchTransformer",
    "PixelReconstruction",
    "Quantized",
    "Quantizer",
    "Reconstruction",
    "ReconstructionKind",
    "Tokenizer",
    "VQGANDecoder",
    "VQGANEncoder",
    "VQTokenizer",
    "gumbel_noise",
    "gumbel_softmax",
    "pixel_reconstruction",
]
