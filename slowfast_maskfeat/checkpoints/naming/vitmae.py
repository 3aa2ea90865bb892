"""ViTMAE and the ViT image classifier of Hugging Face."""

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
    LAYER_IN_MEMORY,
    fuse_projections,
    layer_rows,
    name_decoder_norm,
    number_decoder_norm,
    require_decoder,
    split_projections,
    with_prefix,
)

_LIBRARY = "Hugging Face (ViT, ViTMAE)"
_PREFIX = "vit."
_TABLE = NameTable(
    [
        ("vit.embeddings.cls_token", "cls_token"),
        ("vit.embeddings.position_embeddings", "pos_embed"),
        ("vit.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("vit.layernorm", "norm"),
        ("classifier", "head.projection"),
        *layer_rows("vit.encoder.layer.*", "blocks.*"),
        *layer_rows("vit.layers.*", "blocks.*", LAYER_IN_MEMORY),
        ("decoder.decoder_embed", "decoder_embed"),
        ("decoder.mask_token", "mask_token"),
        ("decoder.decoder_pos_embed", "decoder_pos_embed"),
        *layer_rows("decoder.decoder_layers.*", f"{DECODER}.*"),
        *layer_rows("decoder.decoder_layers.*", f"{DECODER}.*", LAYER_IN_MEMORY),
        # transformers 5.23 writes this name instead of the one above.
        *layer_rows("decoder.decoder_encoder.layer.*", f"{DECODER}.*"),
        ("decoder.decoder_norm", DECODER_NORM),
        ("decoder.decoder_pred", "pred_head.projections.0"),
    ]
)
_PREDICTION = ("pred_head.projections.0.weight", "pred_head.projections.0.bias")


def recognizes(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have the names of ViT or ViTMAE; VideoMAE's encoder has the same ones."""
    return any(name.startswith((_PREFIX, "embeddings.", "encoder.layer.")) for name in weights)


def to_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from Hugging Face's names to the published ones.

    Args:
        weights: tensors by their name, as in files, or as in models of transformers 5.
        facts: facts about the model here.

    Returns:
        Tensors by published name, with one projection to queries, keys and values, and the rows of
        the prediction in the order of `facts`. Unknown names are kept.

    Raises:
        ValueError: a layer is incomplete.
    """
    renamed = number_decoder_norm(_TABLE.to_published(with_prefix(weights, _PREFIX)))
    renamed = fuse_projections(renamed)
    return _reorder_prediction(renamed, facts, to_published=True)


def from_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from the published names to Hugging Face's.

    Args:
        weights: tensors by published name.
        facts: facts about the model here.

    Returns:
        Tensors by the names in files of ViTMAEForPreTraining if there is a decoder, else of
        ViTForImageClassification. Separable position embeddings are added up.

    Raises:
        ValueError: Hugging Face has no such model.
    """
    require_patches(weights, 2, _LIBRARY)
    require("cls_token" in weights, _LIBRARY, "it has a class token (MVIT.CLS_EMBED_ON True)")
    require(
        not facts.mean_pooling,
        _LIBRARY,
        "it classifies the class token, this one the mean of the others (MVIT.USE_MEAN_POOLING)",
    )
    require_decoder(weights, _LIBRARY)
    shaped = split_projections(_reorder_prediction(weights, facts, to_published=False))
    return _TABLE.from_published(name_decoder_norm(_join_positions(shaped)), _LIBRARY)


def _join_positions(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join separable position tables of an image, which the model adds up, into one."""
    joined = dict(weights)
    for ours, theirs in (("pos_embed", "pos_embed"), ("dec_pos_embed", "decoder_pos_embed")):
        if f"{ours}_spatial" in weights:
            parts = (joined.pop(f"{ours}_{part}") for part in ("class", "spatial", "temporal"))
            cls, spatial, temporal = parts
            joined[theirs] = torch.cat((cls, spatial + temporal), dim=1)
    return joined


def _reorder_prediction(
    weights: Mapping[str, Tensor], facts: ModelFacts, *, to_published: bool
) -> dict[str, Tensor]:
    """Reorder the rows of the prediction: (row, column, color) there, by `facts` here."""
    changed = dict(weights)
    kernel = weights.get("patch_embed.proj.weight")
    for name in _PREDICTION:
        if not facts.color_first or kernel is None or name not in weights:
            continue
        colors, rows, columns = kernel.shape[1], *kernel.shape[-2:]
        value = weights[name]
        if len(value) != colors * rows * columns:
            continue  # not a prediction of pixels
        sizes, order = (colors, rows, columns), (1, 2, 0)
        if to_published:
            sizes, order = (rows, columns, colors), (2, 0, 1)
        planes = value.unflatten(0, sizes).movedim(order, (0, 1, 2))
        changed[name] = planes.flatten(0, 2)
    return changed
