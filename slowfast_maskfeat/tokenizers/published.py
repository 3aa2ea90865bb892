"""Names of published tokenizers: DALL-E's encoder, VQGAN (taming-transformers), BEiT v2's VQ-KD.

Most names are those of the modules here. Others differ: the prefix of DALL-E's encoder, which is
published in a file of its own, and the codebook.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_CODEBOOK = "quantize.embedding.weight"
_NAMES = {_CODEBOOK: "quantizer.codebook", "quantize.cluster_size": "quantizer.sizes"}


def own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights of a published tokenizer the names here.

    Args:
        weights: by name, of any tokenizer.

    Returns:
        Weights by name; unknown names, such as those of a loss, are kept. A codebook is accompanied
        by the counters of one that has just started.
    """
    if all(name.startswith("blocks.") for name in weights):
        return {f"encoder.{name}": value for name, value in weights.items()}
    if _CODEBOOK not in weights:
        return dict(weights)
    renamed = {_NAMES.get(name, name): value for name, value in weights.items()}
    return {**renamed, **_counters(len(weights[_CODEBOOK]))}


def _counters(num_codes: int) -> dict[str, Tensor]:
    """Return what a quantizer counts besides its codebook, see `Quantizer`."""
    return {
        "quantizer.unused_steps": torch.zeros(num_codes, dtype=torch.int64),
        "quantizer.num_steps": torch.zeros((), dtype=torch.int64),
        "quantizer.started": torch.tensor(True),
    }
