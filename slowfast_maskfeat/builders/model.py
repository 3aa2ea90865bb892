"""Configuration -> network."""

from __future__ import annotations

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.builders.backbones import find_backbone, prediction_strides
from slowfast_maskfeat.builders.targets import find_target


def build_model(cfg: CfgNode) -> nn.Module:
    """Builds the model that MODEL.MODEL_NAME names of the backbone that MODEL.ARCH names.

    Args:
        cfg: Configuration; it is only read.

    Returns:
        "MViT": model(clips) -> (B, K), or with DETECTION.ENABLE model(clips, boxes) -> (R, K),
        see `MViTDetector`. "MaskMViT": model(clips, mask) -> [(M, dim), ...], see `MaskedModel`.

    Raises:
        ValueError: A key has a value that no model can be made of; the message names it.
    """
    kind, name = find_backbone(cfg), cfg.MODEL.MODEL_NAME
    if name not in ("MViT", "MaskMViT"):
        raise ValueError(f"MODEL.MODEL_NAME must be 'MViT' or 'MaskMViT', got {name!r}")
    if cfg.DETECTION.ENABLE and name != "MViT":
        raise ValueError(
            f"MODEL.MODEL_NAME must be 'MViT' with DETECTION.ENABLE True, got {name!r}"
        )
    if name == "MaskMViT":
        return kind.masked(cfg, prediction_dims(cfg))
    return kind.detector(cfg) if cfg.DETECTION.ENABLE else kind.classifier(cfg, mean_pooling=False)


def prediction_dims(cfg: CfgNode) -> list[int]:
    """Width of every prediction.

    Args:
        cfg: Configuration; it is only read.

    Raises:
        ValueError: There is no such target, or it cannot be made at the stride of a prediction.
    """
    target = find_target(cfg)
    return [target.width(cfg, stride) for stride in prediction_strides(cfg)]
