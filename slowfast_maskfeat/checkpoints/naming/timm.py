"""MViTv2 of timm: image models, blocks in stages, 2-D pooling kernels."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from slowfast_maskfeat.checkpoints.naming.table import (
    ModelFacts,
    NameTable,
    require,
    require_patches,
)

_LIBRARY = "timm's MViTv2"
_ATTENTION = ("qkv", "q", "k", "v", "proj", "rel_pos_h", "rel_pos_w")
_POOLING = tuple(f"{kind}_{name}" for kind in ("pool", "norm") for name in "qkv")
_BLOCK = (
    *((part, part) for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")),
    *((f"attn.{part}", f"attn.{part}") for part in (*_ATTENTION, *_POOLING)),
    # The widths tell which of the two it is.
    ("shortcut_proj_attn", "proj"),
    ("shortcut_proj_mlp", "proj"),
)
_TABLE = NameTable(
    [
        *((name, name) for name in ("patch_embed.proj", "cls_token", "pos_embed", "norm")),
        ("head.fc", "head.projection"),
        *((f"blocks.*.{theirs}", f"blocks.*.{ours}") for theirs, ours in _BLOCK),
    ]
)
_IN_STAGE = re.compile(r"stages\.(\d+)\.blocks\.(\d+)(?=\.)")
_BLOCK_NUMBER = re.compile(r"blocks\.(\d+)(?=\.)")


def recognizes(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have timm's names."""
    return any(name.startswith("stages.") for name in weights)


def to_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from timm's names to the published ones.

    Args:
        weights: tensors by timm's name.
        facts: facts about the model here.

    Returns:
        Tensors by published name, pooling kernels (d, 1, 1, h, w); unknown names are kept.

    Raises:
        ValueError: the model here uses the weights differently.
    """
    _require_equal_residuals(weights, facts)
    depths: dict[int, int] = {}
    for name in weights:
        place = _IN_STAGE.match(name)
        if place:
            stage, block = int(place[1]), int(place[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
    first = {stage: sum(depths[s] for s in depths if s < stage) for stage in depths}

    def flat(name: str) -> str:
        return _IN_STAGE.sub(lambda m: f"blocks.{first[int(m[1])] + int(m[2])}", name)

    renamed = _TABLE.to_published({flat(name): value for name, value in weights.items()})
    return {
        name: value.unsqueeze(2) if _is_pooling_kernel(name) and value.ndim == 4 else value
        for name, value in renamed.items()
    }


def from_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from the published names to timm's.

    A stage consists of consecutive blocks whose attention has the same width.

    Args:
        weights: tensors by published name.
        facts: facts about the model here.

    Returns:
        Tensors by timm's name, pooling kernels (d, 1, h, w).

    Raises:
        ValueError: timm has no such model.
    """
    require_patches(weights, 2, _LIBRARY)
    _require_equal_residuals(weights, facts)
    require(
        not facts.mean_pooling,
        _LIBRARY,
        "it classifies the class token or the mean of normalized tokens (MVIT.USE_MEAN_POOLING "
        "False), but this one normalizes the mean",
    )
    places, stage, width = {}, -1, 0
    for number in range(sum(name.endswith(".norm2.weight") for name in weights)):
        own_width = len(weights[f"blocks.{number}.norm2.weight"])
        if own_width != width:
            stage, width, first = stage + 1, own_width, number
        places[number] = f"stages.{stage}.blocks.{number - first}"
    renamed = {}
    for name, value in _TABLE.from_published(weights, _LIBRARY).items():
        if _is_pooling_kernel(name):
            require(value.shape[2] == 1, _LIBRARY, "it pools space only, this one time too")
            value = value.squeeze(2)
        block = _BLOCK_NUMBER.match(name)
        if block and ".shortcut_proj_attn." in name:
            of_attention = weights[f"blocks.{block[1]}.norm2.weight"].shape[0] == value.shape[0]
            name = name if of_attention else name.replace("_proj_attn.", "_proj_mlp.")
        renamed[_BLOCK_NUMBER.sub(lambda m: places[int(m[1])], name)] = value
    return renamed


def _require_equal_residuals(weights: Mapping[str, Tensor], facts: ModelFacts) -> None:
    require(
        "cls_token" not in weights or not facts.residual_pooling,
        _LIBRARY,
        "with a class token (such as mvitv2_small_cls) it adds the pooled query to that token too, "
        "which MVIT.RESIDUAL_POOLING leaves out, as published for video",
    )


def _is_pooling_kernel(name: str) -> bool:
    return name.endswith((".pool_q.weight", ".pool_k.weight", ".pool_v.weight"))
