"""MViT and the ViT of VideoMAE in mmaction2 (github.com/open-mmlab/mmaction2).

Its recognizers have a backbone and a head: `backbone.*` and `cls_head.fc_cls`. The MViT has a
norm per stage, of which classification uses the last, and a class token in its files even if it is
not used. The ViT is that of `videomae`, with its positions in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from slowfast_maskfeat.checkpoints.naming import videomae
from slowfast_maskfeat.checkpoints.naming.table import (
    ModelFacts,
    NameTable,
    require,
    require_patches,
)
from slowfast_maskfeat.checkpoints.naming.videomae_code import join_biases, split_biases

_MVIT_OF = "mmaction2's MViT"
_VIT_OF = "mmaction2's ViT"
_PREFIX = "backbone."
_THEIR_HEAD, _HEAD = "cls_head.fc_cls", "head.projection"
_PATCHES = "patch_embed.projection"
# Without the prefix, which parts of a file may lack.
_COMMON = [(_PATCHES, "patch_embed.proj"), ("pos_embed", "pos_embed"), (_THEIR_HEAD, _HEAD)]
_AXES = tuple(f"rel_pos_{axis}" for axis in "thw")
_POOLS = tuple(f"pool_{name}" for name in "qkv")
_POOL_NORMS = tuple(f"norm_{name}" for name in "qkv")
_MVIT_BLOCK = (
    *("norm1", "norm2", "mlp.fc1", "mlp.fc2", "proj"),
    *(f"attn.{part}" for part in ("qkv", "proj", *_AXES, *_POOLS, *_POOL_NORMS)),
)
_MVIT = NameTable(
    [
        *_COMMON,
        ("cls_token", "cls_token"),
        ("norm*", "norm*"),
        *((f"blocks.*.{part}", f"blocks.*.{part}") for part in _MVIT_BLOCK),
    ]
)
_VIT_BLOCK = (
    *("norm1", "norm2", "gamma_1", "gamma_2"),
    *(f"attn.{part}" for part in ("qkv", "q_bias", "v_bias", "proj")),
)
_VIT = NameTable(
    [
        *_COMMON,
        ("fc_norm", "norm"),
        ("norm", "norm"),
        *((f"blocks.*.{part}", f"blocks.*.{part}") for part in _VIT_BLOCK),
        ("blocks.*.mlp.layers.0.0", "blocks.*.mlp.fc1"),
        ("blocks.*.mlp.layers.1", "blocks.*.mlp.fc2"),
    ]
)
_STAGE_NORM = re.compile(r"norm(\d+)\.(weight|bias)")


def recognizes(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have mmaction2's names of one of the two, and patches of videos."""
    for prefix in (_PREFIX, ""):
        kernel = weights.get(f"{prefix}{_PATCHES}.weight")
        if kernel is not None:
            return kernel.ndim == 5 and f"{prefix}blocks.0.norm1.weight" in weights
    return False


def to_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from mmaction2's names to the published ones.

    Args:
        weights: tensors by mmaction2's name, of a recognizer or of its backbone alone.
        facts: facts about the model here.

    Returns:
        Tensors by published name. An MViT without a class token here gets none; a ViT has a zero
        bias of the keys and, if the file has no positions, the fixed ones. Unknown names are kept,
        without `backbone.`.

    Raises:
        ValueError: a layer is incomplete, or the model here classifies other tokens.
    """
    bare = {name.removeprefix(_PREFIX): value for name, value in weights.items()}
    if _is_mvit(bare):
        _require_same_pooling(bare, facts)
        published = _MVIT.to_published(_with_last_norm(bare))
        return published if facts.class_token else _without_class_token(published)
    if f"{_THEIR_HEAD}.weight" in bare and "fc_norm.weight" not in bare:
        raise ValueError(
            "the file has a ViT of mmaction2 that classifies its first patch "
            "(use_mean_pooling=False), which no model here does"
        )
    published = _VIT.to_published(join_biases(bare))
    return published if "pos_embed" in bare else videomae.with_fixed_parts(published, facts)


def from_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from the published names to mmaction2's.

    A stage of an MViT consists of consecutive blocks whose attention has the same width. One
    without a class token gets the unused one that mmaction2 has (with_cls_token=False). The bias of
    a ViT's keys is left out, as by `videomae.from_published`.

    Args:
        weights: tensors by published name.
        facts: facts about the model here.

    Returns:
        Tensors by the names of a recognizer.

    Raises:
        ValueError: mmaction2 has no such model.
    """
    if _is_mvit(weights):
        _require_mvit(weights, facts)
        whole = _with_stage_norm(weights)
        whole = whole if "cls_token" in weights else _with_class_token(whole)
        renamed = _MVIT.from_published(whole, _MVIT_OF)
    else:
        _require_vit(weights, facts)
        renamed = _VIT.from_published(split_biases(weights), _VIT_OF)
    return {
        name if name.startswith(_THEIR_HEAD) else f"{_PREFIX}{name}": value
        for name, value in renamed.items()
    }


