"""Statistics of many masks, by the names of the goldens."""

from __future__ import annotations

import numpy as np

# Masks whose connected parts are counted, which takes longest.
_MOST_PARTS_COUNTED = 4000


def mask_statistics(masks: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of masks (n, h, w), by the names of the goldens."""
    counts = masks.sum(axis=(1, 2))
    parts = np.array([num_connected_parts(mask) for mask in masks[:_MOST_PARTS_COUNTED]])
    right = masks[:, :, 1:][masks[:, :, :-1]]
    lower = masks[:, 1:][masks[:, :-1]]
    return {
        "count_mean": counts.mean(),
        "count_std": counts.std(),
        "count_min": counts.min(),
        "count_max": counts.max(),
        "count_shares": np.bincount(counts, minlength=masks[0].size + 1) / len(masks),
        "frequency_map": masks.mean(axis=0),
        "p_right_neighbour_given_masked": right.mean(),
        "p_lower_neighbour_given_masked": lower.mean(),
        "components_mean": parts.mean(),
        "components_std": parts.std(),
    }


def num_connected_parts(mask: np.ndarray) -> int:
    """Number of parts of a mask that are connected through the sides of cells."""
    left = {(int(row), int(column)) for row, column in zip(*mask.nonzero(), strict=True)}
    number = 0
    while left:
        number += 1
        border = [left.pop()]
        while border:
            row, column = border.pop()
            sides = {(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}
            border += sides & left
            left -= sides
    return number
