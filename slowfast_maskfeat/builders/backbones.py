"""Builders of backbones and their models: a table by MODEL.ARCH that can be extended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import (
    Backbone,
    Classifier,
    FeatureModel,
    LayeredModel,
    MaskedModel,
    MaskedPredictor,
    MaskedViewEncoder,
    NormedEncoder,
)
from slowfast_maskfeat.backbones.geometry import Triple
from slowfast_maskfeat.backbones.meta_shapes import on_meta
from slowfast_maskfeat.builders.encoder import (
    encoder_options,
    encoder_patch_grid,
    encoder_positions,
    encoder_prediction_grids,
    encoder_prediction_strides,
)
from slowfast_maskfeat.builders.heads import build_masked_mvit, build_mvit, build_mvit_detector
from slowfast_maskfeat.shapes import Grid

# Keys of heads that registered backbones do not have, with the only accepted value.
# Of a clip: frames, rows and columns.
_SIZE_KEYS = ("DATA.NUM_FRAMES", "DATA.TRAIN_CROP_SIZE", "DATA.TRAIN_CROP_SIZE")
_PLAIN_HEAD = {"MAE_ON": False, "HEAD_TYPE": "separate", "DECODER_FIXED_SINCOS_POS": False}


class BackboneKind:
    """A value of MODEL.ARCH, whose models have the generic heads.

    Args:
        build: (configuration) -> the backbone. Also called under `on_meta`, where only
            its shapes matter.
    """

    def __init__(self, build: Callable[[CfgNode], Backbone]) -> None:
        self._build = build

    def fits(self, model_name: str) -> bool:
        """Whether MODEL.MODEL_NAME allows it: published names come in pairs with MODEL.ARCH."""
        return True

    def build(self, cfg: CfgNode, *, takes_masks: bool = False) -> Backbone:
        """Build the backbone; whether a registered one takes masks is its own decision.

        Raises:
            ValueError: the registered function does not return a backbone.
        """
        backbone = self._build(cfg)
        members = [name for kind in (LayeredModel, Backbone) for name in vars(kind)]
        missing = [n for n in members if not n.startswith("_") and not hasattr(backbone, n)]
        if missing or not isinstance(backbone, nn.Module):
            lacks = f"lacks {', '.join(missing)}" if missing else "is not an nn.Module"
            raise ValueError(
                f"MODEL.ARCH {cfg.MODEL.ARCH!r} must build a slowfast_maskfeat.backbones.Backbone, "
                f"got {type(backbone).__name__}, which {lacks}"
            )
        return backbone

    def build_for_views(self, cfg: CfgNode, *, takes_masks: bool) -> Backbone:
        """Build the backbone of a model that compares views, some of which are masked."""
        return self.build(cfg, takes_masks=takes_masks)

    def build_on_meta(self, cfg: CfgNode) -> Backbone:
        """Build the backbone on the meta device, for its shapes."""
        with on_meta():
            return self.build(cfg)

    def classifier(self, cfg: CfgNode, num_classes: int, *, mean_pooling: bool) -> FeatureModel:
        """Build model(clips) -> (B, K); `mean_pooling` ignores the class token."""
        return Classifier(
            self.build(cfg),
            num_classes,
            head_dropout=cfg.MODEL.DROPOUT_RATE,
            head_init_scale=cfg.MVIT.HEAD_INIT_SCALE,
            mean_pooling=mean_pooling,
        )

    def detector(self, cfg: CfgNode, num_classes: int) -> nn.Module:
        """Build model(clips, boxes) -> (R, K).

        Raises:
            ValueError: this backbone has no detector.
        """
        raise ValueError(
            f"MODEL.ARCH must be 'mvit' with DETECTION.ENABLE True, got {cfg.MODEL.ARCH!r}"
        )

    def masked(self, cfg: CfgNode, dims: Sequence[int]) -> MaskedModel:
        """Build model(clips, mask) -> [(M, dim), ...] with these dims, one per prediction.

        Raises:
            ValueError: a key selects a head that this backbone does not have.
        """
        for key, value in _PLAIN_HEAD.items():
            if cfg.MASK[key] != value:
                raise ValueError(
                    f"MASK.{key} must be {value!r} with MODEL.ARCH {cfg.MODEL.ARCH!r}, got "
                    f"{cfg.MASK[key]!r}: its prediction head is a linear layer on all tokens"
                )
        return MaskedPredictor(self.build(cfg), dims)

    def prediction_strides(self, cfg: CfgNode) -> list[Triple]:
        """Return the (frames, rows, columns) of a predicted token, one per prediction."""
        return [self.build_on_meta(cfg).token_stride]

    def prediction_grids(self, cfg: CfgNode) -> list[Grid]:
        """Return the token grid of each prediction for clips of the configured size."""
        return [self.build_on_meta(cfg).grids(configured_clip_size(cfg))[-1]]

    def first_grid(self, cfg: CfgNode, clip_size: Triple) -> Grid:
        """Return the grid of the first tokens of a clip (T, H, W)."""
        return self.build_on_meta(cfg).grids(clip_size)[0]

    def patch_size(self, cfg: CfgNode) -> tuple[int, int]:
        """Return the (rows, columns) in pixels that divide an image; a registered one takes any."""
        return 1, 1

    def positions(self, cfg: CfgNode) -> str:
        """Describe the position embeddings."""
        return f"those of MODEL.ARCH {cfg.MODEL.ARCH}"


class _MViTKind(BackboneKind):
    """MViT, MViTv2 and ViT, which have specific published heads."""

    def __init__(self, *, is_masked: bool) -> None:
        super().__init__(self.build)
        self._is_masked = is_masked

    def fits(self, model_name: str) -> bool:
        return self._is_masked == (model_name == "MaskMViT")

    def build(self, cfg: CfgNode, *, takes_masks: bool = False) -> Backbone:
        return NormedEncoder(encoder_options(cfg), takes_masks=takes_masks)

    def build_for_views(self, cfg: CfgNode, *, takes_masks: bool) -> Backbone:
        return MaskedViewEncoder(encoder_options(cfg)) if takes_masks else self.build(cfg)

    def classifier(self, cfg: CfgNode, num_classes: int, *, mean_pooling: bool) -> FeatureModel:
        return build_mvit(cfg, num_classes, mean_pooling=mean_pooling)

    def detector(self, cfg: CfgNode, num_classes: int) -> nn.Module:
        return build_mvit_detector(cfg, num_classes)

    def masked(self, cfg: CfgNode, dims: Sequence[int]) -> MaskedModel:
        return build_masked_mvit(cfg, dims)

    def prediction_strides(self, cfg: CfgNode) -> list[Triple]:
        return (
            encoder_prediction_strides(cfg) if self._is_masked else super().prediction_strides(cfg)
        )

    def prediction_grids(self, cfg: CfgNode) -> list[Grid]:
        return encoder_prediction_grids(cfg) if self._is_masked else super().prediction_grids(cfg)

    def first_grid(self, cfg: CfgNode, clip_size: Triple) -> Grid:
        return encoder_patch_grid(cfg, clip_size)

    def patch_size(self, cfg: CfgNode) -> tuple[int, int]:
        rows, columns = cfg.MVIT.PATCH_STRIDE[-2:]
        return rows, columns

    def positions(self, cfg: CfgNode) -> str:
        return encoder_positions(cfg)


# Values of MODEL.ARCH.
BACKBONES: dict[str, BackboneKind] = {
    "mvit": _MViTKind(is_masked=False),
    "maskmvit": _MViTKind(is_masked=True),
}


def register_backbone(name: str, build: Callable[[CfgNode], Backbone]) -> None:
    """Register a value of MODEL.ARCH.

    MODEL.MODEL_NAME MViT then builds a `Classifier` of the backbone, and MaskMViT a
    `MaskedPredictor`, which predicts after the last layer: MASK.PRETRAIN_DEPTH has no effect.

    Args:
        name: value of MODEL.ARCH.
        build: (configuration) -> the backbone. Also called under `on_meta`, where only
            its shapes matter.

    Raises:
        ValueError: the name is taken.
    """
    if name in BACKBONES:
        raise ValueError(f"MODEL.ARCH {name!r} is already registered")
    BACKBONES[name] = BackboneKind(build)


def find_backbone(cfg: CfgNode) -> BackboneKind:
    """Look up MODEL.ARCH.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: there is no such backbone, or it does not match MODEL.MODEL_NAME.
    """
    arch, model_name = cfg.MODEL.ARCH, cfg.MODEL.MODEL_NAME
    if arch not in BACKBONES:
        known = " or ".join(map(repr, BACKBONES))
        raise ValueError(f"MODEL.ARCH must be {known}, got {arch!r}")
    kind = BACKBONES[arch]
    if not kind.fits(model_name):
        fitting = " or ".join(
            repr(name) for name, other in BACKBONES.items() if other.fits(model_name)
        )
        raise ValueError(
            f"MODEL.ARCH must be {fitting} with MODEL.MODEL_NAME {model_name!r}, got {arch!r}"
        )
    return kind


def build_backbone(cfg: CfgNode, *, takes_masks: bool = False) -> Backbone:
    """Build the network that MODEL.ARCH names, without heads.

    Args:
        cfg: configuration; not modified.
        takes_masks: whether MViT and ViT get a mask token; registered backbones have one or not.

    Raises:
        ValueError: see `find_backbone`, or keys contradict each other.
    """
    return find_backbone(cfg).build(cfg, takes_masks=takes_masks)


def backbone_width(cfg: CfgNode) -> int:
    """Return the width D of the last tokens.

    Args:
        cfg: configuration; not modified.
    """
    return find_backbone(cfg).build_on_meta(cfg).width


def prediction_strides(cfg: CfgNode) -> list[Triple]:
    """Return the frames and pixels that one predicted token covers.

    Args:
        cfg: configuration; not modified.

    Returns:
        (frames, rows, columns) for every prediction.
    """
    return find_backbone(cfg).prediction_strides(cfg)


def prediction_grids(cfg: CfgNode) -> list[Grid]:
    """Return the token grid of every prediction, for clips of the configured size.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: the tokens of a prediction do not cover the clip exactly.
    """
    kind, clip_size = find_backbone(cfg), configured_clip_size(cfg)
    grids = kind.prediction_grids(cfg)
    for grid, stride in zip(grids, kind.prediction_strides(cfg), strict=True):
        _check_cover(grid, stride, clip_size)
    return grids


def _check_cover(grid: Grid, stride: Triple, clip_size: Triple) -> None:
    """Check that predicted tokens cover a clip of (frames, rows, columns) exactly."""
    for key, side, step in zip(_SIZE_KEYS, clip_size, stride, strict=True):
        if side % step:
            raise ValueError(
                f"{key} must be a multiple of {step}, which a predicted token covers, got {side}"
            )
    if tuple(cells * step for cells, step in zip(grid, stride, strict=True)) != clip_size:
        raise ValueError(
            "MVIT.PATCH_PADDING must be below half of MVIT.PATCH_KERNEL: "
            f"{grid} tokens of {stride} (frames, rows, columns) do not cover clips of {clip_size} "
            "exactly"
        )


def configured_clip_size(cfg: CfgNode) -> Triple:
    """Return the (T, H, W) of a training clip in frames and pixels."""
    size = cfg.DATA.TRAIN_CROP_SIZE
    return cfg.DATA.NUM_FRAMES, size, size
