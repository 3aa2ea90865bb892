"""Builders of mask samplers: one row per mask type."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from fvcore.common.config import CfgNode
from torch import Tensor

from slowfast_maskfeat.builders.backbones import prediction_grids
from slowfast_maskfeat.builders.image_recipe import clip_recipe
from slowfast_maskfeat.masks import (
    BlockKind,
    MaskSampler,
    MultiblockSampler,
    bevt_mask,
    block_mask,
    cube_mask,
    frame_mask,
    ibot_mask,
    random_mask,
    tube_mask,
)
from slowfast_maskfeat.shapes import Grid


class MaskKind(NamedTuple):
    """A row of `MASKS`.

    Attributes:
        build: (configuration, grid of the mask, ratio) -> sampler(generator) -> bool (t, h, w),
            True where masked.
        is_exact: every mask has the same number of masked tokens, as MASK.MAE_ON requires.
        masks_tokens: the grid of the mask is that of the predicted tokens, whatever
            AUG.MASK_WINDOW_SIZE says.
        draws_several: the sampler draws m masks of each clip, (m, t, h, w).
    """

    build: Callable[[CfgNode, Grid, float], MaskSampler]
    is_exact: bool = False
    masks_tokens: bool = False
    draws_several: bool = False


def register_mask(name: str, kind: MaskKind) -> None:
    """Register a value of AUG.MASK_KIND.

    Raises:
        ValueError: the name is taken.
    """
    if name in MASKS:
        raise ValueError(f"AUG.MASK_KIND {name!r} is already registered")
    MASKS[name] = kind


def build_mask_sampler(cfg: CfgNode) -> MaskSampler:
    """Build the mask sampler of masked prediction.

    Args:
        cfg: configuration; not modified.

    Returns:
        sampler(generator) -> bool (t, h, w), True where masked; (m, t, h, w) if AUG.MASK_KIND draws
        several masks of each clip.

    Raises:
        ValueError: AUG.MASK_WINDOW_SIZE contradicts the model, AUG.MASK_RATIO is out of range, the
            keys select several mask types or an unsupported one, MASK.MAE_ON is combined with
            masks of varying size or masks of all tokens, or the method takes one mask of each clip
            and AUG.MASK_KIND draws several.
    """
    grid, ratio = mask_grid(cfg), cfg.AUG.MASK_RATIO
    kind = _find_mask(cfg, grid.t)
    _check_keys(cfg, grid)
    takes_several = cfg.MASK.TARGET == "latents" and cfg.MASK.MAE_ON
    if kind.draws_several and not takes_several:
        raise ValueError(
            "AUG.MASK_KIND must be a kind with one mask for each clip with this training method, "
            f"got {cfg.AUG.MASK_KIND!r}, which draws several"
        )
    sampler = kind.build(cfg, grid, ratio)
    mask = sampler(np.random.default_rng(0))  # invalid settings fail here, not in a worker
    if cfg.MASK.MAE_ON and not kind.is_exact:
        raise ValueError(
            f"MASK.MAE_ON requires masks of a fixed size, got masks of type "
            f"{_mask_type(cfg, grid.t)!r}; set MASK.MAE_RND_MASK True (optionally with "
            "AUG.MASK_TUBE or MASK.PER_FRAME_MASKING), or AUG.MASK_FRAMES True"
        )
    if cfg.MASK.MAE_ON and bool(mask.flatten(-3).all(-1).any()):
        raise ValueError(
            f"AUG.MASK_RATIO must keep at least one token visible with MASK.MAE_ON, got {ratio} of "
            f"{grid} tokens; use a smaller ratio"
        )
    return sampler


def _mask_type(cfg: CfgNode, num_steps: int) -> str:
    """Return AUG.MASK_KIND, or what the published keys select for `num_steps` time steps."""
    if cfg.AUG.MASK_KIND:
        return str(cfg.AUG.MASK_KIND)
    if cfg.MASK.MAE_RND_MASK:
        return "random"
    if cfg.AUG.MASK_FRAMES:
        return "frame"
    if num_steps == 1:
        return "block"
    return "tube" if cfg.AUG.MASK_TUBE else "cube"


def _find_mask(cfg: CfgNode, num_steps: int) -> MaskKind:
    name = _mask_type(cfg, num_steps)
    if name not in MASKS:
        known = ", ".join(map(repr, MASKS))
        raise ValueError(
            f"AUG.MASK_KIND must be one of {known}, or empty (then MASK.MAE_RND_MASK, "
            f"AUG.MASK_FRAMES and AUG.MASK_TUBE decide), got {name!r}"
        )
    return MASKS[name]


def _check_keys(cfg: CfgNode, grid: Grid) -> None:
    """Check that the keys do not contradict each other."""
    name = _mask_type(cfg, grid.t)
    selected = {
        "MASK.MAE_RND_MASK": cfg.MASK.MAE_RND_MASK and name != "random",
        "AUG.MASK_FRAMES": cfg.AUG.MASK_FRAMES and name != "frame",
        "AUG.MASK_TUBE": cfg.AUG.MASK_TUBE and name == "frame",
        "MASK.PER_FRAME_MASKING": cfg.MASK.PER_FRAME_MASKING and name != "random",
        f"MASK.RANDOM_BLOCK {list(cfg.MASK.RANDOM_BLOCK)}": cfg.MASK.RANDOM_BLOCK
        and name != "random",
    }
    for key, is_other in selected.items():
        if is_other:
            raise ValueError(
                f"{key} does not apply to masks of type {name!r} ({_selector(cfg)}); set only the "
                "keys of one mask type"
            )
    if name == "block" and grid.t > 1:
        raise ValueError(
            f"AUG.MASK_KIND 'block' requires a token grid of one time step, got {grid}"
        )
    if cfg.MASK.RANDOM_BLOCK and len(cfg.MASK.RANDOM_BLOCK) != 3:
        block = list(cfg.MASK.RANDOM_BLOCK)
        raise ValueError(f"MASK.RANDOM_BLOCK must be (t, h, w) in tokens, got {block}")


def _selector(cfg: CfgNode) -> str:
    """Name the key that selected the mask type."""
    if cfg.AUG.MASK_KIND:
        return "AUG.MASK_KIND"
    if cfg.MASK.MAE_RND_MASK:
        return "MASK.MAE_RND_MASK True"
    if cfg.AUG.MASK_FRAMES:
        return "AUG.MASK_FRAMES True"
    return "MASK.MAE_RND_MASK and AUG.MASK_FRAMES False"


def _build_blocks(
    mask: Callable[..., Tensor], cfg: CfgNode, grid: Grid, ratio: float
) -> MaskSampler:
    return partial(
        mask,
        grid,
        ratio,
        max_block=cfg.AUG.MAX_MASK_PATCHES_PER_BLOCK,
        min_block=cfg.AUG.MIN_MASK_PATCHES_PER_BLOCK,
    )


def _build_ibot(
    cfg: CfgNode, grid: Grid, shape: Literal["block", "random"] = "block"
) -> MaskSampler:
    ranges = _pairs("AUG.MASK_RATIO_RANGES", cfg.AUG.MASK_RATIO_RANGES)
    min_block = cfg.AUG.MIN_MASK_PATCHES_PER_BLOCK
    most = max((high for _, high in ranges), default=0.0) * grid.num_tokens
    if shape == "block" and grid.t == 1 and 0 < most < (min_block or 0):
        raise ValueError(
            f"AUG.MIN_MASK_PATCHES_PER_BLOCK must be at most {int(most)}, or None, got {min_block}:"
            f" AUG.MASK_RATIO_RANGES masks no more of {grid.num_tokens} tokens"
        )
    return partial(ibot_mask, grid, ranges, shape=shape, min_block=min_block)


def _build_multiblock(cfg: CfgNode, grid: Grid, ratio: float) -> MaskSampler:
    pairs = _pairs("AUG.MASK_BLOCKS", cfg.AUG.MASK_BLOCKS)
    if any(number % 1 for number, _ in pairs):
        raise ValueError(f"AUG.MASK_BLOCKS must have whole numbers of blocks, got {pairs}")
    return MultiblockSampler(grid, [BlockKind(int(number), scale) for number, scale in pairs])


def _pairs(key: str, values: list[Any]) -> list[tuple[float, float]]:
    """Return a list of lists of two numbers as pairs."""
    for pair in values:
        if len(pair) != 2 or not all(type(number) in (int, float) for number in pair):
            raise ValueError(f"{key} must be a list of lists of two numbers, got {values}")
    return [(float(first), float(second)) for first, second in values]


def _build_random(cfg: CfgNode, grid: Grid, ratio: float) -> MaskSampler:
    return partial(
        random_mask,
        grid,
        ratio,
        tube=cfg.AUG.MASK_TUBE,
        per_frame=cfg.MASK.PER_FRAME_MASKING,
        block=tuple(cfg.MASK.RANDOM_BLOCK) or (1, 1, 1),
    )


MASKS = {
    "cube": MaskKind(lambda cfg, grid, ratio: partial(cube_mask, grid, ratio)),
    "tube": MaskKind(lambda cfg, grid, ratio: partial(tube_mask, grid, ratio)),
    "block": MaskKind(partial(_build_blocks, block_mask)),
    "bevt": MaskKind(partial(_build_blocks, bevt_mask)),
    "frame": MaskKind(lambda cfg, grid, ratio: partial(frame_mask, grid, ratio), is_exact=True),
    "random": MaskKind(_build_random, is_exact=True, masks_tokens=True),
    "ibot": MaskKind(lambda cfg, grid, ratio: _build_ibot(cfg, grid)),
    "ibot_random": MaskKind(
        lambda cfg, grid, ratio: _build_ibot(cfg, grid, "random"), masks_tokens=True
    ),
    "multiblock": MaskKind(_build_multiblock, is_exact=True, masks_tokens=True, draws_several=True),
}
"""Mask types by AUG.MASK_KIND."""


def mask_grid(cfg: CfgNode) -> Grid:
    """Return the grid of the masks: AUG.MASK_WINDOW_SIZE, or that of the last prediction.

    Random masks select single tokens regardless of the window, as published.

    Raises:
        ValueError: AUG.MASK_WINDOW_SIZE does not divide the prediction grids, or these do not cover
            the clips.
    """
    grids = prediction_grids(cfg)
    window = cfg.AUG.MASK_WINDOW_SIZE
    # The published image files keep the default window for video, which does not apply to them.
    if not window or not clip_recipe(cfg).has_mask_window:
        return grids[-1]
    if len(window) == 2:
        window = [grids[-1].t, *window]
    if len(window) != 3 or min(window) < 1:
        raise ValueError(f"AUG.MASK_WINDOW_SIZE must be (t, h, w), each at least 1, got {window}")
    grid = Grid(*window)
    for predicted in grids:
        if not grid.divides(predicted):
            raise ValueError(
                f"AUG.MASK_WINDOW_SIZE must divide the {predicted} tokens that the model predicts "
                f"for clips of {cfg.DATA.NUM_FRAMES} frames of {cfg.DATA.TRAIN_CROP_SIZE} pixels, "
                f"got {grid}; set it to [] to derive it"
            )
    return grids[-1] if _find_mask(cfg, grids[-1].t).masks_tokens else grid
