"""The weighted vote of the nearest neighbours.

Source: Wu et al., CVPR 2018 (arXiv 1805.01978), section 3.4; with k = 20 and a temperature of 0.07
as in DINO (arXiv 2104.14294), section 4.1. Nothing is trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Similarities held at once: 64 MiB of float32.
_MAX_SIMILARITIES = 2**24
_QUERY_ROWS = 1024


def neighbour_scores(
    known: Tensor,
    labels: Tensor,
    asked: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    max_similarities: int = _MAX_SIMILARITIES,
) -> Tensor:
    """Scores by the vote of the `k` rows of the largest cosine, each weighted exp(cosine / t).

    Args:
        known: (N, D) features whose classes are known.
        labels: (N,) int64 classes of these.
        asked: (M, D) features to classify.
        num_classes: K.
        k: neighbours that vote; all of them where there are fewer.
        temperature: of the weights.
        max_similarities: how many are held at once, which bounds the memory.

    Returns:
        (M, K) float32, each row summing to 1.

    Raises:
        ValueError: k or the temperature is not above 0, or nothing is known.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(
            f"PROBE.NUM_NEIGHBOURS and PROBE.TEMPERATURE are {k} and {temperature}; above 0 is "
            "right, 20 and 0.07 are usual"
        )
    if not len(known):
        raise ValueError("nearest neighbours: there is no labelled feature to compare with")
    known = F.normalize(known.float(), dim=1)
    asked = F.normalize(asked.float(), dim=1)
    columns = max(max_similarities // _QUERY_ROWS, 1)
    parts = []
    for rows in asked.split(_QUERY_ROWS):
        cosine, place = _nearest(rows, known, min(k, len(known)), columns)
        # The largest is taken off first: exp(1 / t) overflows at small temperatures.
        weight = ((cosine - cosine[:, :1]) / temperature).exp()
        votes = weight.new_zeros(len(rows), num_classes)
        votes.scatter_add_(1, labels[place], weight)
        parts.append(votes / votes.sum(1, keepdim=True))
    return torch.cat(parts) if parts else known.new_zeros(0, num_classes)


def _nearest(asked: Tensor, known: Tensor, k: int, columns: int) -> tuple[Tensor, Tensor]:
    """The `k` largest cosines of each row and where they are, looking at `columns` rows at once."""
    best = asked.new_empty(len(asked), 0)
    place = torch.empty(len(asked), 0, dtype=torch.long, device=asked.device)
    for start in range(0, len(known), columns):
        cosine = asked @ known[start : start + columns].T
        here = torch.arange(start, start + cosine.shape[1], device=asked.device)
        cosine = torch.cat((best, cosine), dim=1)
        numbers = torch.cat((place, here.expand(len(asked), -1)), dim=1)
        best, order = cosine.topk(min(k, cosine.shape[1]), dim=1)
        place = numbers.gather(1, order)
    return best, place
