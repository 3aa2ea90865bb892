"""The weighted vote of the nearest neighbors.

Source: Wu et al., CVPR 2018 (arXiv 1805.01978), section 3.4; with k = 20 and a temperature of 0.07
as in DINO (arXiv 2104.14294), section 4.1. Nothing is trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.features.rows import FeatureRows
from slowfast_maskfeat.log import Progress

# Similarities held at once: 64 MiB of float32.
_MAX_SIMILARITIES = 2**24
_QUERY_ROWS = 1024


@torch.no_grad()
def neighbor_scores(
    known: Tensor | FeatureRows,
    labels: Tensor,
    asked: Tensor | FeatureRows,
    *,
    num_classes: int,
    device: torch.device,
    k: int = 20,
    temperature: float = 0.07,
    max_similarities: int = _MAX_SIMILARITIES,
    show_progress: bool = True,
) -> Tensor:
    """Scores by the vote of the `k` rows of the largest cosine, each weighted exp(cosine / t).

    Where several rows have the cosine of the k-th neighbor, those that vote are any of them: which
    ones may differ between devices and sizes of the blocks, as the last bits of a cosine do.

    Args:
        known: (N, D) features whose classes are known; a block of them is on the device at a time.
        labels: (N,) int64 classes of these.
        asked: (M, D) features to classify, held on the device.
        num_classes: K.
        device: that compares.
        k: neighbors that vote.
        temperature: of the weights.
        max_similarities: how many are held at once, which bounds the memory.
        show_progress: draw a progress bar.

    Returns:
        (M, K) float32 on the CPU, each row summing to 1.

    Raises:
        ValueError: fewer than k rows are known.
    """
    assert k > 0, k
    assert temperature > 0, temperature
    if k > len(known):
        raise ValueError(
            f"PROBE.NUM_NEIGHBORS must be at most {len(known)}, the number of labeled features, "
            f"got {k}"
        )
    queries = F.normalize(asked[:].to(device).float(), dim=1)
    cosines, places = _nearest(queries, known, k, max_similarities, show_progress)
    parts = [torch.zeros(0, num_classes)]
    for cosine, place in zip(cosines.split(_QUERY_ROWS), places.split(_QUERY_ROWS), strict=True):
        # The largest is taken off first: exp(1 / t) overflows at small temperatures.
        weight = ((cosine - cosine[:, :1]) / temperature).exp().cpu()
        votes = torch.zeros(len(weight), num_classes)
        votes.scatter_add_(1, labels[place.cpu()], weight)
        parts.append(votes / votes.sum(1, keepdim=True))
    return torch.cat(parts)


def _nearest(
    queries: Tensor,
    known: Tensor | FeatureRows,
    k: int,
    max_similarities: int,
    show_progress: bool,
) -> tuple[Tensor, Tensor]:
    """The `k` largest cosines of each query, largest first, and the rows of `known`: (M, k) each.

    All queries see a block of what is known before the next is fetched, so that it is read once.
    """
    device = queries.device
    # Until k rows have been seen, places are filled by what any row beats.
    best = torch.full((len(queries), k), -torch.inf, device=device)
    place = torch.zeros(len(queries), k, dtype=torch.long, device=device)
    columns = max(max_similarities // _QUERY_ROWS, 1)
    progress = Progress(len(known), "nearest neighbors", enabled=show_progress)
    for start in range(0, len(known), columns):
        block = F.normalize(known[start : start + columns].to(device).float(), dim=1)
        numbers = torch.arange(start, start + len(block), device=device)
        for first in range(0, len(queries), _QUERY_ROWS):
            some = slice(first, first + _QUERY_ROWS)
            cosine = torch.cat((best[some], queries[some] @ block.T), dim=1)
            at = torch.cat((place[some], numbers.expand(len(cosine), -1)), dim=1)
            best[some], order = cosine.topk(k, dim=1)
            place[some] = at.gather(1, order)
        progress.update(len(block))
    progress.close()
    return best, place
