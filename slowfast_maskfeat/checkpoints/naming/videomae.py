"""VideoMAE of Hugging Face.

It has no class token, no bias of the keys, and fixed position embeddings, which its files lack.
"""

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
    """Whether weights have VideoMAE's names."""
    kernel = weights.get("embeddings.patch_embeddings.projection.weight")
    bare = kernel is not None and kernel.ndim == 5
    return bare or any(name.startswith(_PREFIX) for name in weights)


def sinusoid_positions(num_tokens: int, width: int) -> Tensor:
    """One-dimensional sin-cos position embeddings, with alternating sines and cosines.

    Source: "Attention Is All You Need" (Vaswani et al., 2017), section 3.5; VideoMAE (Tong et al.,
    2022) applies it to the index of a token in the order (t, h, w).

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
    """Convert from Hugging Face's names to the published ones.

    Args:
        weights: tensors by their name, as in files of any version of transformers or in models.
        facts: facts about the model here; its grid gives the number of positions.

    Returns:
        Tensors by published name: one projection to queries, keys and values, with a zero bias of
        the keys; the fixed position embeddings, which the file lacks, as `pos_embed`; with a
        decoder also its position embeddings, and a zero bias of the layer before it. Unknown names
        are kept.

    Raises:
        ValueError: a layer is incomplete.
    """
    renamed = number_decoder_norm(_TABLE.to_published(with_prefix(weights, _PREFIX)))
    return with_fixed_parts(fuse_projections(renamed), facts)


def with_fixed_parts(published: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Add what VideoMAE does not train: its positions, and no bias of the layer before a decoder.

    Args:
        published: tensors by published name.
        facts: facts about the model here.
    """
    whole = dict(published)
    for name, width in _position_tables(published).items():
        whole[name] = sinusoid_positions(facts.grid.num_tokens, width)
    if "decoder_embed.weight" in whole:
        whole["decoder_embed.bias"] = torch.zeros(len(whole["decoder_embed.weight"]))
    return whole


def from_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from the published names to Hugging Face's.

    The bias of the keys is left out: it adds the same to the products of a query with all keys,
    which softmax cancels.

    Args:
        weights: tensors by published name.
        facts: facts about the model here.

    Returns:
        Tensors by the names in files of VideoMAEForPreTraining if there is a decoder, else of
        VideoMAEForVideoClassification.

    Raises:
        ValueError: Hugging Face has no such model, for example because its position embeddings are
            fixed.
    """
    remaining = without_fixed_parts(weights, facts, _LIBRARY)
    separate = name_decoder_norm(split_projections(remaining))
    separate = {n: value for n, value in separate.items() if not n.endswith(".attn.k.bias")}
    renamed = _TABLE.from_published(separate, _LIBRARY)
    if "head.projection.weight" in weights:
        for last in ("weight", "bias"):
            renamed[f"fc_norm.{last}"] = renamed.pop(f"videomae.layernorm.{last}")
    return renamed


def without_fixed_parts(
    weights: Mapping[str, Tensor], facts: ModelFacts, library: str
) -> dict[str, Tensor]:
    """Reverse `with_fixed_parts`, for a model that VideoMAE has.

    Args:
        weights: tensors by published name.
        facts: facts about the model here.
        library: name of the library.

    Raises:
        ValueError: the library has no such model.
    """
    require_patches(weights, 3, library)
    require("cls_token" not in weights, library, "it has no class token (MVIT.CLS_EMBED_ON False)")
    require_decoder(weights, library)
    require(
        "head.projection.weight" not in weights or facts.mean_pooling,
        library,
        "it classifies the mean of the tokens before the last layer norm (MVIT.USE_MEAN_POOLING "
        "True)",
    )
    remaining = dict(weights)
    for name, width in _position_tables(weights).items():
        _require_sinusoid(remaining.pop(name, None), name, width, facts, library)
    if "decoder_embed.bias" in remaining:
        bias = remaining.pop("decoder_embed.bias")
        require(not bool(bias.any()), library, "its layer before the decoder has no bias")
    return remaining


def _position_tables(published: Mapping[str, Tensor]) -> dict[str, int]:
    """Widths of the position tables of a model, by name."""
    kernel, embed = (published.get(f"{n}.weight") for n in ("patch_embed.proj", "decoder_embed"))
    widths = {"pos_embed": kernel, "decoder_pos_embed": embed}
    return {name: len(weight) for name, weight in widths.items() if weight is not None}


def _require_sinusoid(
    table: Tensor | None, name: str, width: int, facts: ModelFacts, library: str
) -> None:
    fixed = sinusoid_positions(facts.grid.num_tokens, width)
    require(
        table is not None
        and table.shape == fixed.shape
        and torch.allclose(table.float().cpu(), fixed, rtol=0, atol=_TOLERANCE),
        library,
        f"its position embeddings are fixed, and {name!r} here differs from them; learned ones "
        "cannot be converted, but a model initialized from VideoMAE keeps the fixed ones with "
        "MVIT.USE_FIXED_SINCOS_POS True",
    )
