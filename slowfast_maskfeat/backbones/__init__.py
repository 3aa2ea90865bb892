"""Networks: backbones, and the classifiers, detectors and masked models made of them."""

from __future__ import annotations

from slowfast_maskfeat.backbones.autoencoder import MaskedAutoencoder
from slowfast_maskfeat.backbones.base import (
    Backbone,
    FeatureModel,
    LayeredModel,
    LayerTokens,
    MaskedModel,
)
from slowfast_maskfeat.backbones.descriptions import describe_by_classes, describe_by_layers
from slowfast_maskfeat.backbones.encoder import Encoder
from slowfast_maskfeat.backbones.masked import MaskedMViT
from slowfast_maskfeat.backbones.masking import resize_mask, take_masked
from slowfast_maskfeat.backbones.models import BackboneModel, Classifier, MaskedPredictor
from slowfast_maskfeat.backbones.mvit import MViT, MViTDetector, NormedEncoder
from slowfast_maskfeat.backbones.options import BlockOptions, DecoderOptions, EncoderOptions

__all__ = [
    "Backbone",
    "BackboneModel",
    "BlockOptions",
    "Classifier",
    "DecoderOptions",
    "Encoder",
    "EncoderOptions",
    "FeatureModel",
    "LayerTokens",
    "LayeredModel",
    "MViT",
    "MViTDetector",
    "MaskedAutoencoder",
    "MaskedMViT",
    "MaskedModel",
    "MaskedPredictor",
    "NormedEncoder",
    "describe_by_classes",
    "describe_by_layers",
    "resize_mask",
    "take_masked",
]
