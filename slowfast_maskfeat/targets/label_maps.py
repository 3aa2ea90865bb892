"""Stored maps of pseudo-labels, one distribution over the classes for each place of an image.

Source: Token Labeling (arXiv:2104.10858) and its published code, with one deviation: that code
stores a crop as (top, left, height, width) and reads it as (x1, y1, width, height), so that it
crops the map with rows and columns exchanged. Here the map is cropped as the image is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast_maskfeat.losses.precision import at_least_float32
from slowfast_maskfeat.roi import roi_align


def dense_label_maps(stored: Tensor, num_classes: int) -> Tensor:
    """Spread the stored scores of the best classes over all classes.

    Args:
        stored: (B, 2, S, h, w): the scores of the S best classes, before any softmax, and their
            numbers. Half precision holds numbers up to 2048 exactly.
        num_classes: K.

    Returns:
        (B, K, h, w) float32 (float64 if `stored` is), 0 where a class is not among the best.

    Raises:
        ValueError: the shape is another one, or (on the CPU, where it can be checked) a number is
            not that of a class.
    """
    if stored.ndim != 5 or stored.shape[1] != 2:
        raise ValueError(
            "label maps must have the shape (B, 2, S, h, w): scores and class numbers, got "
            f"{tuple(stored.shape)}"
        )
    scores, numbers = at_least_float32(stored).unbind(1)
    if stored.device.type == "cpu":
        is_class = (numbers >= 0) & (numbers < num_classes) & (numbers == numbers.floor())
        if not bool(is_class.all()):
            raise ValueError(
                f"class numbers of label maps must be 0 to {num_classes - 1}, got "
                f"{numbers[~is_class][0].item():g}; a map of another set of classes?"
            )
    batch, _, height, width = scores.shape
    dense = scores.new_zeros(batch, num_classes, height, width)
    return dense.scatter_(1, numbers.long(), scores)


def crop_label_maps(
    maps: Tensor, crops: Tensor, flips: Tensor | None, grid: tuple[int, int]
) -> Tensor:
    """Crop maps as their images were cropped, flip them, and resample them to a grid by ROIAlign.

    Args:
        maps: (B, K, h, w), of whole images.
        crops: (B, 4): top, left, height and width of each crop, as fractions of the image.
        flips: (B,) bool, whether the crop was then flipped left to right; None: no crop was.
        grid: rows and columns of the result.

    Returns:
        (B, K, rows, columns).
    """
    top, left, height, width = crops.to(maps.dtype).unbind(1)
    scale_y, scale_x = maps.shape[2:]
    index = torch.arange(len(maps), dtype=maps.dtype, device=maps.device)
    boxes = [left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y]
    cropped = roi_align(
        maps, torch.stack([index, *boxes], dim=1), output_size=grid, spatial_scale=1.0
    )
    if flips is None:
        return cropped
    return torch.where(flips[:, None, None, None], cropped.flip(-1), cropped)


def label_distributions(maps: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Turn scores into distributions over the classes.

    A class whose score is 0 because it is not among the best still weighs exp(0), as published.

    Args:
        maps: (B, K, h, w) scores.
        smoothing: share of the probability that is spread over all classes, in [0, 1). As
            published, probabilities are scaled by 1 - smoothing + smoothing / K before smoothing /
            K is added, so that their sum is 1 + smoothing / K.

    Returns:
        (B, h * w, K).
    """
    share = smoothing / maps.shape[1]
    probability = maps.flatten(2).transpose(1, 2).softmax(dim=-1)
    return probability * (1 - smoothing + share) + share
