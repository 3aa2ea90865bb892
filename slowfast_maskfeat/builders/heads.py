"""Builders of the classifier, detector and masked model of a (multiscale) vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

from fvcore.common.config import CfgNode

from slowfast_maskfeat.backbones import (
    DecoderOptions,
    MaskedAutoencoder,
    MaskedModel,
    MaskedMViT,
    MViT,
    MViTDetector,
)
from slowfast_maskfeat.backbones.geometry import Triple
from slowfast_maskfeat.builders.encoder import encoder_options


def build_mvit(cfg: CfgNode, num_classes: int, *, mean_pooling: bool) -> MViT:
    """Build the classifier of an encoder.

    Args:
        cfg: configuration; not modified.
        num_classes: K.
        mean_pooling: average the tokens, even if there is a class token.

    Returns:
        model(clips) -> (B, K).
    """
    return MViT(
        encoder_options(cfg),
        num_classes=num_classes,
        head_dropout=cfg.MODEL.DROPOUT_RATE,
        head_init_scale=cfg.MVIT.HEAD_INIT_SCALE,
        mean_pooling=mean_pooling,
    )


def build_mvit_detector(cfg: CfgNode, num_classes: int) -> MViTDetector:
    """Build the detector of an encoder.

    Args:
        cfg: configuration; not modified.
        num_classes: K.

    Returns:
        model(clips, boxes) -> (R, K), see `MViTDetector`.

    Raises:
        ValueError: DETECTION.SPATIAL_SCALE_FACTOR contradicts the encoder.
    """
    options = encoder_options(cfg)
    given, stride = cfg.DETECTION.SPATIAL_SCALE_FACTOR, options.token_stride()
    if given and (given, given) != stride[1:]:
        raise ValueError(
            f"DETECTION.SPATIAL_SCALE_FACTOR must be {stride[1]}, or 0 to derive it, got {given}: "
            f"a token after the last block covers {stride[1]}x{stride[2]} pixels "
            "(MVIT.PATCH_STRIDE times MVIT.POOL_Q_STRIDE)"
        )
    return MViTDetector(
        options,
        num_classes=num_classes,
        head_dropout=cfg.MODEL.DROPOUT_RATE,
        head_init_scale=cfg.MVIT.HEAD_INIT_SCALE,
        box_resolution=cfg.DETECTION.ROI_XFORM_RESOLUTION,
        aligned=cfg.DETECTION.ALIGNED,
    )


def build_masked_mvit(cfg: CfgNode, dims: Sequence[int]) -> MaskedModel:
    """Build the masked model of an encoder: MAE with MASK.MAE_ON, else with mask tokens.

    Args:
        cfg: configuration; not modified.
        dims: width of the prediction at each MASK.PRETRAIN_DEPTH; with MASK.MAE_ON, which has one
            depth, of that for each mask of a clip.

    Returns:
        model(clips, mask) -> [(M, dim), ...], see `MaskedModel`.

    Raises:
        ValueError: MASK keys contradict each other or the encoder; the message names them.
    """
    options, decoder = encoder_options(cfg), _decoder_options(cfg)
    depths = cfg.MASK.PRETRAIN_DEPTH
    if not cfg.MASK.MAE_ON and cfg.MASK.DECODER_FIXED_SINCOS_POS:
        raise ValueError(
            "MASK.DECODER_FIXED_SINCOS_POS requires MASK.MAE_ON True: without MAE the prediction "
            "head has no position embeddings"
        )
    if not cfg.MASK.MAE_ON:
        return MaskedMViT(options, prediction_depths=depths, prediction_dims=dims, decoder=decoder)
    if list(depths) != [cfg.MVIT.DEPTH - 1]:
        raise ValueError(
            f"MASK.PRETRAIN_DEPTH must be [{cfg.MVIT.DEPTH - 1}] with MASK.MAE_ON True and "
            f"MVIT.DEPTH {cfg.MVIT.DEPTH}, got {list(depths)}: the decoder follows the last block"
        )
    if not decoder.depth:
        raise ValueError(
            "MASK.MAE_ON requires a decoder: MASK.HEAD_TYPE 'separate_xformer' and a "
            f"MASK.DECODER_DEPTH of at least 1 (published: 4), got {cfg.MASK.HEAD_TYPE!r} and "
            f"{cfg.MASK.DECODER_DEPTH}"
        )
    return MaskedAutoencoder(
        options,
        prediction_dim=dims[0],
        decoder=decoder,
        separable_decoder_positions=cfg.MASK.DECODER_SEP_POS_EMBED,
        fixed_decoder_positions=cfg.MASK.DECODER_FIXED_SINCOS_POS,
        num_masks=len(dims),
    )


def _decoder_options(cfg: CfgNode) -> DecoderOptions:
    head_type = cfg.MASK.HEAD_TYPE
    assert head_type in ("separate", "separate_xformer"), head_type
    return DecoderOptions(
        depth=cfg.MASK.DECODER_DEPTH if head_type == "separate_xformer" else 0,
        width=cfg.MASK.DECODER_EMBED_DIM,
        num_heads=cfg.MASK.DECODER_NUM_HEADS,
        kernel_kv=_triple("MASK.DEC_KV_KERNEL", cfg.MASK.DEC_KV_KERNEL),
        stride_kv=_triple("MASK.DEC_KV_STRIDE", cfg.MASK.DEC_KV_STRIDE),
    )


def _triple(key: str, values: list[int]) -> Triple | None:
    """Return three numbers, or None for an empty list."""
    if not values:
        return None
    if len(values) != 3:
        raise ValueError(f"{key} must be (t, h, w) or empty, got {list(values)}")
    return (values[0], values[1], values[2])
