"""Views of two-view methods: two global ones and any number of small local ones.

BYOL (arXiv:2006.07733, appendix B), DINO (arXiv:2104.14294; main_dino.py) and iBOT
(arXiv:2111.07832; loader.py); in time SVT (arXiv:2112.01514; datasets/decoder.py of the official
code): global views span nearly the whole video, local ones an eighth of it, all with equally many
frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fvcore.common.config import CfgNode

from slowfast_maskfeat.augment import ColorRecipe
from slowfast_maskfeat.builders.train_view import (
    build_color_recipe,
    build_random_frames,
    build_train_transform,
    pair_of_key,
)
from slowfast_maskfeat.clips import RandomFrames, RandomSpan, SameFrames, ViewSpec

NUM_GLOBAL_VIEWS = 2


def contrastive_views(cfg: CfgNode) -> tuple[ViewSpec, ...]:
    """Build the kinds of views of a two-view method.

    Args:
        cfg: configuration; not modified.

    Returns:
        The global views, two per sample, and, if DATA.SSL_LOCAL_VIEWS is above 0, the local ones.

    Raises:
        ValueError: the crops of a sample are not two, a range is malformed, or a list of
            probabilities fits neither all views nor each of them.
    """
    data = cfg.DATA
    num_global = data.TRAIN_CROP_NUM_TEMPORAL * data.TRAIN_CROP_NUM_SPATIAL
    if num_global != NUM_GLOBAL_VIEWS:
        raise ValueError(
            "DATA.TRAIN_CROP_NUM_TEMPORAL times DATA.TRAIN_CROP_NUM_SPATIAL must be "
            f"{NUM_GLOBAL_VIEWS}, the global views of a sample, got {data.TRAIN_CROP_NUM_TEMPORAL} "
            f"times {data.TRAIN_CROP_NUM_SPATIAL}"
        )
    transform, colors = build_train_transform(cfg), _colors(cfg)
    views = ViewSpec(
        augmentation=transform,
        crop_size=data.TRAIN_CROP_SIZE,
        num_frames=data.NUM_FRAMES,
        temporal=_global_frames(cfg),
        count=NUM_GLOBAL_VIEWS,
        colors=colors[:NUM_GLOBAL_VIEWS],
    )
    if not data.SSL_LOCAL_VIEWS:
        return (views,)
    small = replace(
        transform,
        crop_size=data.SSL_LOCAL_CROP_SIZE,
        area=pair_of_key("DATA.SSL_LOCAL_SCALES_RELATIVE", data.SSL_LOCAL_SCALES_RELATIVE),
        colors=colors[-1] if colors else transform.colors,
    )
    local = ViewSpec(
        augmentation=small,
        crop_size=data.SSL_LOCAL_CROP_SIZE,
        num_frames=data.NUM_FRAMES,
        temporal=_local_frames(cfg),
        count=data.SSL_LOCAL_VIEWS,
    )
    return views, local


def _global_frames(cfg: CfgNode) -> RandomFrames | RandomSpan | SameFrames:
    sampling = _span("DATA.SSL_GLOBAL_SPAN", cfg.DATA.SSL_GLOBAL_SPAN) or build_random_frames(cfg)
    return sampling if cfg.DATA.TRAIN_CROP_NUM_TEMPORAL > 1 else SameFrames(sampling)


def _local_frames(cfg: CfgNode) -> RandomFrames | RandomSpan | SameFrames:
    if cfg.DATA.NUM_FRAMES == 1 and cfg.DATA.TRAIN_CROP_NUM_TEMPORAL == 1:
        return SameFrames()
    return _span("DATA.SSL_LOCAL_SPAN", cfg.DATA.SSL_LOCAL_SPAN) or build_random_frames(cfg)


def _span(key: str, values: list[float]) -> RandomSpan | None:
    pair = pair_of_key(key, values)
    return None if pair is None else RandomSpan(*pair)


def _colors(cfg: CfgNode) -> tuple[ColorRecipe, ...]:
    """Return the recipe of each global view, and that of the local views if there are any."""
    if not cfg.DATA.SSL_COLOR_JITTER:
        return ()
    number = NUM_GLOBAL_VIEWS + (cfg.DATA.SSL_LOCAL_VIEWS > 0)
    return tuple(
        build_color_recipe(cfg, blur_probability=blur, solarize_probability=solarize)
        for blur, solarize in zip(
            _for_views("DATA.SSL_BLUR_PROB", cfg.DATA.SSL_BLUR_PROB, number),
            _for_views("DATA.SSL_SOLARIZE_PROB", cfg.DATA.SSL_SOLARIZE_PROB, number),
            strict=True,
        )
    )


def _for_views(key: str, values: Sequence[float], number: int) -> Sequence[float]:
    """Return a value for each global view and one for the local ones; a single value is for all."""
    if len(values) == 1:
        return list(values) * number
    if len(values) != number:
        has_local = number > NUM_GLOBAL_VIEWS
        local = ", and one for the local views" if has_local else ""
        reason = "" if has_local else " with DATA.SSL_LOCAL_VIEWS 0"
        raise ValueError(
            f"{key} must have 1 value for all views, or one for each of the {NUM_GLOBAL_VIEWS} "
            f"global views{local}{reason}, got {values}"
        )
    return values
