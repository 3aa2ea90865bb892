"""Losses and layers that depend on which samples are computed together."""

from __future__ import annotations

import warnings

from fvcore.common.config import CfgNode

_EFFECTS_OF_PARTS = {
    "BN_MLP": "batch norm takes its statistics over each part of a batch",
    "KOLEO_WEIGHT": "samples are kept apart from those of their part of a batch",
}
"""CONTRASTIVE keys that gradient accumulation affects, and how (TRAIN.ACCUMULATION_STEPS)."""


def clips_of_part(cfg: CfgNode) -> int:
    """Count the samples that all processes see together before gradients are added up."""
    clips: int = cfg.TRAIN.BATCH_SIZE * cfg.NUM_SHARDS // cfg.TRAIN.ACCUMULATION_STEPS
    return clips


def check_koleo(cfg: CfgNode) -> None:
    """Check that KoLeo has samples to keep apart.

    Raises:
        ValueError: there are too few.
    """
    if cfg.CONTRASTIVE.KOLEO_WEIGHT and clips_of_part(cfg) < 2:
        raise ValueError(
            "TRAIN.BATCH_SIZE must give CONTRASTIVE.KOLEO_WEIGHT at least 2 samples to keep apart, "
            f"got {cfg.TRAIN.BATCH_SIZE} with TRAIN.ACCUMULATION_STEPS "
            f"{cfg.TRAIN.ACCUMULATION_STEPS}"
        )


def warn_of_parts(cfg: CfgNode, *keys: str) -> None:
    """Name what differs between a batch and the sum of its parts.

    Args:
        cfg: configuration; not modified.
        *keys: of CONTRASTIVE that the method uses.
    """
    num_parts = cfg.TRAIN.ACCUMULATION_STEPS
    if num_parts == 1:
        return
    for key in keys:
        if cfg.CONTRASTIVE[key]:
            warnings.warn(
                f"TRAIN.ACCUMULATION_STEPS {num_parts} changes the result of CONTRASTIVE.{key}: "
                f"{_EFFECTS_OF_PARTS[key]}",
                UserWarning,
                stacklevel=5,
            )
