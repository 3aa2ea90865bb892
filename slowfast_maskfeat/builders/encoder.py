"""Options and prediction grids of a (multiscale) vision transformer."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from slowfast_maskfeat.backbones import BlockOptions, Encoder, EncoderOptions
from slowfast_maskfeat.backbones.geometry import Triple, output_grids
from slowfast_maskfeat.backbones.masked import check_depths
from slowfast_maskfeat.backbones.meta_shapes import on_meta
from slowfast_maskfeat.shapes import Grid


def encoder_options(cfg: CfgNode) -> EncoderOptions:
    """Build the options of an encoder.

    Args:
        cfg: configuration; not modified.

    Returns:
        The options, which all models share.

    Raises:
        ValueError: MVIT.PATCH_KERNEL contradicts MVIT.PATCH_2D, or MVIT.MODE contradicts
            MVIT.POOL_FIRST, or MODEL.ACT_CHECKPOINT_BLOCKS has no block of MVIT.DEPTH.
    """
    keys = cfg.MVIT
    chosen = tuple(cfg.MODEL.ACT_CHECKPOINT_BLOCKS)
    if any(block >= keys.DEPTH for block in chosen):
        raise ValueError(
            "MODEL.ACT_CHECKPOINT_BLOCKS must be block numbers below MVIT.DEPTH "
            f"{keys.DEPTH}, got {list(chosen)}"
        )
    if (len(keys.PATCH_KERNEL) == 2) != keys.PATCH_2D:
        raise ValueError(
            "MVIT.PATCH_KERNEL must have 2 numbers with MVIT.PATCH_2D True and 3 with False, "
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
        decays_mask_token=keys.DECAY_MASK_TOKEN,
        position_offset=keys.POS_RESIZE_OFFSET,
        initialization=keys.INIT,
        activation_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        checkpointed_blocks=chosen,
    )


def _block_options(cfg: CfgNode) -> BlockOptions:
    keys = cfg.MVIT
    return BlockOptions(
        mlp_ratio=keys.MLP_RATIO,
        mode=keys.MODE,
        pool_first=keys.POOL_FIRST,
        separate_projections=keys.SEPARATE_QKV,
        qkv_bias=keys.QKV_BIAS,
        key_bias=keys.KEY_BIAS,
        has_cls=keys.CLS_EMBED_ON,
        rel_pos_spatial=keys.REL_POS_SPATIAL,
        rel_pos_temporal=keys.REL_POS_TEMPORAL,
        rel_pos_zero_init=keys.REL_POS_ZERO_INIT,
        position_bias=keys.REL_POS_BIAS,
        residual_pooling=keys.RESIDUAL_POOLING,
        dropout=keys.DROPOUT_RATE,
        layer_scale=keys.LAYER_SCALE,
    )


def encoder_patch_grid(cfg: CfgNode, clip_size: Triple) -> Grid:
    """Return the grid of the patch tokens.

    Args:
        cfg: configuration; not modified.
        clip_size: (T, H, W) in frames and pixels.
    """
    with on_meta():  # only shapes, without blocks
        return Encoder(encoder_options(cfg), num_blocks=0).patch_grid(clip_size)


def encoder_positions(cfg: CfgNode) -> str:
    """Describe the position embeddings.

    Args:
        cfg: configuration; not modified.
    """
    options = encoder_options(cfg)
    kinds = {
        "fixed sin-cos": options.sincos_positions,
        "absolute": options.absolute_positions and not options.sincos_positions,
        "relative in time": options.block.rel_pos_temporal,
        "relative in space": options.block.rel_pos_spatial,
        "relative, a bias shared by all blocks": options.block.position_bias == "shared",
        "relative, a bias of each block": options.block.position_bias == "block",
    }
    if options.separable_positions and kinds["absolute"]:
        kinds = {"absolute, separable in space and time": True, **kinds, "absolute": False}
    return "; ".join(kind for kind, is_there in kinds.items() if is_there) or "none"


def encoder_prediction_strides(cfg: CfgNode) -> list[Triple]:
    """Return the (frames, rows, columns) of a predicted token at each MASK.PRETRAIN_DEPTH.

    Args:
        cfg: configuration; not modified.
    """
    options = encoder_options(cfg)
    return [options.token_stride(depth) for depth in cfg.MASK.PRETRAIN_DEPTH]


def encoder_prediction_grids(cfg: CfgNode) -> list[Grid]:
    """Return the token grid at each MASK.PRETRAIN_DEPTH, for clips of the configured size.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: as `check_depths`.
    """
    options = encoder_options(cfg)
    check_depths(cfg.MASK.PRETRAIN_DEPTH, options.depth)
    grids = output_grids(encoder_patch_grid(cfg, options.clip_size), options.geometries())
    return [grids[depth] for depth in cfg.MASK.PRETRAIN_DEPTH]
