"""Configuration -> task and targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from slowfast_maskfeat.backbones.geometry import Triple
from slowfast_maskfeat.build.classes import class_names, num_classes
from slowfast_maskfeat.build.model import prediction_strides, target_name
from slowfast_maskfeat.losses import cross_entropy, soft_cross_entropy
from slowfast_maskfeat.targets import HOGTarget, PixelTarget, Target
from slowfast_maskfeat.tasks import ClassifyTask, PretrainTask, Task


def build_task(cfg: CfgNode) -> Task:
    """What the run learns: masked prediction with MASK.ENABLE, else classification.

    Args:
        cfg: configuration; it is only read.

    Raises:
        ValueError: model, loss and task do not go together, or the task is detection, of which
            only the model exists.
    """
    if cfg.DETECTION.ENABLE:
        raise ValueError(
            "DETECTION.ENABLE is True: training and testing detection is not in this version; "
            "build_model gives the network"
        )
    masked_model = cfg.MODEL.MODEL_NAME == "MaskMViT"
    if masked_model != cfg.MASK.ENABLE:
        raise ValueError(
            f"MASK.ENABLE is {cfg.MASK.ENABLE} and MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME!r}; "
            "pre-training takes True and 'MaskMViT', classification False and 'MViT'"
        )
    if cfg.MASK.ENABLE:
        return PretrainTask(build_targets(cfg), mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "cross_entropy": cross_entropy,
        "soft_cross_entropy": _soft_cross_entropy_of_labels,
    }
    if cfg.MODEL.LOSS_FUNC not in losses:
        raise ValueError(
            f"MODEL.LOSS_FUNC: {cfg.MODEL.LOSS_FUNC!r} is for pre-training; classification takes "
            + " or ".join(map(repr, losses))
        )
    activations: dict[str, Callable[[Tensor], Tensor]] = {
        "softmax": _softmax,
        "sigmoid": torch.sigmoid,
        "none": _identity,
    }
    return ClassifyTask(
        losses[cfg.MODEL.LOSS_FUNC],
        activations[cfg.MODEL.HEAD_ACT],
        num_classes=num_classes(cfg),
        ensemble=cfg.DATA.ENSEMBLE_METHOD,
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        class_names=class_names(cfg),
    )


def build_targets(cfg: CfgNode) -> list[Target]:
    """What is predicted, for each depth of MASK.PRETRAIN_DEPTH.

    Args:
        cfg: configuration; it is only read.
    """
    builders: dict[str, Callable[[CfgNode, Triple], Target]] = {
        "hog": _build_hog,
        "pixels": _build_pixels,
    }
    build = builders[target_name(cfg)]
    return [build(cfg, stride) for stride in prediction_strides(cfg)]


def _build_hog(cfg: CfgNode, stride: Triple) -> Target:
    return HOGTarget(
        stride,
        bins=cfg.MASK.HOG_BINS,
        cell=cfg.MASK.HOG_CELL,
        window=cfg.MASK.HOG_GAUSSIAN_WINDOW,
        num_channels=cfg.DATA.INPUT_CHANNEL_NUM[0],
    )


def _build_pixels(cfg: CfgNode, stride: Triple) -> Target:
    return PixelTarget(
        stride,
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        all_frames=not cfg.MASK.TIME_STRIDE_LOSS,
        norm=cfg.MASK.NORM_PRED_PIXEL,
        color_first=cfg.MVIT.PATCH_2D,  # the published order of images
    )


def _soft_cross_entropy_of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Soft labels (B, K) as they are; class numbers (B,) as certainty."""
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    return soft_cross_entropy(logits, labels)


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


def _identity(logits: Tensor) -> Tensor:
    return logits
