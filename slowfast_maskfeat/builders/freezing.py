"""Freezing of the first blocks of a network (TRAIN.FREEZE_BLOCKS)."""

from __future__ import annotations

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import LayeredModel
from slowfast_maskfeat.builders.backbones import find_backbone
from slowfast_maskfeat.builders.methods import find_method, method_name

_ALL_BUT_HEAD = -1
_HEAD = "head"


def check_frozen_blocks(cfg: CfgNode) -> None:
    """Check that the network has as many blocks as are to be frozen.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: it has fewer, or the training is a pre-training.
    """
    number = cfg.TRAIN.FREEZE_BLOCKS
    if not number:
        return
    if not find_method(cfg).is_tested:
        raise ValueError(
            f"TRAIN.FREEZE_BLOCKS must be 0 for {method_name(cfg)}, which trains the whole "
            f"network, got {number}"
        )
    depth = find_backbone(cfg).build_on_meta(cfg).num_layers - 1
    if not _ALL_BUT_HEAD <= number <= depth:
        raise ValueError(
            f"TRAIN.FREEZE_BLOCKS must be in [0, {depth}] for a network of {depth} blocks, or "
            f"{_ALL_BUT_HEAD} to train the head only, got {number}"
        )


def freeze_blocks(cfg: CfgNode, model: nn.Module) -> None:
    """Freeze what TRAIN.FREEZE_BLOCKS says: no gradients, and evaluation mode for good.

    n > 0 freezes what makes the first tokens (patch embedding, position tables, class token, a norm
    before the blocks), a table of relative positions that all blocks share, and the first n blocks.
    -1 freezes everything but the head. An optimizer leaves frozen parameters out. Dropout and drop
    path of frozen modules are off, and their batch norms keep their statistics.

    Args:
        cfg: configuration, see `check_frozen_blocks`; not modified.
        model: bare model; changed in place.
    """
    number = cfg.TRAIN.FREEZE_BLOCKS
    if not number:
        return
    assert isinstance(model, LayeredModel), type(model).__name__
    before_blocks = getattr(model, "before_blocks", ())

    def is_frozen(name: str) -> bool:
        first = name.partition(".")[0]
        if number == _ALL_BUT_HEAD:
            return first != _HEAD
        return first in before_blocks or model.layer_id(name) <= number

    for name, parameter in model.named_parameters():
        if is_frozen(name):
            parameter.requires_grad_(False)
    for name, module in model.named_modules():
        parameters = list(module.parameters())
        has_frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
        # A dropout has no parameters.
        is_outside = number == _ALL_BUT_HEAD and "." not in name and name not in ("", _HEAD)
        if has_frozen or is_outside or name in before_blocks:
            module.eval()
