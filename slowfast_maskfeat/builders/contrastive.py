"""Builders of BYOL, DINO and iBOT: their networks and tasks."""

from __future__ import annotations

import warnings
from typing import Any

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.backbones import (
    Backbone,
    BYOLModel,
    ContrastiveModel,
    DINOHead,
    DINOModel,
    IBOTHead,
    IBOTModel,
    MLPHead,
)
from slowfast_maskfeat.builders.backbones import backbone_width, find_backbone
from slowfast_maskfeat.builders.batch_parts import check_koleo, clips_of_part, warn_of_parts
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.schedules import EpochWarmup, Schedule
from slowfast_maskfeat.tasks.byol import BYOL
from slowfast_maskfeat.tasks.dino import DINO
from slowfast_maskfeat.tasks.ibot import IBOT
from slowfast_maskfeat.tasks.teacher import Center

# The first kind of `contrastive_views`.
_NUM_GLOBAL_KINDS = 1


def check_contrastive(cfg: CfgNode) -> None:
    """Check the keys that BYOL, DINO and iBOT share.

    Raises:
        ValueError: a key has an invalid value or contradicts another.
    """
    patch = find_backbone(cfg).patch_size(cfg)
    if cfg.MASK.MAE_ON:
        raise ValueError(
            "MASK.MAE_ON must be False with MODEL.MODEL_NAME 'ContrastiveModel', got True: all "
            "tokens of a view pass through the encoder"
        )
    data = cfg.DATA
    if data.SSL_LOCAL_VIEWS and any(data.SSL_LOCAL_CROP_SIZE % side for side in patch):
        raise ValueError(
            "DATA.SSL_LOCAL_CROP_SIZE must be a multiple of MVIT.PATCH_STRIDE "
            f"{list(cfg.MVIT.PATCH_STRIDE)}, got {data.SSL_LOCAL_CROP_SIZE}"
        )
    _check_batch_norm(cfg)
    check_koleo(cfg)


def _check_batch_norm(cfg: CfgNode) -> None:
    keys = cfg.CONTRASTIVE
    if not keys.BN_MLP:
        return
    num_parts = 1 if keys.BN_SYNC_MLP else distributed.world_size()
    if clips_of_part(cfg) // num_parts < 2:
        raise ValueError(
            "TRAIN.BATCH_SIZE must give CONTRASTIVE.BN_MLP at least 2 samples to normalize, got "
            f"{cfg.TRAIN.BATCH_SIZE} with TRAIN.ACCUMULATION_STEPS "
            f"{cfg.TRAIN.ACCUMULATION_STEPS} and CONTRASTIVE.BN_SYNC_MLP {keys.BN_SYNC_MLP}"
        )


def check_byol(cfg: CfgNode) -> None:
    """Check the keys of BYOL.

    Raises:
        ValueError: there is not exactly one predictor, or see `check_contrastive`.
    """
    check_contrastive(cfg)
    _predictor_depth(cfg)
    if cfg.DATA.SSL_LOCAL_VIEWS:
        raise ValueError(
            "DATA.SSL_LOCAL_VIEWS must be 0 with CONTRASTIVE.TYPE 'byol', got "
            f"{cfg.DATA.SSL_LOCAL_VIEWS}"
        )


def _predictor_depth(cfg: CfgNode) -> int:
    depths = cfg.CONTRASTIVE.PREDICTOR_DEPTHS
    if len(depths) != 1:
        raise ValueError(
            "CONTRASTIVE.PREDICTOR_DEPTHS must be the number of layers of one predictor with "
            f"CONTRASTIVE.TYPE 'byol', such as [2], got {list(depths)}"
        )
    return int(depths[0])


def check_dino(cfg: CfgNode) -> None:
    """Check the keys of DINO.

    Raises:
        ValueError: there is one prototype, or see `check_contrastive`.
    """
    check_contrastive(cfg)
    keys = cfg.CONTRASTIVE
    for name in ("DIM", "PATCH_DIM"):
        if keys[name] == 1:
            raise ValueError(
                f"CONTRASTIVE.{name} must be at least 2 prototypes with CONTRASTIVE.TYPE "
                f"{keys.TYPE!r}, got 1"
            )


