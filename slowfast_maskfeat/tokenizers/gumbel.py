"""Gumbel-softmax: samples of a code that have gradients (arXiv:1611.01144, arXiv:1611.00712)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowfast_maskfeat.losses.precision import at_least_float32


def gumbel_softmax(
    logits: Tensor, noise: Tensor, *, temperature: float, hard: bool = False
) -> Tensor:
    """Weights of all codes at each cell, close to one-hot at low temperatures.

    Args:
        logits: (N, K, ...), of K codes.
        noise: as `logits`, with a Gumbel distribution, see `gumbel_noise`.
        temperature: > 0.
        hard: one-hot weights, with the gradient of the soft ones.

    Returns:
        As `logits`, with sums of 1 over the codes; float32 (float64 if `logits` are).

    Raises:
        ValueError: the temperature is not > 0.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature of a Gumbel-softmax must be > 0, got {temperature}")
    soft = ((at_least_float32(logits) + noise) / temperature).softmax(dim=1)
    if not hard:
        return soft
    one_hot = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
    return one_hot - soft.detach() + soft


def gumbel_noise(
    seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
) -> Tensor:
    """Draw noise for each sample from a seed of its own.

    So the noise of a sample depends neither on the other samples of a batch nor on the number of
    processes. It does depend on the type of the device.

    Args:
        seeds: B integers in [0, 2**63).
        shape: of one sample's noise.
        device: that the noise is drawn on.

    Returns:
        (B, *shape) float32, -log(-log(u)) of uniform u.
    """
    exponential = torch.empty(len(seeds), *shape, device=device)
    generator = torch.Generator(device)
    for row, seed in zip(exponential, seeds, strict=True):
        row.exponential_(generator=generator.manual_seed(seed))
    # An exponential draw of 0 would give an infinite noise.
    return -exponential.clamp(min=torch.finfo(torch.float32).tiny).log()
