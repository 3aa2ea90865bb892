"""Nearest codes, and k-means over the processes of a run."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast_maskfeat import distributed
from slowfast_maskfeat.losses import unit_length

# Similarities of vectors and codes that are computed at once: 64 MB in float32.
_NUMBERS_AT_ONCE = 2**24


@torch.no_grad()
def nearest_codes(vectors: Tensor, codebook: Tensor, *, unit_sphere: bool) -> Tensor:
    """Find the nearest code of each vector.

    Args:
        vectors: (N, D), of length 1 if `unit_sphere`.
        codebook: (K, D), likewise.
        unit_sphere: all lengths are 1, so that the nearest code is that of the largest cosine.

    Returns:
        (N,) int64; the first code of several at the same distance.
    """
    # |x - c|**2 is smallest where x c - |c|**2 / 2 is largest.
    offset = None if unit_sphere else codebook.square().sum(dim=1) / 2
    found = []
    for part in vectors.split(max(1, _NUMBERS_AT_ONCE // len(codebook))):
        similarity = part @ codebook.T
        found.append((similarity if offset is None else similarity - offset).argmax(dim=1))
    return torch.cat(found)


def sums_by_code(vectors: Tensor, codes: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Count and add up the vectors of each code.

    Args:
        vectors: (N, D).
        codes: (N,) int64.
        num_codes: K.

    Returns:
        Counts (K,) and sums (K, D), in the dtype of `vectors`.
    """
    counts = vectors.new_zeros(num_codes).index_add_(0, codes, vectors.new_ones(len(codes)))
    sums = vectors.new_zeros(num_codes, vectors.shape[1]).index_add_(0, codes, vectors)
    return counts, sums


@torch.no_grad()
def kmeans(
    vectors: Tensor, centers: Tensor, *, num_rounds: int, unit_sphere: bool
) -> tuple[Tensor, Tensor]:
    """Move centers to the means of the vectors nearest to them, round after round.

    Collective: the vectors are those of all processes, and each process returns the same. A center
    without vectors stays where it is.

    Args:
        vectors: (N, D) of this process, of length 1 if `unit_sphere`.
        centers: (K, D) to start from, the same on all processes.
        num_rounds: >= 1.
        unit_sphere: scale the means to length 1.

    Returns:
        (K, D) centers, and (K,) how many vectors of all processes they are the means of.
    """
    counts = centers.new_zeros(len(centers))
    for _ in range(num_rounds):
        codes = nearest_codes(vectors, centers, unit_sphere=unit_sphere)
        counts, sums = sums_by_code(vectors, codes, len(centers))
        counts, sums = distributed.all_reduce(counts), distributed.all_reduce(sums)
        means = sums / counts.clamp(min=1)[:, None]
        means = unit_length(means) if unit_sphere else means
        centers = torch.where(counts[:, None] > 0, means, centers)
    return centers, counts