def check_ibot(cfg: CfgNode) -> None:
    """Check the keys of iBOT.

    Raises:
        ValueError: no kind of masks is selected, nothing would be trained, or see `check_dino`.
    """
    check_dino(cfg)
    keys = cfg.CONTRASTIVE
    if not keys.VIEW_WEIGHT and not keys.PATCH_WEIGHT:
        raise ValueError(
            "CONTRASTIVE.VIEW_WEIGHT or CONTRASTIVE.PATCH_WEIGHT must be > 0, got 0 for both: "
            "nothing would be trained"
        )
    if not cfg.AUG.MASK_KIND:
        raise ValueError(
            "AUG.MASK_KIND must be set with CONTRASTIVE.TYPE 'ibot', got ''; iBOT's masks are "
            "'ibot' and 'ibot_random'"
        )
    ranges = cfg.AUG.MASK_RATIO_RANGES
    if cfg.AUG.MASK_KIND.startswith("ibot") and not any(map(any, ranges)):
        _report_no_masks(keys, ranges)


def _report_no_masks(keys: CfgNode, ranges: list[list[float]]) -> None:
    """Say that no view has a mask: the loss of the tokens is 0."""
    why = f"AUG.MASK_RATIO_RANGES must have a ratio > 0, got {ranges}: no token is masked"
    if not keys.VIEW_WEIGHT:
        raise ValueError(f"{why}, and with CONTRASTIVE.VIEW_WEIGHT 0 nothing would be trained")
    if keys.PATCH_WEIGHT:
        warnings.warn(
            f"{why}, and CONTRASTIVE.PATCH_WEIGHT {keys.PATCH_WEIGHT:g} has no effect",
            UserWarning,
            stacklevel=2,
        )


def prototype_warnings(cfg: CfgNode) -> list[str]:
    """Describe what in the schedules of DINO and iBOT is probably not meant."""
    keys, num_epochs = cfg.CONTRASTIVE, cfg.SOLVER.MAX_EPOCH
    found = []
    if num_epochs < keys.TEACHER_T_EPOCHS:
        found.append(
            f"CONTRASTIVE.TEACHER_T_EPOCHS should be at most SOLVER.MAX_EPOCH {num_epochs:g}, got "
            f"{keys.TEACHER_T_EPOCHS}: training ends before the temperature of the teacher reaches "
            f"{keys.TEACHER_T[-1]:g} (CONTRASTIVE.TEACHER_T)"
        )
    if num_epochs <= keys.FREEZE_LAST_LAYER_EPOCHS:
        found.append(
            "CONTRASTIVE.FREEZE_LAST_LAYER_EPOCHS should be below SOLVER.MAX_EPOCH "
            f"{num_epochs:g}, got {keys.FREEZE_LAST_LAYER_EPOCHS}: the prototypes are never trained"
        )
    return found


def build_byol_model(cfg: CfgNode, data: DataSource) -> BYOLModel:
    """Build a backbone with projector and predictor.

    Args:
        cfg: configuration; not modified.
        data: the run's data source.
    """
    keys = cfg.CONTRASTIVE
    options = {
        "hidden_dim": keys.MLP_DIM,
        "batch_norm": keys.BN_MLP,
        "all_processes": keys.BN_SYNC_MLP,
        "hidden_bias": keys.HIDDEN_BIAS,
        "last_bias": keys.LAST_BIAS,
    }
    return BYOLModel(
        _backbone(cfg, takes_masks=False),
        MLPHead(backbone_width(cfg), keys.DIM, num_layers=keys.NUM_MLP_LAYERS, **options),
        MLPHead(keys.DIM, keys.DIM, num_layers=_predictor_depth(cfg), **options),
    )


def build_dino_model(cfg: CfgNode, data: DataSource) -> DINOModel:
    """Build a backbone with prototypes of views.

    Args:
        cfg: configuration; not modified.
        data: the run's data source.
    """
    head = DINOHead(backbone_width(cfg), cfg.CONTRASTIVE.DIM, **_head_options(cfg))
    return DINOModel(_backbone(cfg, takes_masks=False), head)


