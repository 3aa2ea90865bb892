"""Configuration -> what is predicted at the masked tokens: one table of targets by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fvcore.common.config import CfgNode

from slowfast_maskfeat.backbones.geometry import Triple
from slowfast_maskfeat.builders.image_recipe import has_color_first
from slowfast_maskfeat.targets import HOGTarget, PixelTarget, Target


class TargetKind(NamedTuple):
    """What MASK.TARGET names.

    Attributes:
        build: (configuration, frames, rows and columns of a token) -> the target.
        width: likewise -> numbers predicted per token, which the model must know. A target whose
            making is costly, as one with a frozen network, says it without being made.
    """

    build: Callable[[CfgNode, Triple], Target]
    width: Callable[[CfgNode, Triple], int]


def find_target(cfg: CfgNode) -> TargetKind:
    """The target that MASK.TARGET names, or that PRED_HOG chooses where it is empty.

    Args:
        cfg: configuration; it is only read.

    Raises:
        ValueError: there is no such target.
    """
    name = cfg.MASK.TARGET or ("hog" if cfg.MASK.PRED_HOG else "pixels")
    if name not in TARGETS:
        known = ", ".join(map(repr, TARGETS))
        raise ValueError(f"MASK.TARGET is {name!r}; it takes {known} or '' (what PRED_HOG says)")
    return TARGETS[name]


def _build_hog(cfg: CfgNode, stride: Triple) -> Target:
    if cfg.MASK.PIXEL_LOSS != "l2":
        raise ValueError(
            f"MASK.PIXEL_LOSS: {cfg.MASK.PIXEL_LOSS!r} is of pixels, but HOG is predicted "
            "(MASK.TARGET, MASK.PRED_HOG), whose error is squared; 'l2' is right"
        )
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
        color_first=has_color_first(cfg),
        absolute=cfg.MASK.PIXEL_LOSS == "l1",
    )


def _cheap(build: Callable[[CfgNode, Triple], Target]) -> TargetKind:
    """A kind that is made to learn its width."""
    return TargetKind(build, lambda cfg, stride: build(cfg, stride).dim)


# What MASK.TARGET may name.
TARGETS = {"hog": _cheap(_build_hog), "pixels": _cheap(_build_pixels)}
