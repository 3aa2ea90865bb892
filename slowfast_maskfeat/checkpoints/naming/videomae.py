"""VideoMAE of Hugging Face: no cls token, keys without bias, fixed positions not in its files."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from slowfast_maskfeat.checkpoints.naming.table import (
    ModelFacts,
    NameTable,
    require,
    require_patches,
)
from slowfast_maskfeat.checkpoints.naming.transformer import (
    DECODER,
    DECODER_NORM,
    LAYER,
    fuse_projections,
    layer_rows,
    name_decoder_norm,
    number_decoder_norm,
    require_decoder,
    split_projections,
    with_prefix,
)

_LIBRARY = "Hugging Face's VideoMAE"
_PREFIX = "videomae."
# Files have the first two; models of transformers 5 have q.bias and v.bias of the rows after them.
_LAYER = (
    ("attention.attention.q_bias", "attn.q.bias"),
    ("attention.attention.v_bias", "attn.v.bias"),
    *LAYER,
)
_TABLE = NameTable(
    [
        ("videomae.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("videomae.layernorm", "norm"),
        ("fc_norm", "norm"),
        ("classifier", "head.projection"),
        *layer_rows("videomae.encoder.layer.*", "blocks.*", _LAYER),
        ("encoder_to_decoder", "decoder_embed"),
        ("mask_token", "mask_token"),
        *layer_rows("decoder.decoder_layers.*", f"{DECODER}.*", _LAYER),
        ("decoder.norm", DECODER_NORM),
        ("decoder.head", "pred_head.projections.0"),
    ]
)
_TOLERANCE = 1e-5


def recognizes(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are named so."""
    kernel = weights.get("embeddings.patch_embeddings.projection.weight")
    bare = kernel is not None and kernel.ndim == 5
    return bare or any(name.startswith(_PREFIX) for name in weights)


def sinusoid_positions(num_tokens: int, width: int) -> Tensor:
    """Positions of tokens in a row: sines and cosines in turn.

    Source: "Attention Is All You Need" (Vaswani et al., 2017), section 3.5; VideoMAE (Tong et al.,
    2022) numbers its tokens along time, rows and columns for it.

    Args:
        num_tokens: N.
        width: D.

    Returns:
        (1, N, D), float32.
    """
    channels = torch.arange(width, dtype=torch.float64)
    frequencies = 10000 ** (-2 * (channels // 2) / width)
    angles = torch.arange(num_tokens, dtype=torch.float64)[:, None] * frequencies
    waves = torch.where(channels % 2 == 0, angles.sin(), angles.cos())
    return waves[None].float()


def to_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """From Hugging Face's names to the published ones.

    Args:
        weights: Tensors by their name, as in files of any transformers or as in models.
        facts: Of the model here; its grid says how many positions there are.

    Returns:
        Tensors by published name: the projections to queries, keys and values in one, whose keys
        have a bias of 0; fixed positions, which are not in the file, as ``pos_embed``; with a
        decoder its positions too, and a bias of 0 before it. Unknown names stay.

    Raises:
        ValueError: A layer is not complete.
    """
    renamed = number_decoder_norm(_TABLE.to_published(with_prefix(weights, _PREFIX)))
    published = fuse_projections(renamed)
    for name, width in _position_tables(published).items():
        published[name] = sinusoid_positions(facts.grid.num_tokens, width)
    if "decoder_embed.weight" in published:
        published["decoder_embed.bias"] = torch.zeros(len(published["decoder_embed.weight"]))
    return published


def from_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """From the published names to Hugging Face's.

    A bias of the keys is left out: it adds the same to a query's products with all keys, which
    softmax ignores.

    Args:
        weights: Tensors by published name.
        facts: Of the model here.

    Returns:
        Tensors by the names of their files: of VideoMAEForPreTraining if there is a decoder, else
        of VideoMAEForVideoClassification.

    Raises:
        ValueError: Hugging Face has no such model; its positions, above all, are fixed.
    """
    require_patches(weights, 3, _LIBRARY)
    require("cls_token" not in weights, _LIBRARY, "it has no cls token (MVIT.CLS_EMBED_ON False)")
    require_decoder(weights, _LIBRARY)
    is_classifier = "head.projection.weight" in weights
    require(
        not is_classifier or facts.mean_pooling,
        _LIBRARY,
        "it classifies the mean of the tokens before the last layer norm (MVIT.USE_MEAN_POOLING "
        "True)",
    )
    remaining = dict(weights)
    for name, width in _position_tables(weights).items():
        _require_sinusoid(remaining.pop(name, None), name, width, facts)
    if "decoder_embed.bias" in remaining:
        bias = remaining.pop("decoder_embed.bias")
        require(not bool(bias.any()), _LIBRARY, "its layer before the decoder has no bias")
    separate = name_decoder_norm(split_projections(remaining))
    separate = {n: value for n, value in separate.items() if not n.endswith(".attn.k.bias")}
    renamed = _TABLE.from_published(separate, _LIBRARY)
    if is_classifier:
        for last in ("weight", "bias"):
            renamed[f"fc_norm.{last}"] = renamed.pop(f"videomae.layernorm.{last}")
    return renamed


def _position_tables(published: Mapping[str, Tensor]) -> dict[str, int]:
    """Widths of the position tables that a model has, by name."""
    kernel, embed = (published.get(f"{n}.weight") for n in ("patch_embed.proj", "decoder_embed"))
    widths = {"pos_embed": kernel, "decoder_pos_embed": embed}
    return {name: len(weight) for name, weight in widths.items() if weight is not None}


def _require_sinusoid(table: Tensor | None, name: str, width: int, facts: ModelFacts) -> None:
    fixed = sinusoid_positions(facts.grid.num_tokens, width)
    require(
        table is not None
        and table.shape == fixed.shape
        and torch.allclose(table.float().cpu(), fixed, rtol=0, atol=_TOLERANCE),
        _LIBRARY,
        f"its positions are fixed, and {name!r} here is not what they are. Trained ones can't be "
        "written; a model that got them from VideoMAE keeps them with MVIT.USE_FIXED_SINCOS_POS "
        "True",
    )
