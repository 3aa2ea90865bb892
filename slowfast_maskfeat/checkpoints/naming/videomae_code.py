"""VideoMAE as its authors name it (github.com/MCG-NJU/VideoMAE, modeling_finetune and _pretrain).

The model is that of `videomae`: no class token, no bias of the keys, fixed position embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from slowfast_maskfeat.checkpoints.naming import videomae
from slowfast_maskfeat.checkpoints.naming.table import ModelFacts, NameTable
from slowfast_maskfeat.checkpoints.naming.transformer import (
    DECODER,
    DECODER_NORM,
    name_decoder_norm,
    number_decoder_norm,
)

_LIBRARY = "VideoMAE's code"
_PRETRAINING = NameTable(
    [
        *((f"encoder.{name}", name) for name in ("patch_embed", "blocks", "norm")),
        ("encoder_to_decoder", "decoder_embed"),
        ("mask_token", "mask_token"),
        ("decoder.blocks.*", f"{DECODER}.*"),
        ("decoder.norm", DECODER_NORM),
        ("decoder.head", "pred_head.projections.0"),
    ]
)
_CLASSIFIER = NameTable(
    [
        *((name, name) for name in ("patch_embed", "blocks")),
        ("fc_norm", "norm"),
        ("norm", "norm"),
        ("head", "head.projection"),
    ]
)
_QUERY, _VALUE, _JOINT = ".attn.q_bias", ".attn.v_bias", ".attn.qkv.bias"


def recognizes(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have the names of VideoMAE's code, and patches of videos."""
    if "encoder.blocks.0.attn.q_bias" in weights:
        return True
    kernel = weights.get("patch_embed.proj.weight")
    is_of_videos = kernel is not None and kernel.ndim == 5
    has_head = "fc_norm.weight" in weights or "head.weight" in weights
    return is_of_videos and has_head and "blocks.0.attn.q_bias" in weights


def to_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from the names of VideoMAE's code to the published ones.

    Args:
        weights: tensors by their name.
        facts: facts about the model here; its grid gives the number of positions.

    Returns:
        Tensors by published name, with what `videomae.to_published` adds. Unknown names are kept.

    Raises:
        ValueError: a layer is incomplete.
    """
    table = _PRETRAINING if _is_pretraining(weights) else _CLASSIFIER
    published = number_decoder_norm(table.to_published(join_biases(weights)))
    return videomae.with_fixed_parts(published, facts)


def from_published(weights: Mapping[str, Tensor], facts: ModelFacts) -> dict[str, Tensor]:
    """Convert from the published names to those of VideoMAE's code.

    The bias of the keys is left out, as by `videomae.from_published`.

    Args:
        weights: tensors by published name.
        facts: facts about the model here.

    Returns:
        Tensors by the names of pre-training if there is a decoder, else of fine-tuning.

    Raises:
        ValueError: VideoMAE's code has no such model.
    """
    remaining = name_decoder_norm(videomae.without_fixed_parts(weights, facts, _LIBRARY))
    table = _PRETRAINING if "decoder_embed.weight" in weights else _CLASSIFIER
    return table.from_published(split_biases(remaining), _LIBRARY)


def _is_pretraining(weights: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("encoder.") for name in weights)


def join_biases(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the biases of queries and values with zeros for the keys.

    Args:
        weights: tensors by name, with `attn.q_bias` and `attn.v_bias`.

    Returns:
        Tensors by name, with `attn.qkv.bias`.

    Raises:
        ValueError: one of the two is missing.
    """
    joint = dict(weights)
    for name, query in weights.items():
        if name.endswith(_QUERY):
            front = name.removesuffix(_QUERY)
            value = joint.pop(front + _VALUE, None)
            if value is None:
                raise ValueError(
                    f"the file has {name!r}, but not {front + _VALUE!r}; it is incomplete"
                )
            joint[front + _JOINT] = torch.cat((joint.pop(name), torch.zeros_like(query), value))
    return joint


def split_biases(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reverse `join_biases`: the bias of the keys is left out."""
    separate: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.endswith(_JOINT):
            front = name.removesuffix(_JOINT)
            separate[front + _QUERY], _, separate[front + _VALUE] = value.chunk(3)
        else:
            separate[name] = value
    return separate
