"""Configuration -> what draws the masks of pre-training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from fvcore.common.config import CfgNode
from torch import Tensor

from slowfast_maskfeat.builders.backbones import prediction_grids
from slowfast_maskfeat.builders.image_recipe import clip_recipe
from slowfast_maskfeat.masks import block_mask, cube_mask, frame_mask, random_mask, tube_mask
from slowfast_maskfeat.shapes import Grid

MaskSampler = Callable[[np.random.Generator], Tensor]


def build_mask_sampler(cfg: CfgNode) -> MaskSampler:
    """What draws the masks of pre-training.

    Args:
        cfg: configuration; it is only read.

    Returns:
        sampler(generator) -> bool (t, h, w), True where masked.

    Raises:
        ValueError: AUG.MASK_WINDOW_SIZE contradicts the model, the ratio can't be masked, the keys
            ask for two kinds of masks or for one that there is not here, or MASK.MAE_ON meets masks
            that hide more of one clip than of another, or all of it.
    """
    grid, ratio = mask_grid(cfg), cfg.AUG.MASK_RATIO
    if not 0 < ratio < 1:
        raise ValueError(f"AUG.MASK_RATIO: {ratio} is wanted between 0 and 1; MaskFeat has 0.4")
    _check_kind(cfg, grid)
    sampler, is_exact = _mask_sampler(cfg, grid, ratio)
    if cfg.MASK.MAE_ON and not is_exact:
        raise ValueError(
            "MASK.MAE_ON: the encoder takes the same number of visible tokens of every clip, but "
            "masks made of boxes differ in size; set MASK.MAE_RND_MASK True (with AUG.MASK_TUBE "
            "or MASK.PER_FRAME_MASKING, if wanted), or AUG.MASK_FRAMES True"
        )
    if cfg.MASK.MAE_ON and bool(sampler(np.random.default_rng(0)).all()):
        raise ValueError(
            f"AUG.MASK_RATIO: {ratio} of {grid} tokens leaves none that the encoder of "
            "MASK.MAE_ON could see; a smaller one does"
        )
    return sampler


def _check_kind(cfg: CfgNode, grid: Grid) -> None:
    """Refuses keys of which one would be passed over, and masks other than asked for drawn."""
    tube, frames, per_frame = cfg.AUG.MASK_TUBE, cfg.AUG.MASK_FRAMES, cfg.MASK.PER_FRAME_MASKING
    block, at_random = list(cfg.MASK.RANDOM_BLOCK), cfg.MASK.MAE_RND_MASK
    if frames and at_random:
        raise ValueError(
            "AUG.MASK_FRAMES and MASK.MAE_RND_MASK are both True: the first hides whole frames, "
            "the second tokens at random; one of them is right"
        )
    if frames and tube:
        raise ValueError(
            "AUG.MASK_FRAMES and AUG.MASK_TUBE are both True: the first hides whole frames, the "
            "second the same places in all; one of them is right"
        )
    if frames and grid.t == 1:
        raise ValueError(
            f"AUG.MASK_FRAMES: whole frames are hidden among others, but the model predicts {grid} "
            "tokens (t, h, w), which are of one; False is right"
        )
    if per_frame and not at_random:
        raise ValueError("MASK.PER_FRAME_MASKING is of random masks: MASK.MAE_RND_MASK True")
    if per_frame and tube:
        raise ValueError(
            "MASK.PER_FRAME_MASKING and AUG.MASK_TUBE are both True: the first draws tokens of "
            "each frame anew, the second hides the same in all; one of them is right"
        )
    if block and not at_random:
        raise ValueError(f"MASK.RANDOM_BLOCK: {block} is of random masks: MASK.MAE_RND_MASK True")
    if block and len(block) != 3:
        raise ValueError(f"MASK.RANDOM_BLOCK: {block}: (t, h, w) in tokens is wanted")


def _mask_sampler(cfg: CfgNode, grid: Grid, ratio: float) -> tuple[MaskSampler, bool]:
    """The sampler that the configuration names, and whether it always hides the same number."""
    if cfg.MASK.MAE_RND_MASK:
        return _random_sampler(cfg, grid, ratio), True
    if cfg.AUG.MASK_FRAMES:
        return partial(frame_mask, grid, ratio), True
    if grid.t == 1:
        max_block = cfg.AUG.MAX_MASK_PATCHES_PER_BLOCK
        return partial(block_mask, grid, ratio, max_block=max_block), False
    if cfg.AUG.MASK_TUBE:
        return partial(tube_mask, grid, ratio), False
    return partial(cube_mask, grid, ratio), False


def _random_sampler(cfg: CfgNode, grid: Grid, ratio: float) -> MaskSampler:
    sampler = partial(
        random_mask,
        grid,
        ratio,
        tube=cfg.AUG.MASK_TUBE,
        per_frame=cfg.MASK.PER_FRAME_MASKING,
        block=tuple(cfg.MASK.RANDOM_BLOCK) or (1, 1, 1),
    )
    try:
        sampler(np.random.default_rng(0))
    except ValueError as error:
        raise ValueError(f"MASK.RANDOM_BLOCK: {error}") from error
    return sampler


def mask_grid(cfg: CfgNode) -> Grid:
    """The grid of the masks: AUG.MASK_WINDOW_SIZE, or that of the last prediction.

    Random masks (MASK.MAE_RND_MASK) are of single tokens, whatever the window, as published.

    Raises:
        ValueError: AUG.MASK_WINDOW_SIZE does not divide the grids of the predictions, or these do
            not cover the clips.
    """
    grids = prediction_grids(cfg)
    window = cfg.AUG.MASK_WINDOW_SIZE
    # The published files for images leave the default window of video in; it is not meant there.
    if not window or not clip_recipe(cfg).has_mask_window:
        return grids[-1]
    if len(window) == 2:
        window = [grids[-1].t, *window]
    if len(window) != 3 or min(window) < 1:
        raise ValueError(f"AUG.MASK_WINDOW_SIZE: {window}: (t, h, w) is wanted")
    grid = Grid(*window)
    for predicted in grids:
        if not grid.divides(predicted):
            raise ValueError(
                f"AUG.MASK_WINDOW_SIZE: masks of {grid} do not divide the {predicted} tokens that "
                f"the model predicts for clips of {cfg.DATA.NUM_FRAMES} frames of "
                f"{cfg.DATA.TRAIN_CROP_SIZE} pixels; leave it empty to derive it"
            )
    return grids[-1] if cfg.MASK.MAE_RND_MASK else grid
