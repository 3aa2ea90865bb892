"""Networks: backbones, and the classifiers, detectors and masked models made of them."""

from __future__ import annotations

from slowfast_maskfeat.backbones.attention_maps import last_attention
from slowfast_maskfeat.backbones.autoencoder import MaskedAutoencoder
from slowfast_maskfeat.backbones.base import (
    Backbone,
    FeatureModel,
    LayeredModel,
    LayerTokens,
    MaskedModel,
)
from slowfast_maskfeat.backbones.batch_norm import BatchNorm, move_statistics
from slowfast_maskfeat.backbones.block import turn_off_drops
from slowfast_maskfeat.backbones.compiled import compiled
from slowfast_maskfeat.backbones.contrastive import (
    BYOLModel,
    ContrastiveModel,
    DINOModel,
    IBOTModel,
    IBOTOutputs,
    MaskedViewEncoder,
    ViewOutputs,
)
from slowfast_maskfeat.backbones.descriptions import describe_by_classes, describe_by_layers
from slowfast_maskfeat.backbones.encoder import Encoder
from slowfast_maskfeat.backbones.masked import MaskedMViT
from slowfast_maskfeat.backbones.masking import resize_mask, split_masks, take_masked
from slowfast_maskfeat.backbones.models import BackboneModel, Classifier, MaskedPredictor
from slowfast_maskfeat.backbones.mvit import MViT, MViTDetector, NormedEncoder
from slowfast_maskfeat.backbones.options import BlockOptions, DecoderOptions, EncoderOptions
from slowfast_maskfeat.backbones.view_heads import DINOHead, IBOTHead, MLPHead

__all__ = [
    "BYOLModel",
    "Backbone",
    "BackboneModel",
    "BatchNorm",
    "BlockOptions",
    "Classifier",
    "ContrastiveModel",
    "DINOHead",
    "DINOModel",
    "DecoderOptions",
    "Encoder",
    "EncoderOptions",
    "FeatureModel",
    "IBOTHead",
    "IBOTModel",
    "IBOTOutputs",
    "LayerTokens",
    "LayeredModel",
    "MLPHead",
    "MViT",
    "MViTDetector",
    "MaskedAutoencoder",
    "MaskedMViT",
    "MaskedModel",
    "MaskedPredictor",
    "MaskedViewEncoder",
    "NormedEncoder",
    "ViewOutputs",
    "compiled",
    "describe_by_classes",
    "describe_by_layers",
    "last_attention",
    "move_statistics",
    "resize_mask",
    "split_masks",
    "take_masked",
    "turn_off_drops",
]
