"""Builders of the tasks of training methods, for the rows of `methods.py`."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.builders.backbones import prediction_strides
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.model import prediction_dims
from slowfast_maskfeat.builders.targets import find_target
from slowfast_maskfeat.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    soft_cross_entropy,
)
from slowfast_maskfeat.targets import StoredLabelTarget, Target
from slowfast_maskfeat.tasks import (
    Classification,
    Detection,
    MaskedPrediction,
    MultiLabelClassification,
)

ClassLoss = Callable[[Tensor, Tensor], Tensor]

_BINARY_LOSSES = ("bce", "bce_logit")


def build_activation(cfg: CfgNode) -> Callable[[Tensor], Tensor]:
    """Build the function from logits to test scores (MODEL.HEAD_ACT): (..., K) -> (..., K)."""
    activations: dict[str, Callable[[Tensor], Tensor]] = {
        "softmax": _softmax,
        "sigmoid": torch.sigmoid,
        "none": _identity,
    }
    return activations[cfg.MODEL.HEAD_ACT]


def check_classification(cfg: CfgNode) -> None:
    """Check the loss of classification, and the scores of one with several labels per video.

    Raises:
        ValueError: MODEL.LOSS_FUNC is not a classification loss, or MODEL.HEAD_ACT does not fit it.
    """
    if takes_label_sets(cfg):
        if cfg.MODEL.HEAD_ACT != "sigmoid":
            raise ValueError(
                f"MODEL.HEAD_ACT must be 'sigmoid' with MODEL.LOSS_FUNC {cfg.MODEL.LOSS_FUNC!r}, "
                f"whose classes are scored one by one, got {cfg.MODEL.HEAD_ACT!r}"
            )
    elif cfg.MODEL.LOSS_FUNC not in _CLASS_LOSSES:
        raise ValueError(
            f"MODEL.LOSS_FUNC must be {' or '.join(map(repr, _CLASS_LOSSES))} for classification, "
            "or 'bce_logit' for that of videos with several labels, "
            f"got {cfg.MODEL.LOSS_FUNC!r}"
        )


def takes_label_sets(cfg: CfgNode) -> bool:
    """Return whether a classifier learns any number of classes of a video.

    Args:
        cfg: configuration; not modified.
    """
    return cfg.MODEL.LOSS_FUNC in _BINARY_LOSSES and not cfg.DETECTION.ENABLE


def build_classification(cfg: CfgNode, model: nn.Module, data: DataSource) -> Classification:
    """Build the task of a classifier."""
    has_sets = takes_label_sets(cfg)
    kind = MultiLabelClassification if has_sets else Classification
    return kind(
        binary_cross_entropy_with_logits if has_sets else _CLASS_LOSSES[cfg.MODEL.LOSS_FUNC],
        build_activation(cfg),
        num_classes=data.num_classes,
        ensemble=cfg.DATA.ENSEMBLE_METHOD,
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        class_names=data.class_names,
        label_smoothing=cfg.MIXUP.LABEL_SMOOTH_VALUE if cfg.MIXUP.ENABLE else 0.0,
    )


def check_detection(cfg: CfgNode) -> None:
    """Check the loss of detection, which depends on AVA.MULTI_LABEL.

    Raises:
        ValueError: MODEL.LOSS_FUNC contradicts AVA.MULTI_LABEL.
    """
    accepted = _BINARY_LOSSES if cfg.AVA.MULTI_LABEL else ("cross_entropy",)
    if cfg.MODEL.LOSS_FUNC not in (*accepted, "cross_entropy"):
        raise ValueError(
            f"MODEL.LOSS_FUNC must be {' or '.join(map(repr, accepted))} with AVA.MULTI_LABEL "
            f"{cfg.AVA.MULTI_LABEL}, got {cfg.MODEL.LOSS_FUNC!r}"
        )


def build_detection(cfg: CfgNode, model: nn.Module, data: DataSource) -> Detection:
    """Build the task of a detector."""
    # 'cross_entropy' is the default, which the published code rejects here.
    if cfg.AVA.MULTI_LABEL and cfg.MODEL.LOSS_FUNC == "cross_entropy":
        warnings.warn(
            "MODEL.LOSS_FUNC should be 'bce' with AVA.MULTI_LABEL True, got 'cross_entropy', which "
            "supports only one class per box: using 'bce'",
            UserWarning,
            stacklevel=2,
        )
    return Detection(
        binary_cross_entropy_with_logits if cfg.AVA.MULTI_LABEL else cross_entropy,
        build_activation(cfg),
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        read_truth=data.ground_truth,
    )


def check_masked_prediction(cfg: CfgNode) -> None:
    """Check that the target can be predicted at every depth.

    Raises:
        ValueError: there is no such target, it does not support the tokens of a depth, or it does
            not use MASK.LABEL_MAPS.
    """
    prediction_dims(cfg)
    if cfg.MASK.LABEL_MAPS and not find_target(cfg).label_maps(cfg):
        raise ValueError(
            f"MASK.LABEL_MAPS must be '' unless MASK.TARGET is 'pseudo_labels', got "
            f"{cfg.MASK.LABEL_MAPS!r} with MASK.TARGET {cfg.MASK.TARGET!r}"
        )


def build_masked_prediction(cfg: CfgNode, model: nn.Module, data: DataSource) -> MaskedPrediction:
    """Build the task of masked prediction."""
    targets = build_targets(cfg)
    for target in targets:  # a classifier has its own names
        if isinstance(target, StoredLabelTarget) and len(data.class_names) == target.num_classes:
            target.class_names = data.class_names
    return MaskedPrediction(targets, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)


def build_targets(cfg: CfgNode) -> list[Target]:
    """Build the target of each MASK.PRETRAIN_DEPTH.

    Args:
        cfg: configuration; not modified.
    """
    return list(find_target(cfg).build(cfg, prediction_strides(cfg)))


def _soft_cross_entropy_of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the cross-entropy with soft labels (B, K) or class numbers (B,)."""
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    return soft_cross_entropy(logits, labels)


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


def _identity(logits: Tensor) -> Tensor:
    return logits


_CLASS_LOSSES: dict[str, ClassLoss] = {
    "cross_entropy": cross_entropy,
    "soft_cross_entropy": _soft_cross_entropy_of_labels,
}
