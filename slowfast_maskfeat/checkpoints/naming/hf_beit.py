"""BEiT of Hugging Face: its masked image model and its image classifier."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from slowfast_maskfeat.checkpoints.naming.beit import PREDICTION, PREDICTION_NORM, require_beit
from slowfast_maskfeat.checkpoints.naming.table import ModelFacts, NameTable
from slowfast_maskfeat.checkpoints.naming.transformer import (
    LAYER,
    LAYER_IN_MEMORY,
    fuse_projections,
    layer_rows,
    split_projections,
    with_prefix,
)

_LIBRARY = "Hugging Face (BEiT)"
_PREFIX = "beit."
_TABLE_OF_BLOCK = "attn.relative_position_bias_table"
_SCALES = (("lambda_1", "gamma_1"), ("lambda_2", "gamma_2"))
_BLOCK = (
    *LAYER,
    *_SCALES,
    (
        "attention.attention.relative_position_bias.relative_position_bias_table",
        _TABLE_OF_BLOCK,
    ),
)
# Names in the models of transformers 5; its files have the older names.
_BLOCK_IN_MEMORY = (
    *LAYER_IN_MEMORY,
    *_SCALES,
    ("relative_position_bias.relative_position_bias_table", _TABLE_OF_BLOCK),
)
_TABLE = [
    ("beit.embeddings.cls_token", "cls_token"),
    ("beit.embeddings.mask_token", "mask_token"),
    ("beit.embeddings.position_embeddings", "pos_embed"),
    ("beit.embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("beit.encoder.relative_position_bias", "rel_pos_bias"),
    ("beit.shared_position_bias", "rel_pos_bias"),
    *layer_rows("beit.encoder.layer.*", "blocks.*", _BLOCK),
    *layer_rows("beit.layers.*", "blocks.*", _BLOCK_IN_MEMORY),
    ("layernorm", PREDICTION_NORM),
    ("lm_head", PREDICTION),
    ("classifier", "head.projection"),
]
_OF_MEAN = NameTable([*_TABLE, ("beit.pooler.layernorm", "norm")])
_OF_CLASS_TOKEN = NameTable([*_TABLE, ("beit.layernorm", "norm")])
_IN_LAYER = re.compile(r"(encoder\.layer|layers)\.0\.(lambda_1|.*relative_position_bias_table)")
_TO_OURS = NameTable([*_TABLE, ("beit.pooler.layernorm", "norm"), ("beit.layernorm", "norm")])


def recognizes(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have Hugging Face's names of BEiT; only its layers have these factors."""
    return any(name.startswith(_PREFIX) or _IN_LAYER.fullmatch(name) for name in weights)


def to_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from Hugging Face's names to ours.

    Args:
        weights: tensors by their name, as in files, or as in models of transformers 5.
        facts: facts about the model here; unused.

    Returns:
        Tensors by name here, with one projection to queries, keys and values and its two biases.
        Unknown names are kept.

    Raises:
        ValueError: a layer is incomplete.
    """
    renamed = _TO_OURS.to_published(with_prefix(weights, _PREFIX))
    return fuse_projections(
        {re.sub(r"(\.attn)\.([qv])\.bias$", r"\1.\2_bias", k): v for k, v in renamed.items()}
    )


def from_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from our names to Hugging Face's.

    Args:
        weights: tensors by name here.
        facts: facts about the model here.

    Returns:
        Tensors by the names in files of BeitForMaskedImageModeling if there is a prediction, else
        of BeitForImageClassification.

    Raises:
        ValueError: Hugging Face has no such model.
    """
    require_beit(weights, _LIBRARY)
    separate = {
        re.sub(r"(\.attn)\.([qv])_bias$", r"\1.\2.bias", name): value
        for name, value in split_projections(weights).items()
    }
    table = _OF_MEAN if facts.mean_pooling else _OF_CLASS_TOKEN
    return table.from_published(separate, _LIBRARY)
