"""Trainings of a fraction of their length."""

from __future__ import annotations

from fvcore.common.config import CfgNode


def shorter_schedule(cfg: CfgNode, share: float) -> list[str]:
    """Return keys and values that shorten a training, its warm-up included.

    Args:
        cfg: configuration of the whole training; not changed.
        share: of its epochs, at least one of which remains.

    Returns:
        `["KEY", "VALUE", ...]`; empty for a share of 1.
    """
    if share == 1:
        return []
    epochs = max(round(cfg.SOLVER.MAX_EPOCH * share), 1)
    warmup = min(cfg.SOLVER.WARMUP_EPOCHS * share, epochs / 2)
    return ["SOLVER.MAX_EPOCH", str(epochs), "SOLVER.WARMUP_EPOCHS", str(warmup)]