def _is_mvit(weights: Mapping[str, Tensor]) -> bool:
    """Whether some attention pools with convolutions; the names are the same in both."""
    return any(name.endswith(tuple(f".attn.{pool}.weight" for pool in _POOLS)) for name in weights)


def _require_same_pooling(bare: Mapping[str, Tensor], facts: ModelFacts) -> None:
    """Check that the model here classifies the tokens that a file's head was trained on."""
    if f"{_THEIR_HEAD}.weight" not in bare:
        return
    _require_no_norm_of_mean(facts)
    token = bare.get("cls_token")
    if token is None:
        return
    # It starts as zeros, and training changes it only if it is used.
    is_used = bool(token.any())
    if is_used != facts.class_token:
        how = "the class token" if is_used else "the mean of the tokens, its class token is zero"
        raise ValueError(
            f"the file has an MViT of mmaction2 that classifies {how}; set MVIT.CLS_EMBED_ON "
            f"{is_used}"
        )


def _require_no_norm_of_mean(facts: ModelFacts) -> None:
    require(
        not facts.mean_pooling,
        _MVIT_OF,
        "it classifies the class token, or without one the mean of normalized tokens "
        "(MVIT.USE_MEAN_POOLING False), but this one normalizes the mean",
    )


def _require_mvit(weights: Mapping[str, Tensor], facts: ModelFacts) -> None:
    require_patches(weights, 3, _MVIT_OF)
    _require_no_norm_of_mean(facts)
    attentions = [f"blocks.{number}.attn" for number in range(_depth(weights))]
    require(
        all(f"{front}.{pool}.weight" in weights for front in attentions for pool in _POOLS),
        _MVIT_OF,
        "all its blocks pool queries, keys and values with convolutions (each with a row in "
        "MVIT.POOL_Q_STRIDE, and POOL_KVQ_KERNEL)",
    )
    require(
        len({f"{front}.{axis}" in weights for front in attentions for axis in _AXES}) == 1,
        _MVIT_OF,
        "it has relative positions along time and space, or none (MVIT.REL_POS_TEMPORAL and "
        "REL_POS_SPATIAL)",
    )


def _require_vit(weights: Mapping[str, Tensor], facts: ModelFacts) -> None:
    require_patches(weights, 3, _VIT_OF)
    require("cls_token" not in weights, _VIT_OF, "it has no class token (MVIT.CLS_EMBED_ON False)")
    require(
        f"{_HEAD}.weight" not in weights or facts.mean_pooling,
        _VIT_OF,
        "it classifies the mean of the tokens before the last layer norm (MVIT.USE_MEAN_POOLING "
        "True)",
    )
    require(
        "pos_embed" in weights,
        _VIT_OF,
        "it has one table of positions (MVIT.USE_ABS_POS True, SEP_POS_EMBED False)",
    )


def _depth(published: Mapping[str, Tensor]) -> int:
    return sum(name.startswith("blocks.") and name.endswith(".norm2.weight") for name in published)


def _with_last_norm(bare: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the norm of the last stage; those of others are for dense predictions."""
    matches = [_STAGE_NORM.fullmatch(name) for name in bare]
    last = max((int(match[1]) for match in matches if match), default=-1)
    ends = {f"norm{last}.{end}": f"norm.{end}" for end in ("weight", "bias")}
    return {ends.get(name, name): value for name, value in bare.items()}


def _with_stage_norm(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reverse `_with_last_norm`."""
    widths = [len(published[f"blocks.{n}.norm2.weight"]) for n in range(_depth(published))]
    last = sum(width != wider for width, wider in pairwise(widths))
    return {re.sub(r"^norm\.", f"norm{last}.", name): x for name, x in published.items()}


def _with_class_token(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add zeros for a class token, and for its position if there are positions."""
    whole = dict(published)
    width = len(whole["patch_embed.proj.weight"])
    whole["cls_token"] = torch.zeros(1, 1, width)
    if "pos_embed" in whole:
        whole["pos_embed"] = torch.cat((torch.zeros(1, 1, width), whole["pos_embed"]), dim=1)
    return whole


def _without_class_token(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reverse `_with_class_token`."""
    remaining = {name: value for name, value in published.items() if name != "cls_token"}
    if "pos_embed" in remaining and "cls_token" in published:
        remaining["pos_embed"] = remaining["pos_embed"][:, 1:]
    return remaining
