"""Networks leave this room: classifiers of clips and the masked models that pre-train them."""

from __future__ import annotations

from slowfast_maskfeat.backbones.encoder import Encoder, EncoderOptions
from slowfast_maskfeat.backbones.masked import MaskedMViT, resize_mask
from slowfast_maskfeat.backbones.mvit import MViT

__all__ = ["Encoder", "EncoderOptions", "MViT", "MaskedMViT", "resize_mask"]
