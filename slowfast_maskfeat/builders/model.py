"""Configuration -> network."""

from __future__ import annotations

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import (
    BlockOptions,
    DecoderOptions,
    Encoder,
    EncoderOptions,
    MaskedAutoencoder,
    MaskedModel,
    MaskedMViT,
    MViT,
    MViTDetector,
)
from slowfast_maskfeat.backbones.geometry import Triple, output_grids
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.targets import find_target
from slowfast_maskfeat.shapes import Grid


def encoder_options(cfg: CfgNode) -> EncoderOptions:
    """Reads what an encoder is made of.

    Args:
        cfg: Configuration; it is only read.

    Returns:
        The options that all models take.

    Raises:
        ValueError: The patch kernel contradicts MVIT.PATCH_2D.
    """
    keys = cfg.MVIT
    if (len(keys.PATCH_KERNEL) == 2) != keys.PATCH_2D:
        raise ValueError(
            f"MVIT.PATCH_2D is {keys.PATCH_2D} but MVIT.PATCH_KERNEL is "
            f"{list(keys.PATCH_KERNEL)}; 2-D patches take two numbers, 3-D ones three"
        )
    if keys.NORM != "layernorm":
        raise ValueError(f"MVIT.NORM is {keys.NORM!r}; it takes 'layernorm'")
    size = cfg.DATA.TRAIN_CROP_SIZE
    return EncoderOptions(
        clip_size=(cfg.DATA.NUM_FRAMES, size, size),
        in_channels=cfg.DATA.INPUT_CHANNEL_NUM[0],
        patch_kernel=tuple(keys.PATCH_KERNEL),
        patch_stride=tuple(keys.PATCH_STRIDE),
        patch_padding=tuple(keys.PATCH_PADDING),
        width=keys.EMBED_DIM,
        num_heads=keys.NUM_HEADS,
        depth=keys.DEPTH,
        block=BlockOptions(
            mlp_ratio=keys.MLP_RATIO,
            mode=keys.MODE,
            pool_first=keys.POOL_FIRST,
            separate_projections=keys.SEPARATE_QKV,
            qkv_bias=keys.QKV_BIAS,
            has_cls=keys.CLS_EMBED_ON,
            rel_pos_spatial=keys.REL_POS_SPATIAL,
            rel_pos_temporal=keys.REL_POS_TEMPORAL,
            rel_pos_zero_init=keys.REL_POS_ZERO_INIT,
            residual_pooling=keys.RESIDUAL_POOLING,
            dropout=keys.DROPOUT_RATE,
            layer_scale=keys.LAYER_SCALE,
        ),
        drop_path_rate=keys.DROPPATH_RATE,
        norm_stem=keys.NORM_STEM,
        pool_kernel=keys.POOL_KVQ_KERNEL,
        pool_q_stride=keys.POOL_Q_STRIDE,
        pool_kv_stride=keys.POOL_KV_STRIDE,
        pool_kv_stride_adaptive=keys.POOL_KV_STRIDE_ADAPTIVE,
        dim_mul=keys.DIM_MUL,
        head_mul=keys.HEAD_MUL,
        dim_mul_in_attention=keys.DIM_MUL_IN_ATT,
        absolute_positions=keys.USE_ABS_POS,
        separable_positions=keys.SEP_POS_EMBED,
        sincos_positions=keys.USE_FIXED_SINCOS_POS,
        sincos_time=keys.SINCOS_POS_TIME,
        sincos_twice=keys.SINCOS_POS_TWICE,
        initialization=keys.INIT,
        activation_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
    )


def prediction_strides(cfg: CfgNode) -> list[Triple]:
    """Pixels and frames that one predicted token stands for.

    Args:
        cfg: Configuration; it is only read.

    Returns:
        (frames, rows, columns) for every depth of MASK.PRETRAIN_DEPTH.
    """
    options = encoder_options(cfg)
    return [options.token_stride(depth) for depth in cfg.MASK.PRETRAIN_DEPTH]


def prediction_grids(cfg: CfgNode) -> list[Grid]:
    """Token grid at every depth of MASK.PRETRAIN_DEPTH, for clips of the configured size.

    Args:
        cfg: Configuration; it is only read.

    Returns:
        One grid per depth.

    Raises:
        ValueError: The tokens of a depth do not cover the clip, so that it has no target.
    """
    options = encoder_options(cfg)
    with torch.device("meta"):  # shapes alone, and no blocks
        patch_grid = Encoder(options, num_blocks=0).configured_grid
    clip_size, blocks = options.clip_size, options.geometries()
    grids = [output_grids(patch_grid, blocks)[depth] for depth in cfg.MASK.PRETRAIN_DEPTH]
    for grid, stride in zip(grids, prediction_strides(cfg), strict=True):
        covered = tuple(cells * step for cells, step in zip(grid, stride, strict=True))
        if covered != clip_size:
            raise ValueError(
                f"DATA.NUM_FRAMES and DATA.TRAIN_CROP_SIZE: the model predicts {grid} tokens of "
                f"(frames, rows, columns) {stride}, which are a clip of {covered}, but clips are "
                f"{clip_size}; sizes that are multiples, with an MVIT.PATCH_PADDING below half "
                "the kernel, fit"
            )
    return grids


