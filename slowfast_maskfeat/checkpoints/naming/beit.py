"""BEiT as its authors name it (github.com/microsoft/unilm, beit).

Blocks, tokens and tables have the same names here, so that such files are read without conversion;
only the heads and the norm before them differ.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from torch import Tensor

from slowfast_maskfeat.checkpoints.naming.table import (
    ModelFacts,
    NameTable,
    require,
    require_patches,
)

_LIBRARY = "BEiT's code"
# The last norm and the layer after it, in pre-training; the blocks and tokens have the same names.
PREDICTION_NORM = "pred_head.transforms.0.0"
PREDICTION = "pred_head.projections.0"
# Weights of their heads, and of the norm before them, that have other names here.
PLAIN_HEADS = ("lm_head.weight", "fc_norm.weight", "head.weight")
_BIAS = "blocks.0.attn.q_bias"
_SAME = ("cls_token", "mask_token", "pos_embed", "patch_embed", "rel_pos_bias", "blocks")
_COMMON = [(name, name) for name in _SAME]
_PRETRAINING = NameTable([*_COMMON, ("norm", PREDICTION_NORM), ("lm_head", PREDICTION)])
_OF_MEAN = NameTable([*_COMMON, ("fc_norm", "norm"), ("head", "head.projection")])
_OF_CLASS_TOKEN = NameTable([*_COMMON, ("norm", "norm"), ("head", "head.projection")])


def recognizes(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have BEiT's names of a head."""
    return _BIAS in weights and has_plain_head(weights)


def has_plain_head(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have our names but in the heads, as a ViT of BEiT, timm, DeiT or MAE."""
    has_head = any(name in weights for name in PLAIN_HEADS)
    kernel = weights.get("patch_embed.proj.weight")
    is_of_images = kernel is not None and kernel.ndim == 4  # VideoMAE's code has the same names
    return has_head and is_of_images and "blocks.0.norm1.weight" in weights


def to_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from BEiT's names to ours.

    Args:
        weights: tensors by BEiT's name.
        facts: facts about the model here; unused.

    Returns:
        Tensors by name here; unknown names are kept.
    """
    return rename_heads(weights)


def with_own_heads(
    weights: Mapping[str, Tensor], names: Container[str] = ()
) -> Mapping[str, Tensor]:
    """Rename the heads if they alone have names of BEiT, timm, DeiT or MAE.

    Args:
        weights: tensors by name.
        names: of the model that they are for; a head of these keeps its name.
    """
    is_plain = has_plain_head(weights) and not any(name in names for name in PLAIN_HEADS)
    return rename_heads(weights) if is_plain else weights


def rename_heads(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the heads, and the norm before them, from BEiT's names to ours.

    The norm of pre-training is part of the prediction here: fine-tuning begins with a new one.
    """
    if "lm_head.weight" in weights:
        return _PRETRAINING.to_published(weights)
    table = _OF_MEAN if "fc_norm.weight" in weights else _OF_CLASS_TOKEN
    return table.to_published(weights)


def from_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from our names to BEiT's.

    Args:
        weights: tensors by name here.
        facts: facts about the model here.

    Returns:
        Tensors by the name in the model of pre-training if there is a prediction, else of
        fine-tuning.

    Raises:
        ValueError: BEiT's code has no such model.
    """
    require_beit(weights, _LIBRARY)
    if f"{PREDICTION}.weight" in weights:
        return _PRETRAINING.from_published(weights, _LIBRARY)
    table = _OF_MEAN if facts.mean_pooling else _OF_CLASS_TOKEN
    return table.from_published(weights, _LIBRARY)


def require_beit(weights: Mapping[str, Tensor], library: str) -> None:
    """Check that a model is a ViT for images with biases of queries and values only.

    Args:
        weights: tensors by name here.
        library: name of the library that has BEiT.

    Raises:
        ValueError: it is another model.
    """
    require_patches(weights, 2, library)
    require("cls_token" in weights, library, "it has a class token (MVIT.CLS_EMBED_ON True)")
    require(
        _BIAS in weights,
        library,
        "its queries and values have a bias and its keys have none (MVIT.KEY_BIAS False)",
    )