def build_ibot_model(cfg: CfgNode, data: DataSource) -> IBOTModel:
    """Build a backbone with a mask token and prototypes of views and patch tokens.

    Args:
        cfg: configuration; not modified.
        data: the run's data source.
    """
    keys = cfg.CONTRASTIVE
    head = IBOTHead(
        backbone_width(cfg),
        keys.DIM,
        patch_out_dim=keys.PATCH_DIM or keys.DIM,
        shared=not keys.PATCH_DIM,
        **_head_options(cfg),
    )
    return IBOTModel(_backbone(cfg, takes_masks=True), head)


def _backbone(cfg: CfgNode, *, takes_masks: bool) -> Backbone:
    return find_backbone(cfg).build_for_views(cfg, takes_masks=takes_masks)


def _head_options(cfg: CfgNode) -> dict[str, Any]:
    keys = cfg.CONTRASTIVE
    return {
        "hidden_dim": keys.MLP_DIM,
        "bottleneck_dim": keys.BOTTLENECK_DIM,
        "num_layers": keys.NUM_MLP_LAYERS,
        "batch_norm": keys.BN_MLP,
        "all_processes": keys.BN_SYNC_MLP,
        "norm_last_layer": keys.NORM_LAST_LAYER,
    }


def build_byol(cfg: CfgNode, model: nn.Module, data: DataSource) -> BYOL:
    """Build the task of BYOL."""
    assert isinstance(model, ContrastiveModel)
    return BYOL(model, temperature=cfg.CONTRASTIVE.T, **_teacher_options(cfg))


def build_dino(cfg: CfgNode, model: nn.Module, data: DataSource) -> DINO:
    """Build the task of DINO."""
    assert isinstance(model, DINOModel)
    center = _center(cfg, cfg.CONTRASTIVE.DIM, cfg.CONTRASTIVE.TEACHER_T)
    return DINO(model, center=center, **_prototype_options(cfg))


def build_ibot(cfg: CfgNode, model: nn.Module, data: DataSource) -> IBOT:
    """Build the task of iBOT."""
    assert isinstance(model, IBOTModel)
    keys = cfg.CONTRASTIVE
    return IBOT(
        model,
        center=_center(cfg, keys.DIM, keys.TEACHER_T),
        patch_center=_center(cfg, keys.PATCH_DIM or keys.DIM, keys.PATCH_TEACHER_T),
        centers_masked=keys.PATCH_CENTER == "masked",
        view_weight=keys.VIEW_WEIGHT,
        patch_weight=keys.PATCH_WEIGHT,
        **_prototype_options(cfg),
    )


def _teacher_options(cfg: CfgNode) -> dict[str, Any]:
    keys = cfg.CONTRASTIVE
    warn_of_parts(cfg, "BN_MLP", "KOLEO_WEIGHT")
    end = 1.0 if keys.MOMENTUM_ANNEALING else keys.MOMENTUM
    return {
        "momentum": Schedule(keys.MOMENTUM, end),
        "mean": cfg.DATA.MEAN,
        "std": cfg.DATA.STD,
        "koleo_weight": keys.KOLEO_WEIGHT,
    }


def _prototype_options(cfg: CfgNode) -> dict[str, Any]:
    return {
        "num_global_kinds": _NUM_GLOBAL_KINDS,
        "num_epochs": cfg.SOLVER.MAX_EPOCH,
        "freeze_epochs": cfg.CONTRASTIVE.FREEZE_LAST_LAYER_EPOCHS,
        "student_temperature": cfg.CONTRASTIVE.T,
        **_teacher_options(cfg),
    }


def _center(cfg: CfgNode, dim: int, temperatures: list[float]) -> Center:
    keys = cfg.CONTRASTIVE
    start, end = temperatures
    rise = EpochWarmup(start, end, keys.TEACHER_T_EPOCHS)
    return Center(dim, momentum=keys.CENTER_MOMENTUM, temperature=rise)