def prediction_dims(cfg: CfgNode) -> list[int]:
    """Width of the prediction at every depth of MASK.PRETRAIN_DEPTH.

    Args:
        cfg: Configuration; it is only read.

    Returns:
        One number per depth.

    Raises:
        ValueError: There is no such target, or it cannot be made at the stride of a depth.
    """
    kind = find_target(cfg)
    return [kind.width(cfg, stride) for stride in prediction_strides(cfg)]


def build_classifier(cfg: CfgNode, data: DataSource, *, mean_pooling: bool = False) -> MViT:
    """Build the classifier of an encoder.

    Args:
        cfg: Configuration, of a classifier or of its pre-training; it is only read.
        data: Of the run.
        mean_pooling: Classify the mean of the tokens even without MVIT.USE_MEAN_POOLING.

    Returns:
        model(clips) -> (B, K).
    """
    return MViT(
        encoder_options(cfg),
        num_classes=data.num_classes,
        head_dropout=cfg.MODEL.DROPOUT_RATE,
        head_init_scale=cfg.MVIT.HEAD_INIT_SCALE,
        mean_pooling=cfg.MVIT.USE_MEAN_POOLING or mean_pooling,
    )


def build_detector(cfg: CfgNode, data: DataSource) -> nn.Module:
    """Build the detector of an encoder: model(clips, boxes) -> (R, K)."""
    options = encoder_options(cfg)
    given, stride = cfg.DETECTION.SPATIAL_SCALE_FACTOR, options.token_stride()
    if given and (given, given) != stride[1:]:
        raise ValueError(
            f"DETECTION.SPATIAL_SCALE_FACTOR is {given} but a token of this model's last block "
            f"stands for {stride[1]}x{stride[2]} pixels (MVIT.PATCH_STRIDE times "
            f"MVIT.POOL_Q_STRIDE); {stride[1]}, or 0 to have it derived, is right"
        )
    return MViTDetector(
        options,
        num_classes=data.num_classes,
        head_dropout=cfg.MODEL.DROPOUT_RATE,
        head_init_scale=cfg.MVIT.HEAD_INIT_SCALE,
        box_resolution=cfg.DETECTION.ROI_XFORM_RESOLUTION,
        aligned=cfg.DETECTION.ALIGNED,
    )


def build_masked_model(cfg: CfgNode, data: DataSource) -> MaskedModel:
    """Build a masked model of all tokens or, with MASK.MAE_ON, of the visible ones."""
    options, decoder = encoder_options(cfg), _decoder_options(cfg)
    depths, dims = cfg.MASK.PRETRAIN_DEPTH, prediction_dims(cfg)
    if not cfg.MASK.MAE_ON and cfg.MASK.DECODER_FIXED_SINCOS_POS:
        raise ValueError(
            "MASK.DECODER_FIXED_SINCOS_POS is of the decoder of MASK.MAE_ON, which is False; the "
            "blocks of a head behind all tokens have no positions of their own"
        )
    if not cfg.MASK.MAE_ON:
        return MaskedMViT(options, prediction_depths=depths, prediction_dims=dims, decoder=decoder)
    if list(depths) != [cfg.MVIT.DEPTH - 1]:
        raise ValueError(
            f"MASK.PRETRAIN_DEPTH is {list(depths)}; with MASK.MAE_ON what predicts comes after "
            f"the last of the {cfg.MVIT.DEPTH} blocks (MVIT.DEPTH), so [{cfg.MVIT.DEPTH - 1}]"
        )
    if not decoder.depth:
        raise ValueError(
            f"MASK.MAE_ON needs a decoder, in which mask tokens meet what was encoded; "
            f"MASK.HEAD_TYPE {cfg.MASK.HEAD_TYPE!r} with MASK.DECODER_DEPTH "
            f"{cfg.MASK.DECODER_DEPTH} has none, 'separate_xformer' with 4 is published"
        )
    return MaskedAutoencoder(
        options,
        prediction_dim=dims[0],
        decoder=decoder,
        separable_decoder_positions=cfg.MASK.DECODER_SEP_POS_EMBED,
        fixed_decoder_positions=cfg.MASK.DECODER_FIXED_SINCOS_POS,
    )


def _decoder_options(cfg: CfgNode) -> DecoderOptions:
    head_types = {"separate": 0, "separate_xformer": cfg.MASK.DECODER_DEPTH}
    if cfg.MASK.HEAD_TYPE not in head_types:
        raise ValueError(
            f"MASK.HEAD_TYPE is {cfg.MASK.HEAD_TYPE!r}; it takes "
            f"{' or '.join(map(repr, head_types))}"
        )
    return DecoderOptions(
        depth=head_types[cfg.MASK.HEAD_TYPE],
        width=cfg.MASK.DECODER_EMBED_DIM,
        num_heads=cfg.MASK.DECODER_NUM_HEADS,
        kernel_kv=_triple("MASK.DEC_KV_KERNEL", cfg.MASK.DEC_KV_KERNEL),
        stride_kv=_triple("MASK.DEC_KV_STRIDE", cfg.MASK.DEC_KV_STRIDE),
    )


def _triple(key: str, values: list[int]) -> Triple | None:
    """Three numbers, or None for an empty list."""
    if not values:
        return None
    if len(values) != 3:
        raise ValueError(f"{key} is {list(values)}; it takes (t, h, w) or an empty list")
    return (values[0], values[1], values[2])
