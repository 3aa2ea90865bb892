"""Builders of prediction targets: one row per target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from fvcore.common.config import CfgNode

from slowfast_maskfeat.backbones import describe_by_classes, describe_by_layers
from slowfast_maskfeat.backbones.geometry import Triple
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.image_recipe import has_color_first
from slowfast_maskfeat.builders.label_maps import label_map_folder
from slowfast_maskfeat.builders.teacher import (
    build_teacher,
    find_teacher,
    teacher_layers,
    teacher_width,
)
from slowfast_maskfeat.builders.tokenizer import (
    TrainedTokenizer,
    find_tokenizer,
    load_tokenizer,
)
from slowfast_maskfeat.builders.train_view import build_view_spec
from slowfast_maskfeat.clips import ViewSpec
from slowfast_maskfeat.targets import (
    FeatureTarget,
    HOGTarget,
    PixelTarget,
    PseudoLabelTarget,
    StoredLabelTarget,
    Target,
    TokenTarget,
)
from slowfast_maskfeat.targets.hog import hog_width
from slowfast_maskfeat.targets.pixels import pixel_width


def without_any(cfg: CfgNode) -> tuple[()]:
    """Return none: no kinds of views, so that a sample is one clip, no masks, no warnings."""
    return ()


def without_maps(cfg: CfgNode) -> str:
    """Return no folder: batches need no label maps."""
    return ""


class TargetKind(NamedTuple):
    """A row of `TARGETS`.

    Attributes:
        build: (configuration, strides) -> one target per prediction depth; a stride is the (frames,
            rows, columns) that a token covers. A frozen network is built once and shared by all
            depths.
        width: (configuration, stride) -> number of values predicted per token. The model is built
            before the target, so the width must not depend on building the target.
        views: configuration -> the kinds of views of a sample, the first of which is masked; none:
            one clip.
        label_maps: configuration -> the folder of label maps that batches must have; empty: none.
    """

    build: Callable[[CfgNode, Sequence[Triple]], Sequence[Target]]
    width: Callable[[CfgNode, Triple], int]
    views: Callable[[CfgNode], Sequence[ViewSpec]] = without_any
    label_maps: Callable[[CfgNode], str] = without_maps


def target_name(cfg: CfgNode) -> str:
    """Return the name of the target; where MASK.TARGET is empty, MASK.PRED_HOG decides."""
    return str(cfg.MASK.TARGET) or ("hog" if cfg.MASK.PRED_HOG else "pixels")


def find_target(cfg: CfgNode) -> TargetKind:
    """Find the target that MASK.TARGET names; if it is empty, MASK.PRED_HOG decides.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: there is no such target.
    """
    name = target_name(cfg)
    if name not in TARGETS:
        known = ", ".join(map(repr, (*TARGETS, "latents")))
        raise ValueError(
            f"MASK.TARGET must be one of {known}, or empty (then MASK.PRED_HOG decides), got "
            f"{name!r}"
        )
    return TARGETS[name]


def register_target(name: str, kind: TargetKind) -> None:
    """Register a value of MASK.TARGET.

    Raises:
        ValueError: the name is taken.
    """
    if name in TARGETS:
        raise ValueError(f"MASK.TARGET {name!r} is already registered")
    TARGETS[name] = kind


def _hog_width(cfg: CfgNode, stride: Triple) -> int:
    if cfg.MASK.PIXEL_LOSS != "l2":
        raise ValueError(
            "MASK.PIXEL_LOSS must be 'l2' with HOG targets (MASK.TARGET or MASK.PRED_HOG), got "
            f"{cfg.MASK.PIXEL_LOSS!r}, which applies to pixel targets only"
        )
    return hog_width(
        stride,
        bins=cfg.MASK.HOG_BINS,
        cell=cfg.MASK.HOG_CELL,
        num_channels=cfg.DATA.INPUT_CHANNEL_NUM[0],
    )


def _build_hog(cfg: CfgNode, strides: Sequence[Triple]) -> list[Target]:
    return [
        HOGTarget(
            stride,
            bins=cfg.MASK.HOG_BINS,
            cell=cfg.MASK.HOG_CELL,
            window=cfg.MASK.HOG_GAUSSIAN_WINDOW,
            num_channels=cfg.DATA.INPUT_CHANNEL_NUM[0],
        )
        for stride in strides
    ]


def _pixel_width(cfg: CfgNode, stride: Triple) -> int:
    all_frames = not cfg.MASK.TIME_STRIDE_LOSS
    return pixel_width(stride, all_frames=all_frames, num_channels=len(cfg.DATA.MEAN))


def _build_pixels(cfg: CfgNode, strides: Sequence[Triple]) -> list[Target]:
    return [
        PixelTarget(
            stride,
            mean=cfg.DATA.MEAN,
            std=cfg.DATA.STD,
            all_frames=not cfg.MASK.TIME_STRIDE_LOSS,
            norm=cfg.MASK.NORM_PRED_PIXEL,
            color_first=has_color_first(cfg),
            absolute=cfg.MASK.PIXEL_LOSS == "l1",
        )
        for stride in strides
    ]


def _feature_width(cfg: CfgNode, stride: Triple) -> int:
    teacher = find_teacher(cfg)
    layer = teacher_layers(cfg, teacher)[-1]
    return teacher.num_frames(cfg, stride[0]) * teacher_width(teacher, layer)


def _build_features(cfg: CfgNode, strides: Sequence[Triple]) -> list[Target]:
    teacher = find_teacher(cfg)
    layers = teacher_layers(cfg, teacher)
    tokens = build_teacher(cfg, teacher, describe_by_layers(layers), needs_classifier=False)
    return [
        FeatureTarget(
            tokens,
            num_features=teacher_width(teacher, layers[-1]),
            num_frames=teacher.num_frames(cfg, stride[0]),
            norm=cfg.MASK.FEATURE_NORM,
            loss=cfg.MASK.FEATURE_LOSS,
        )
        for stride in strides
    ]


def _pseudo_label_width(cfg: CfgNode, stride: Triple) -> int:
    if label_map_folder(cfg):
        return int(cfg.MODEL.NUM_CLASSES)
    teacher = find_teacher(cfg)
    return teacher.num_frames(cfg, stride[0]) * teacher.num_classes


def _build_pseudo_labels(cfg: CfgNode, strides: Sequence[Triple]) -> list[Target]:
    is_hard = cfg.MASK.PSEUDO_LABELS == "hard"
    if label_map_folder(cfg):
        stored = StoredLabelTarget(num_classes=cfg.MODEL.NUM_CLASSES, is_hard=is_hard)
        return [stored for _ in strides]
    teacher = find_teacher(cfg)
    logits = build_teacher(cfg, teacher, describe_by_classes, needs_classifier=True)
    return [
        PseudoLabelTarget(
            logits,
            num_classes=teacher.num_classes,
            num_frames=teacher.num_frames(cfg, stride[0]),
            is_hard=is_hard,
            class_names=teacher.class_names,
        )
        for stride in strides
    ]


def _codes_per_side(cfg: CfgNode, tokenizer: TrainedTokenizer, stride: Triple) -> int:
    """Return r: each token has r x r codes of a frame.

    Raises:
        ValueError: r is no whole number.
    """
    size = cfg.DATA.TRAIN_CROP_SIZE
    seen = cfg.TOKENIZER.CROP_SIZE or size
    # Pixels of the tokenizer's input that a token covers, times `size`, over those of a code.
    covered = [side * seen for side in stride[1:]]
    whole = tokenizer.pixels_per_code * size
    if seen % tokenizer.pixels_per_code or any(side % whole for side in covered):
        raise ValueError(
            f"predicted tokens of {stride[1]}x{stride[2]} pixels must have a whole number of codes "
            f"of {tokenizer.pixels_per_code} pixels ({tokenizer.path}) along each side of the "
            f"{seen} pixels that the tokenizer sees of {size}, got {covered[0] / whole:g} x "
            f"{covered[1] / whole:g}; set TOKENIZER.CROP_SIZE"
        )
    if stride[1] != stride[2]:
        raise ValueError(f"predicted tokens must be square for MASK.TARGET 'tokens', got {stride}")
    return covered[0] // whole


def _token_width(cfg: CfgNode, stride: Triple) -> int:
    tokenizer = find_tokenizer(cfg)
    num_frames = 1 if cfg.MASK.TIME_STRIDE_LOSS else stride[0]
    return num_frames * _codes_per_side(cfg, tokenizer, stride) ** 2 * tokenizer.num_codes


def _build_tokens(cfg: CfgNode, strides: Sequence[Triple]) -> list[Target]:
    tokenizer = find_tokenizer(cfg)
    network = load_tokenizer(tokenizer)
    return [
        TokenTarget(
            network,
            num_codes=tokenizer.num_codes,
            codes_per_side=_codes_per_side(cfg, tokenizer, stride),
            crop_size=cfg.TOKENIZER.CROP_SIZE or cfg.DATA.TRAIN_CROP_SIZE,
            num_frames=1 if cfg.MASK.TIME_STRIDE_LOSS else stride[0],
            clip_mean=cfg.DATA.MEAN,
            clip_std=cfg.DATA.STD,
            is_reversed=reverses_channels(cfg, "train"),
            view=1 if _token_views(cfg) else 0,
        )
        for stride in strides
    ]


def _token_views(cfg: CfgNode) -> Sequence[ViewSpec]:
    """Return the clip and the same crop in the size of the tokenizer, with BEiT's filter."""
    size = cfg.TOKENIZER.CROP_SIZE
    if size in (0, cfg.DATA.TRAIN_CROP_SIZE):
        return ()
    clip = build_view_spec(cfg)
    resized = replace(clip.augmentation, crop_size=size, interpolation="lanczos", antialias=True)
    return clip, replace(clip, augmentation=resized, crop_size=size, shares=0)


TARGETS = {
    "hog": TargetKind(_build_hog, _hog_width),
    "pixels": TargetKind(_build_pixels, _pixel_width),
    "features": TargetKind(_build_features, _feature_width),
    "pseudo_labels": TargetKind(
        _build_pseudo_labels, _pseudo_label_width, label_maps=label_map_folder
    ),
    "tokens": TargetKind(_build_tokens, _token_width, _token_views),
}
"""Targets by MASK.TARGET."""
