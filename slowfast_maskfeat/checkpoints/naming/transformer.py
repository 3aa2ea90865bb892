"""Names shared by the plain vision transformers of Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from slowfast_maskfeat.checkpoints.naming.table import require

DECODER = "pred_head.transforms.0"
# Placeholder for the decoder's last layer norm, whose number here follows those of its blocks.
DECODER_NORM = f"{DECODER}.norm"
# Parts of a layer with the same names in all of them.
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
# Names in the models of transformers 5; its files have the older names.
LAYER_IN_MEMORY = (
    *((f"attention.{part}_proj", f"attn.{part}") for part in "qkv"),
    ("attention.o_proj", "attn.proj"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
)

_QUERY = re.compile(r"(.*\.attn)\.q\.(weight|bias)")
_FUSED = re.compile(r"(.*\.attn)\.qkv\.(weight|bias)")
_NUMBERED = re.compile(rf"{re.escape(DECODER)}\.(\d+)\.(.+)")


def layer_rows(
    theirs: str, ours: str, parts: Collection[tuple[str, str]] = LAYER
) -> list[tuple[str, str]]:
    """Build the rows of a name table for the parts of a layer."""
    return [(f"{theirs}.{their_part}", f"{ours}.{our_part}") for their_part, our_part in parts]


def with_prefix(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Add the prefix that a model with a head has to the names of an encoder alone.

    Args:
        weights: tensors by their name.
        prefix: prefix of the encoder's names in a model with a head, including the dot.

    Returns:
        Tensors by name; unchanged if any name has the prefix.
    """
    if any(name.startswith(prefix) for name in weights):
        return dict(weights)
    return {f"{prefix}{name}": value for name, value in weights.items()}


def fuse_projections(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join queries, keys and values into one layer, qkv.

    If the queries have a bias and the keys have none, that of the keys is zero.

    Args:
        weights: tensors by published name, with `attn.q.weight`, `attn.k.weight` and so on.

    Returns:
        Tensors by published name, with `attn.qkv.weight` and `attn.qkv.bias`.

    Raises:
        ValueError: one of the three is missing.
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
                f"the file has the queries of {front!r}, but not the keys and values; it is "
                "incomplete"
            )
        fused[f"{front}.qkv.{last}"] = torch.cat((fused.pop(name), key, value))
    return fused


def split_projections(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reverse `fuse_projections`; layers that are already separate are kept."""
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
    """Replace `DECODER_NORM` by the number after those of the decoder's blocks."""
    matches = [_NUMBERED.fullmatch(name) for name in weights]
    depth = 1 + max((int(match[1]) for match in matches if match), default=-1)
    return {name.replace(DECODER_NORM, f"{DECODER}.{depth}"): weights[name] for name in weights}


def name_decoder_norm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reverse `number_decoder_norm`."""
    named = {}
    for name, value in weights.items():
        match = _NUMBERED.fullmatch(name)
        if match and match[2] in ("weight", "bias"):
            name = f"{DECODER_NORM}.{match[2]}"
        named[name] = value
    return named


def require_decoder(weights: Mapping[str, Tensor], library: str) -> None:
    """Check that a model with a mask token has an MAE decoder.

    The mask token of other models belongs to the encoder, that of the library's to the decoder.

    Args:
        weights: tensors by published name.
        library: name of the library.

    Raises:
        ValueError: there is a mask token and no decoder.
    """
    require(
        "mask_token" not in weights or "decoder_embed.weight" in weights,
        library,
        "its encoder has visible tokens only in pre-training (MASK.MAE_ON), this one encodes mask "
        "tokens; use the configuration of the classifier to leave these out",
    )
