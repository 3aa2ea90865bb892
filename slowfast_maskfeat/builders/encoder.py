"""Configuration -> options of a (multiscale) vision transformer, and where it predicts."""

from __future__ import annotations

import torch
from fvcore.common.config import CfgNode

from slowfast_maskfeat.backbones import BlockOptions, Encoder, EncoderOptions
from slowfast_maskfeat.backbones.geometry import Triple, output_grids
from slowfast_maskfeat.shapes import Grid


def encoder_options(cfg: CfgNode) -> EncoderOptions:
    """Reads the options of an encoder.

    Args:
        cfg: Configuration; it is only read.

    Returns:
        The options that all models take.

    Raises:
        ValueError: The patch kernel contradicts MVIT.PATCH_2D, or MVIT.MODE MVIT.POOL_FIRST.
    """
    keys = cfg.MVIT
    if (len(keys.PATCH_KERNEL) == 2) != keys.PATCH_2D:
        raise ValueError(
            "MVIT.PATCH_KERNEL must have two numbers with MVIT.PATCH_2D True and three with False, "
            f"got {list(keys.PATCH_KERNEL)} with {keys.PATCH_2D}"
        )
    assert keys.NORM == "layernorm", keys.NORM
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
        block=_block_options(cfg),
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


def _block_options(cfg: CfgNode) -> BlockOptions:
    keys = cfg.MVIT
    return BlockOptions(
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
    )


def encoder_patch_grid(cfg: CfgNode, clip_size: Triple) -> Grid:
    """Grid of the patch tokens.

    Args:
        cfg: Configuration; it is only read.
        clip_size: (T, H, W) in frames and pixels.
    """
    with torch.device("meta"):  # shapes alone, and no blocks
        return Encoder(encoder_options(cfg), num_blocks=0).patch_grid(clip_size)


def encoder_positions(cfg: CfgNode) -> str:
    """Description of the position embeddings.

    Args:
        cfg: Configuration; it is only read.
    """
    options = encoder_options(cfg)
    kinds = {
        "fixed sines and cosines": options.sincos_positions,
        "absolute": options.absolute_positions and not options.sincos_positions,
        "relative along time": options.block.rel_pos_temporal,
        "relative along rows and columns": options.block.rel_pos_spatial,
    }
    if options.separable_positions and kinds["absolute"]:
        kinds = {"absolute, space and time apart": True, **kinds, "absolute": False}
    return "; ".join(kind for kind, is_there in kinds.items() if is_there) or "none"


def encoder_prediction_strides(cfg: CfgNode) -> list[Triple]:
    """(frames, rows, columns) of a predicted token at every depth of MASK.PRETRAIN_DEPTH.

    Args:
        cfg: Configuration; it is only read.
    """
    options = encoder_options(cfg)
    return [options.token_stride(depth) for depth in cfg.MASK.PRETRAIN_DEPTH]


def encoder_prediction_grids(cfg: CfgNode) -> list[Grid]:
    """Token grid at every depth of MASK.PRETRAIN_DEPTH, for clips of the configured size.

    Args:
        cfg: Configuration; it is only read.
    """
    options = encoder_options(cfg)
    grids = output_grids(encoder_patch_grid(cfg, options.clip_size), options.geometries())
    return [grids[depth] for depth in cfg.MASK.PRETRAIN_DEPTH]
