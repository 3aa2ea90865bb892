"""k-NN probe: the weighted vote of the nearest neighbors, without training.

Source: Wu et al., CVPR 2018 (arXiv 1805.01978), section 3.4; with k = 20 and a temperature of 0.07
as in DINO (arXiv 2104.14294), section 4.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.features.rows import FeatureRows
from slowfast_maskfeat.log import Progress

# Similarities in memory at once: 64 MiB of float32.
_MAX_SIMILARITIES = 2**24
_QUERY_ROWS = 1024


@torch.no_grad()
def neighbor_scores(
    known: Tensor | FeatureRows,
    labels: Tensor,
    queries: Tensor | FeatureRows,
    *,
    num_classes: int,
    device: torch.device,
    k: int = 20,
    temperature: float = 0.07,
    leave_one_out: bool = False,
    max_similarities: int = _MAX_SIMILARITIES,
    show_progress: bool = True,
) -> Tensor:
    """Class scores by a vote of the `k` features of largest cosine, weighted exp(cosine / t).

    If several features tie for the k-th neighbor, any of them may vote: which ones can differ
    between devices and block sizes, as the last bits of a cosine do.

    Args:
        known: (N, D) features with known classes; one block at a time is moved to the device.
        labels: (N,) int64 classes of the known features.
        queries: (M, D) features to classify, all moved to the device.
        num_classes: K.
        device: of the computation.
        k: number of neighbors that vote (PROBE.NUM_NEIGHBORS).
        temperature: t of the weights (PROBE.TEMPERATURE).
        leave_one_out: the queries are the known features; none is its own neighbor.
        max_similarities: similarities in memory at once.
        show_progress: whether to show the progress.

    Returns:
        (M, K) float32 on the CPU, each row summing to 1.

    Raises:
        ValueError: k is larger than N, or than N - 1 if a feature is not its own neighbor.
    """
    assert k > 0, k
    assert temperature > 0, temperature
    assert not leave_one_out or len(known) == len(queries), (len(known), len(queries))
    num_candidates = len(known) - leave_one_out
    if k > num_candidates:
        raise ValueError(
            f"PROBE.NUM_NEIGHBORS must be at most {num_candidates}, the number of labeled "
            f"features, got {k}"
        )
    unit_queries = F.normalize(queries[:].to(device).float(), dim=1)
    cosines, places = _nearest(
        unit_queries, known, k, max_similarities, show_progress, leave_one_out=leave_one_out
    )
    parts = [torch.zeros(0, num_classes)]
    for cosine, place in zip(cosines.split(_QUERY_ROWS), places.split(_QUERY_ROWS), strict=True):
        # The largest is subtracted first: exp(1 / t) overflows at small temperatures.
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
    *,
    leave_one_out: bool,
) -> tuple[Tensor, Tensor]:
    """The `k` largest cosines of each query, in descending order, and their rows: (M, k) each.

    All queries are compared with one block of `known` before the next is read, so that each is read
    once.
    """
    device = queries.device
    # Until k rows have been seen, the rest is -inf, which any row exceeds.
    best = torch.full((len(queries), k), -torch.inf, device=device)
    place = torch.zeros(len(queries), k, dtype=torch.long, device=device)
    columns = max(max_similarities // _QUERY_ROWS, 1)
    progress = Progress(len(known), "nearest neighbors", enabled=show_progress)
    for start in range(0, len(known), columns):
        block = F.normalize(known[start : start + columns].to(device).float(), dim=1)
        numbers = torch.arange(start, start + len(block), device=device)
        for first in range(0, len(queries), _QUERY_ROWS):
            some = slice(first, first + _QUERY_ROWS)
            cosine = queries[some] @ block.T
            if leave_one_out:
                own = torch.arange(first, first + len(cosine), device=device)
                cosine.masked_fill_(own[:, None] == numbers, -torch.inf)
            cosine = torch.cat((best[some], cosine), dim=1)
            at = torch.cat((place[some], numbers.expand(len(cosine), -1)), dim=1)
            best[some], order = cosine.topk(k, dim=1)
            place[some] = at.gather(1, order)
        progress.update(len(block))
    progress.close()
    return best, place
