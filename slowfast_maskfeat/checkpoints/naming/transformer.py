"""What the plain transformers of Hugging Face have in common."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from slowfast_maskfeat.checkpoints.naming.table import require

DECODER = "pred_head.transforms.0"
# Stands for the decoder's last layer norm, which has the number behind its blocks here.
DECODER_NORM = f"{DECODER}.norm"
# Parts of a layer that all of them name alike.
LAYER = (
    ("attention.attention.query", "attn.q"),
    ("attention.attention.key", "attn.k"),
    ("attention.attention.value", "attn.v"),
    ("attention.output.dense", "attn.proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
)

_QUERY = re.compile(r"(.*\.attn)\.q\.(weight|bias)")
_FUSED = re.compile(r"(.*\.attn)\.qkv\.(weight|bias)")
_NUMBERED = re.compile(rf"{re.escape(DECODER)}\.(\d+)\.(.+)")


def layer_rows(
    theirs: str, ours: str, parts: Collection[tuple[str, str]] = LAYER
) -> list[tuple[str, str]]:
    """Rows of a name table for the parts of a layer."""
    return [(f"{theirs}.{their_part}", f"{ours}.{our_part}") for their_part, our_part in parts]


def with_prefix(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Names as in a model with a head, also of a file that holds the encoder alone.

    Args:
        weights: Tensors by their name.
        prefix: What stands before the encoder's names in a model with a head, its dot included.

    Returns:
        Tensors by name; none is renamed where one has the prefix.
    """
    if any(name.startswith(prefix) for name in weights):
        return dict(weights)
    return {f"{prefix}{name}": value for name, value in weights.items()}


def fuse_projections(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Puts queries, keys and values into one layer, qkv.

    Where the queries have a bias and the keys have none, the keys get zeros.

    Args:
        weights: Tensors by published name, with ``attn.q.weight``, ``attn.k.weight`` and so on.

    Returns:
        Tensors by published name, with ``attn.qkv.weight`` and ``attn.qkv.bias``.

    Raises:
        ValueError: One of the three is not there.
    """
    fused = dict(weights)
    for name, query in weights.items():
        match = _QUERY.fullmatch(name)
        if match is None:
            continue
        front, last = match.groups()
        key, value = (fused.pop(f"{front}.{part}.{last}", None) for part in "kv")
        if key is None and last == "bias":
            key = torch.zeros_like(query)
        if key is None or value is None:
            raise ValueError(
                f"there are queries of {front!r}, but not the keys and values to them; the file "
                "is not complete"
            )
        fused[f"{front}.qkv.{last}"] = torch.cat((fused.pop(name), key, value))
    return fused


def split_projections(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The opposite of `fuse_projections`; layers that are separate already stay."""
    separate = {}
    for name, value in weights.items():
        match = _FUSED.fullmatch(name)
        if match is None:
            separate[name] = value
            continue
        for part, tensor in zip("qkv", value.chunk(3), strict=True):
            separate[f"{match[1]}.{part}.{match[2]}"] = tensor
    return separate


def number_decoder_norm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From `DECODER_NORM` to the number behind the decoder's blocks."""
    matches = [_NUMBERED.fullmatch(name) for name in weights]
    depth = 1 + max((int(match[1]) for match in matches if match), default=-1)
    return {name.replace(DECODER_NORM, f"{DECODER}.{depth}"): weights[name] for name in weights}


def name_decoder_norm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The opposite of `number_decoder_norm`."""
    named = {}
    for name, value in weights.items():
        match = _NUMBERED.fullmatch(name)
        if match and match[2] in ("weight", "bias"):
            name = f"{DECODER_NORM}.{match[2]}"
        named[name] = value
    return named


def require_decoder(weights: Mapping[str, Tensor], library: str) -> None:
    """Refuses a model that pre-trains without a decoder for the visible tokens.

    Its mask token is the encoder's, where theirs is the decoder's.

    Args:
        weights: Tensors by published name.
        library: Whose names are wanted.

    Raises:
        ValueError: It is such a model.
    """
    require(
        "mask_token" not in weights or "decoder_embed.weight" in weights,
        library,
        "it pre-trains by encoding visible patches alone (MASK.MAE_ON), this one encodes mask "
        "tokens; the configuration of its classifier leaves these out",
    )
