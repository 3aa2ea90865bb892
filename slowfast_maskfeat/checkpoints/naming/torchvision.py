"""The video MViT and MViTv2 of torchvision."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from slowfast_maskfeat.checkpoints.naming.table import (
    ModelFacts,
    NameTable,
    require,
    require_patches,
)

_LIBRARY = "torchvision's video MViT"
_BLOCK = (
    *((part, part) for part in ("norm1", "norm2", "attn.qkv")),
    *((f"attn.rel_pos_{axis}", f"attn.rel_pos_{axis}") for axis in "thw"),
    *((f"attn.pool_{name}.pool", f"attn.pool_{name}") for name in "qkv"),
    *((f"attn.pool_{name}.norm_act.0", f"attn.norm_{name}") for name in "qkv"),
    ("attn.project.0", "attn.proj"),
    ("mlp.0", "mlp.fc1"),
    ("mlp.3", "mlp.fc2"),
    ("project", "proj"),
)
_TABLE = NameTable(
    [
        ("conv_proj", "patch_embed.proj"),
        ("pos_encoding.class_token", "cls_token"),
        ("pos_encoding.class_pos", "pos_embed_class"),
        ("pos_encoding.spatial_pos", "pos_embed_spatial"),
        ("pos_encoding.temporal_pos", "pos_embed_temporal"),
        ("norm", "norm"),
        ("head.1", "head.projection"),
        *((f"blocks.*.{theirs}", f"blocks.*.{ours}") for theirs, ours in _BLOCK),
    ]
)
_VECTORS = ("cls_token", "pos_embed_class")
_TABLES = ("pos_embed_spatial", "pos_embed_temporal")


def recognizes(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have torchvision's names."""
    return any(name.startswith(("conv_proj.", "pos_encoding.")) for name in weights)


def to_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from torchvision's names to the published ones.

    Args:
        weights: tensors by torchvision's name.
        facts: facts about the model here; unused.

    Returns:
        Tensors by published name, tokens (1, 1, D), position tables (1, n, D); unknown names are
        kept.
    """
    renamed = _TABLE.to_published(weights)
    for name in (*_VECTORS, *_TABLES):
        if name in renamed:
            renamed[name] = renamed[name].reshape(1, -1, renamed[name].shape[-1])
    return renamed


def from_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from the published names to torchvision's.

    Args:
        weights: tensors by published name.
        facts: facts about the model here.

    Returns:
        Tensors by torchvision's name, tokens (D,), position tables (n, D).

    Raises:
        ValueError: torchvision has no such model.
    """
    require_patches(weights, 3, _LIBRARY)
    require(
        "cls_token" in weights and not facts.mean_pooling,
        _LIBRARY,
        "it classifies the class token (MVIT.CLS_EMBED_ON True, USE_MEAN_POOLING False)",
    )
    shaped = {}
    for name, value in weights.items():
        if name in _VECTORS:
            value = value.flatten()
        elif name in _TABLES:
            value = value.squeeze(0)
        shaped[name] = value
    return _TABLE.from_published(shaped, _LIBRARY)
