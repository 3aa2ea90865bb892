"""Switching on the kernels that MODEL.KERNELS selects."""

from __future__ import annotations

import warnings

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.builders.backbones import configured_clip_size
from slowfast_maskfeat.builders.precision import autocast_precision
from slowfast_maskfeat.kernels import check_available


def check_kernels(cfg: CfgNode, device: torch.device) -> None:
    """Check that the kernels can be used, before anything is read or built.

    Args:
        cfg: configuration; not modified.
        device: of this process.

    Raises:
        ValueError: MODEL.KERNELS is triton where Triton is not installed or does not run.
    """
    if cfg.MODEL.KERNELS == "triton":
        check_available(device)


def switch_on_kernels(cfg: CfgNode, device: torch.device, *networks: nn.Module) -> None:
    """Let networks compute with the kernels; each is first compared with its plain form.

    Models are built without kernels, so that a checkpoint of a run with them loads anywhere.

    Args:
        cfg: configuration; not modified.
        device: of the networks.
        networks: models, and tasks with their targets and teachers; changed in place.

    Raises:
        ValueError: see `check_kernels`, or a kernel differs from its plain form.
    """
    check_kernels(cfg, device)
    if cfg.MODEL.KERNELS == "plain":
        return
    from slowfast_maskfeat.kernels.switch import switch_on  # imports Triton

    dtype = autocast_precision(cfg, device) or torch.float32
    clip_size = configured_clip_size(cfg)
    if not switch_on(networks, clip_size=clip_size, device=device, dtype=dtype):
        warnings.warn(
            "MODEL.KERNELS triton has no effect: this run has no depthwise pooling (MVIT.MODE "
            "conv) and no HOG target",
            UserWarning,
            stacklevel=2,
        )
