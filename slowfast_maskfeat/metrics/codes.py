"""Use of a codebook: how many of its codes occur, and how evenly."""

from __future__ import annotations

import torch
from torch import Tensor


def code_counts(codes: Tensor, num_codes: int) -> Tensor:
    """Count how often each code occurs; counts of several batches add up.

    Args:
        codes: int64, any shape, in [0, num_codes).
        num_codes: K.

    Returns:
        (K,) float64, on the device of `codes`, which is not waited for.
    """
    counts = torch.zeros(num_codes, dtype=torch.float64, device=codes.device)
    return counts.index_add_(0, codes.flatten(), counts.new_ones(codes.numel()))


def code_usage(counts: Tensor) -> Tensor:
    """Share of codes that occur.

    Args:
        counts: (K,), see `code_counts`.

    Returns:
        () in [0, 1].
    """
    return (counts > 0).to(counts.dtype).mean()


def code_entropy(counts: Tensor) -> Tensor:
    """Entropy of the frequencies of codes: the cross-entropy of the best constant prediction.

    Args:
        counts: (K,), see `code_counts`.

    Returns:
        () in nats, from 0 to log(K); 0 without any count.
    """
    share = counts / counts.sum().clamp(min=1)
    return -torch.special.xlogy(share, share).sum()


def code_perplexity(counts: Tensor) -> Tensor:
    """Exponential of the entropy: how many codes would be as diverse if they were equally frequent.

    Args:
        counts: (K,), see `code_counts`.

    Returns:
        () from 1 to K.
    """
    return code_entropy(counts).exp()
