"""Means over terms, of which there may be none."""

from __future__ import annotations

from torch import Tensor


def mean_or_zero(terms: Tensor) -> Tensor:
    """Average terms; 0 if there are none, as in a batch without masked tokens.

    The zero is a part of the graph: parameters behind it get gradients of zero.

    Args:
        terms: of any shape and a floating type.

    Returns:
        () of the same type.
    """
    return terms.mean() if terms.numel() else terms.sum()
