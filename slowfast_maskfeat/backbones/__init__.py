"""Networks leave this room: classifiers of clips and the masked models that pre-train them."""

from __future__ import annotations

from slowfast_maskfeat.backbones.autoencoder import MaskedAutoencoder
from slowfast_maskfeat.backbones.encoder import Encoder
from slowfast_maskfeat.backbones.masked import MaskedModel, MaskedMViT, resize_mask
from slowfast_maskfeat.backbones.mvit import MViT, MViTDetector
from slowfast_maskfeat.backbones.options import BlockOptions, DecoderOptions, EncoderOptions

__all__ = [
    "BlockOptions",
    "DecoderOptions",
    "Encoder",
    "EncoderOptions",
    "MViT",
    "MViTDetector",
    "MaskedAutoencoder",
    "MaskedMViT",
    "MaskedModel",
    "resize_mask",
]
