"""Builders of the networks of training methods, for the rows of `methods.py`."""

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
        cfg: configuration of a classifier or of its pre-training; not modified.
        data: the run's data source.
        mean_pooling: average the tokens even with MVIT.USE_MEAN_POOLING False.
    """
    return find_backbone(cfg).classifier(
        cfg, data.num_classes, mean_pooling=mean_pooling or cfg.MVIT.USE_MEAN_POOLING
    )


def build_detector(cfg: CfgNode, data: DataSource) -> nn.Module:
    """Build the detector of a backbone: model(clips, boxes) -> (R, K) logits.

    Args:
        cfg: configuration; not modified.
        data: the run's data source.
    """
    return find_backbone(cfg).detector(cfg, data.num_classes)


def build_masked_model(cfg: CfgNode, data: DataSource) -> MaskedModel:
    """Build the masked model of a backbone: model(clips, mask) -> [(M, dim), ...].

    Args:
        cfg: configuration; not modified.
        data: the run's data source.
    """
    return find_backbone(cfg).masked(cfg, prediction_dims(cfg))


def prediction_dims(cfg: CfgNode) -> list[int]:
    """Return the width of every prediction.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: there is no such target, or it does not support the stride of a prediction.
    """
    kind = find_target(cfg)
    return [kind.width(cfg, stride) for stride in prediction_strides(cfg)]
