"""Configuration -> task and targets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from slowfast_maskfeat.builders.backbones import prediction_strides
from slowfast_maskfeat.builders.datasets import build_ground_truth, class_names, num_classes
from slowfast_maskfeat.builders.targets import find_target
from slowfast_maskfeat.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    soft_cross_entropy,
)
from slowfast_maskfeat.targets import Target
from slowfast_maskfeat.tasks import ClassifyTask, DetectTask, PretrainTask, Task


def build_task(cfg: CfgNode) -> Task:
    """What the run learns: masked prediction, the classes of boxes, or those of clips.

    MASK.ENABLE and DETECTION.ENABLE choose.

    Args:
        cfg: configuration; it is only read.

    Raises:
        ValueError: model, loss and task do not go together.
    """
    masked_model = cfg.MODEL.MODEL_NAME == "MaskMViT"
    if masked_model != cfg.MASK.ENABLE:
        raise ValueError(
            f"MASK.ENABLE is {cfg.MASK.ENABLE} and MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME!r}; "
            "pre-training takes True and 'MaskMViT', classification and detection False and 'MViT'"
        )
    if cfg.MASK.ENABLE:
        return PretrainTask(build_targets(cfg), mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    return _detection(cfg) if cfg.DETECTION.ENABLE else _classification(cfg)


def build_activation(cfg: CfgNode) -> Callable[[Tensor], Tensor]:
    """What makes scores of logits when testing (MODEL.HEAD_ACT): (..., K) -> (..., K)."""
    activations: dict[str, Callable[[Tensor], Tensor]] = {
        "softmax": _softmax,
        "sigmoid": torch.sigmoid,
        "none": _identity,
    }
    return activations[cfg.MODEL.HEAD_ACT]


def _classification(cfg: CfgNode) -> ClassifyTask:
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "cross_entropy": cross_entropy,
        "soft_cross_entropy": _soft_cross_entropy_of_labels,
    }
    if cfg.MODEL.LOSS_FUNC not in losses:
        raise ValueError(
            f"MODEL.LOSS_FUNC: {cfg.MODEL.LOSS_FUNC!r} is for pre-training or detection; "
            "classification takes " + " or ".join(map(repr, losses))
        )
    return ClassifyTask(
        losses[cfg.MODEL.LOSS_FUNC],
        build_activation(cfg),
        num_classes=num_classes(cfg),
        ensemble=cfg.DATA.ENSEMBLE_METHOD,
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        class_names=class_names(cfg),
    )


def _detection(cfg: CfgNode) -> DetectTask:
    """The labels of the boxes choose the loss: several classes each, or one."""
    several = cfg.AVA.MULTI_LABEL
    fitting = ("bce", "bce_logit") if several else ("cross_entropy",)
    if cfg.MODEL.LOSS_FUNC not in (*fitting, "cross_entropy"):
        raise ValueError(
            f"MODEL.LOSS_FUNC: {cfg.MODEL.LOSS_FUNC!r} does not fit AVA.MULTI_LABEL {several}: "
            f"{' or '.join(map(repr, fitting))} does"
        )
    if cfg.MODEL.LOSS_FUNC not in fitting:  # the default, which published code refuses here
        warnings.warn(
            "MODEL.LOSS_FUNC: 'cross_entropy' takes one class a box, and with AVA.MULTI_LABEL True "
            "they have several: 'bce' is used",
            UserWarning,
            stacklevel=2,
        )
    return DetectTask(
        binary_cross_entropy_with_logits if several else cross_entropy,
        build_activation(cfg),
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        read_truth=partial(build_ground_truth, cfg),
    )


def build_targets(cfg: CfgNode) -> list[Target]:
    """What is predicted, for each depth of MASK.PRETRAIN_DEPTH.

    Args:
        cfg: configuration; it is only read.
    """
    kind = find_target(cfg)
    return [kind.build(cfg, stride) for stride in prediction_strides(cfg)]


def _soft_cross_entropy_of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Soft labels (B, K) as they are; class numbers (B,) as certainty."""
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    return soft_cross_entropy(logits, labels)


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


def _identity(logits: Tensor) -> Tensor:
    return logits
