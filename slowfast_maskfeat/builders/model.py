"""Configuration -> the network of a training method; a row of `methods.py` names one of these."""

from __future__ import annotations

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import FeatureModel, MaskedModel
from slowfast_maskfeat.builders.backbones import find_backbone, prediction_strides
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.targets import find_target


def build_classifier(cfg: CfgNode, data: DataSource, *, mean_pooling: bool = False) -> FeatureModel:
    """Build the classifier of a backbone: model(clips) -> (B, K) logits.

    Args:
        cfg: configuration, of a classifier or of its pre-training; it is only read.
        data: of the run.
        mean_pooling: pool the mean of the tokens, even if there is a class token.
    """
    return find_backbone(cfg).classifier(cfg, data.num_classes, mean_pooling=mean_pooling)


def build_detector(cfg: CfgNode, data: DataSource) -> nn.Module:
    """Build the detector of a backbone: model(clips, boxes) -> (R, K) logits.

    Args:
        cfg: configuration; it is only read.
        data: of the run.
    """
    return find_backbone(cfg).detector(cfg, data.num_classes)


def build_masked_model(cfg: CfgNode, data: DataSource) -> MaskedModel:
    """Build the masked model of a backbone: model(clips, mask) -> [(M, dim), ...].

    Args:
        cfg: configuration; it is only read.
        data: of the run.
    """
    return find_backbone(cfg).masked(cfg, prediction_dims(cfg))


def prediction_dims(cfg: CfgNode) -> list[int]:
    """Compute the width of every prediction.

    Args:
        cfg: configuration; it is only read.

    Raises:
        ValueError: there is no such target, or it cannot be made at the stride of a prediction.
    """
    kind = find_target(cfg)
    return [kind.width(cfg, stride) for stride in prediction_strides(cfg)]
