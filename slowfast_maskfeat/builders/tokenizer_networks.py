"""Builders of the networks of tokenizers: one row per TOKENIZER.ARCH."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import EncoderOptions
from slowfast_maskfeat.builders.encoder import encoder_options
from slowfast_maskfeat.tokenizers import (
    DVAE,
    VQGAN,
    VQKD,
    ConvDecoder,
    ConvEncoder,
    DalleDecoder,
    DalleEncoder,
    DirectionEMAQuantizer,
    EMAQuantizer,
    FeatureDecoder,
    FeatureReconstruction,
    LearnedQuantizer,
    LogitLaplaceReconstruction,
    PatchTransformer,
    PixelReconstruction,
    Quantizer,
    Tokenizer,
    VQGANDecoder,
    VQGANEncoder,
    VQTokenizer,
    pixel_reconstruction,
)

_FEATURES = "features"


class Parts(NamedTuple):
    """Optional parts of a tokenizer.

    Attributes:
        num_features: width of the features that it reconstructs; None: pixels.
        has_decoder: False leaves it out, where `Architecture.has_own_encoder` allows it.
    """

    num_features: int | None = None
    has_decoder: bool = True


def _no_check(cfg: CfgNode) -> None:
    """Check nothing: the keys of TOKENIZER are checked where the network is built."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A row of `ARCHITECTURES`.

    Attributes:
        build: (configuration, parts) -> the network.
        pixels_per_code: configuration -> rows, and columns, of pixels that a code stands for.
        types: values of TOKENIZER.TYPE that it goes with.
        reconstructs: what it reconstructs: pixels, features.
        has_own_encoder: the encoder is published without the decoder, and makes codes alone.
        check: raises ValueError for keys that do not fit it.
    """

    build: Callable[[CfgNode, Parts], Tokenizer]
    pixels_per_code: Callable[[CfgNode], int]
    types: tuple[str, ...]
    reconstructs: tuple[str, ...]
    has_own_encoder: bool = False
    check: Callable[[CfgNode], object] = _no_check


def find_architecture(cfg: CfgNode) -> Architecture:
    """Find the row of TOKENIZER.ARCH and check the keys that go with it.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: another key of TOKENIZER, or of MVIT, does not fit it.
    """
    keys = cfg.TOKENIZER
    row = ARCHITECTURES[keys.ARCH]
    reconstructs = _FEATURES if keys.RECONSTRUCTION == _FEATURES else "pixels"
    if not keys.WIDTHS:
        raise ValueError("TOKENIZER.WIDTHS must have the channels of at least one stage, got []")
    if keys.TYPE not in row.types:
        raise ValueError(
            f"TOKENIZER.TYPE must be {' or '.join(map(repr, row.types))} with TOKENIZER.ARCH "
            f"{keys.ARCH!r}, got {keys.TYPE!r}"
        )
    if reconstructs not in row.reconstructs:
        accepted = (
            "'features'" if row.reconstructs == (_FEATURES,) else "one of pixels, such as 'l2',"
        )
        raise ValueError(
            f"TOKENIZER.RECONSTRUCTION must be {accepted} with TOKENIZER.ARCH {keys.ARCH!r}, got "
            f"{keys.RECONSTRUCTION!r}"
        )
    row.check(cfg)
    return row


def _of_pixels(cfg: CfgNode) -> PixelReconstruction | LogitLaplaceReconstruction:
    return pixel_reconstruction(cfg.TOKENIZER.RECONSTRUCTION)


def _halvings(cfg: CfgNode) -> int:
    return int(2 ** len(cfg.TOKENIZER.WIDTHS))


def _halvings_between(cfg: CfgNode) -> int:
    return int(2 ** (len(cfg.TOKENIZER.WIDTHS) - 1))


def _build_convolutional(cfg: CfgNode, parts: Parts) -> Tokenizer:
    keys = cfg.TOKENIZER
    is_dvae = keys.TYPE == "dvae"
    encoder = ConvEncoder(
        keys.WIDTHS,
        num_blocks=keys.NUM_BLOCKS,
        out_channels=keys.NUM_CODES if is_dvae else keys.CODE_DIM,
    )
    widths = list(reversed(keys.WIDTHS))
    if parts.num_features is not None:
        kind = FeatureReconstruction()
        decoder: nn.Module = FeatureDecoder(
            keys.CODE_DIM,
            widths[0],
            num_blocks=keys.NUM_BLOCKS,
            out_channels=parts.num_features,
        )
    else:
        kind = _of_pixels(cfg)  # type: ignore[assignment]
        decoder = ConvDecoder(
            keys.CODE_DIM,
            widths,
            num_blocks=keys.NUM_BLOCKS,
            out_channels=kind.num_channels,  # type: ignore[attr-defined]
        )
    if is_dvae:
        return DVAE(encoder, decoder, code_dim=keys.CODE_DIM, reconstruction=kind)
    return VQTokenizer(encoder, build_quantizer(cfg), decoder, reconstruction=kind)


def _build_dalle(cfg: CfgNode, parts: Parts) -> Tokenizer:
    keys = cfg.TOKENIZER
    kind = _of_pixels(cfg)
    encoder = DalleEncoder(keys.WIDTHS, num_blocks=keys.NUM_BLOCKS, out_channels=keys.NUM_CODES)
    decoder = dalle_decoder(cfg) if parts.has_decoder else None
    return DVAE(encoder, decoder, code_dim=None, reconstruction=kind)


def dalle_decoder(cfg: CfgNode) -> DalleDecoder:
    """Build the decoder of TOKENIZER.ARCH dalle, which is also published alone."""
    keys = cfg.TOKENIZER
    return DalleDecoder(
        keys.NUM_CODES,
        keys.CODE_DIM,
        list(reversed(keys.WIDTHS)),
        num_blocks=keys.NUM_BLOCKS,
        out_channels=_of_pixels(cfg).num_channels,
    )


def _build_vqgan(cfg: CfgNode, parts: Parts) -> Tokenizer:
    keys = cfg.TOKENIZER
    kind = _of_pixels(cfg)
    options = {"num_blocks": keys.NUM_BLOCKS, "attends": keys.ATTENTION}
    encoder = VQGANEncoder(keys.WIDTHS, out_channels=keys.CODE_DIM, **options)
    decoder = VQGANDecoder(keys.CODE_DIM, keys.WIDTHS, out_channels=kind.num_channels, **options)
    return VQGAN(encoder, build_quantizer(cfg), decoder, reconstruction=kind)


def _patch_side(cfg: CfgNode) -> int:
    return int(_transformer_options(cfg).patch_stride[-1])


def _transformer_options(cfg: CfgNode) -> EncoderOptions:
    """Return the options of the encoder, on the frames of clips, one by one.

    Raises:
        ValueError: it is no plain transformer of images.
    """
    options = encoder_options(cfg)
    side = options.patch_kernel[-1]
    patches = tuple(options.patch_kernel), tuple(options.patch_stride), tuple(options.patch_padding)
    pooling = options.pool_q_stride, options.pool_kv_stride, options.pool_kv_stride_adaptive
    widening = options.dim_mul, options.head_mul
    is_of_squares = side >= 1 and patches == ((side, side), (side, side), (0, 0))
    if not is_of_squares or any((*pooling, *widening)):
        raise ValueError(
            "MVIT must describe a plain transformer on square patches of an image with "
            "TOKENIZER.ARCH 'vit', got MVIT.PATCH_KERNEL, PATCH_STRIDE and PATCH_PADDING "
            f"{', '.join(str(list(numbers)) for numbers in patches)}"
            f"{', and pooling or growing widths' if any((*pooling, *widening)) else ''}; see "
            "configs/_base_/backbone/vit_b_image.yaml"
        )
    return replace(options, clip_size=(1, *options.clip_size[1:]), activation_checkpoint=False)


def _build_transformer(cfg: CfgNode, parts: Parts) -> Tokenizer:
    keys, options = cfg.TOKENIZER, _transformer_options(cfg)
    assert parts.num_features is not None
    side = options.patch_stride[-1]
    grid = (options.clip_size[1] // side, options.clip_size[2] // side)
    decoder = replace(
        options,
        clip_size=(1, *grid),
        in_channels=keys.CODE_DIM,
        patch_kernel=(1, 1),
        patch_stride=(1, 1),
        depth=keys.NUM_BLOCKS,
    )
    return VQKD(
        PatchTransformer(options),
        build_quantizer(cfg),
        PatchTransformer(decoder),
        num_features=parts.num_features,
        reconstruction=FeatureReconstruction(),
    )


def build_quantizer(cfg: CfgNode) -> Quantizer:
    """Build the vector quantizer of TOKENIZER.CODEBOOK."""
    keys = cfg.TOKENIZER
    options = {
        "beta": keys.BETA,
        "kmeans_rounds": keys.KMEANS_ROUNDS,
        "restart_after": keys.RESTART_AFTER,
        "seed": cfg.RNG_SEED,
    }
    size = keys.NUM_CODES, keys.CODE_DIM
    if keys.CODEBOOK == "direction":
        return DirectionEMAQuantizer(*size, decay=keys.DECAY, **options)
    options["unit_sphere"] = keys.DISTANCE == "cosine"
    if keys.CODEBOOK == "gradient":
        return LearnedQuantizer(*size, beta_on_codebook=keys.BETA_ON_CODEBOOK, **options)
    return EMAQuantizer(*size, decay=keys.DECAY, **options)


ARCHITECTURES = {
    "convolutional": Architecture(
        build=_build_convolutional,
        pixels_per_code=_halvings,
        types=("vq", "dvae"),
        reconstructs=("pixels", _FEATURES),
    ),
    "dalle": Architecture(
        build=_build_dalle,
        pixels_per_code=_halvings_between,
        types=("dvae",),
        reconstructs=("pixels",),
        has_own_encoder=True,
    ),
    "vqgan": Architecture(
        build=_build_vqgan,
        pixels_per_code=_halvings_between,
        types=("vq",),
        reconstructs=("pixels",),
    ),
    "vit": Architecture(
        build=_build_transformer,
        pixels_per_code=_patch_side,
        types=("vq",),
        reconstructs=(_FEATURES,),
        check=_transformer_options,
    ),
}
"""Networks by TOKENIZER.ARCH."""
