"""Boxes cropped from feature maps: each becomes a small grid of mean features."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast_maskfeat.tracing import is_exporting

# Numbers in the copies of maps that are made at once, 16 MB in float32: what fits the cache.
_NUMBERS_AT_ONCE = 2**22


def roi_align(
    features: Tensor,
    boxes: Tensor,
    *,
    output_size: int | tuple[int, int],
    spatial_scale: float,
    aligned: bool = True,
) -> Tensor:
    """Crop boxes from feature maps: bins of a regular grid, each the mean of its samples.

    A bin has as many samples along each side as it spans positions, rounded up; so a box without
    area has none and gives 0. They are a regular grid too, and bilinear interpolation treats rows
    and columns apart. So the mean of a bin is a weighted sum over columns of weighted sums over
    rows: two matrix products, and no feature is gathered once per sample. Each box gets a copy of
    its own clip's map, some boxes at a time; nothing of other clips comes near it.
    Source: Mask R-CNN (He et al., 2017), section 3; `aligned` and the rules at the border are those
    of detectron2 and torchvision: a sample outside [-1, H] x [-1, W] counts as 0, one closer to
    the border than half a position takes the border's value.

    Args:
        features: (B, C, H, W). Half precision is computed in float32.
        boxes: (R, 5): index in the batch, x1, y1, x2, y2 in pixels. No gradient goes to them.
        output_size: bins P along each side, or along rows and columns.
        spatial_scale: positions of the map per pixel, 1 / stride.
        aligned: place pixel x at position x * spatial_scale - 0.5, where its center belongs. False
            is the older form: not shifted, and boxes at least one position wide.

    Returns:
        (R, C, P, P'), by rows and columns, in the type of `features`; (0, C, P, P')
        without boxes.

    Raises:
        ValueError: a shape or number is not as above, or a box on the CPU names a clip that is not
            in the batch. On other devices, where a check would wait, and in a graph of
            torch.compile, where it would break the graph, its features are NaN.
    """
    bins = (output_size, output_size) if isinstance(output_size, int) else output_size
    _check(features, boxes, bins=bins, spatial_scale=spatial_scale)
    num_maps, channels, height, width = features.shape
    dtype = torch.promote_types(features.dtype, torch.float32)
    with torch.no_grad():
        columns_of_boxes = boxes.to(dtype)
        batch, x1, y1, x2, y2 = (columns_of_boxes[:, number] for number in range(5))
        rows, columns = (
            _bin_weights(
                low * spatial_scale - (0.5 if aligned else 0.0),
                high * spatial_scale - (0.5 if aligned else 0.0),
                size=size,
                num_bins=num_bins,
                least_extent=None if aligned else 1.0,
            )
            for low, high, size, num_bins in ((y1, y2, height, bins[0]), (x1, x2, width, bins[1]))
        )  # (R, P, H) and (R, P', W)
        own = batch.nan_to_num(-1).clamp(0, num_maps - 1).long()
        rows = rows.where((own == batch)[:, None, None], torch.nan)
    # Each part has a gradient for all maps, which it should not be small against.
    num_at_once = max(_NUMBERS_AT_ONCE // (channels * height * width), num_maps)
    # The number of parts depends on that of boxes, which may be any in an exported graph.
    parts = [(own, rows, columns)]
    if not is_exporting():
        split = (part.split(num_at_once) for part in (own, rows, columns))
        parts = list(zip(*split, strict=True))
    # In bf16 the weights would move a box by up to 1/256 of the map.
    device = "cpu" if features.is_meta else features.device.type  # meta knows no autocast
    with torch.autocast(device, enabled=False):
        maps = features.to(dtype).permute(0, 2, 3, 1)  # (B, H, W, C)
        crops = [_crop(maps.index_select(0, own), rows, columns) for own, rows, columns in parts]
    return torch.cat(crops).to(features.dtype)


def _crop(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Means of bins: maps (R, H, W, C), weights (R, P, H) and (R, P', W) -> (R, C, P, P')."""
    bands = (rows @ maps.flatten(2)).unflatten(2, maps.shape[2:])  # (R, P, W, C)
    crop = columns[:, None].expand(-1, rows.shape[1], -1, -1) @ bands  # (R, P, P, C)
    return crop.permute(0, 3, 1, 2)


def _check(features: Tensor, boxes: Tensor, *, bins: tuple[int, int], spatial_scale: float) -> None:
    if features.ndim != 4:
        raise ValueError(
            f"features must have the axes (B, C, H, W), got the shape {tuple(features.shape)}"
        )
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(
            "boxes must be rows of batch index, x1, y1, x2, y2, of shape (R, 5), got "
            f"{tuple(boxes.shape)}"
        )
    if min(bins) < 1 or spatial_scale <= 0:
        raise ValueError(
            f"output_size and spatial_scale must be > 0, got {bins} and {spatial_scale}"
        )
    if boxes.device.type == "cpu" and not torch.compiler.is_compiling():
        batch = boxes[:, 0]
        known = (batch >= 0) & (batch < len(features)) & (batch == batch.floor())
        if not bool(known.all()):
            raise ValueError(
                f"boxes must name clips 0 to {len(features) - 1} of the batch, got "
                f"{batch[~known][0].item():g}"
            )


def _bin_weights(
    low: Tensor,
    high: Tensor,
    *,
    size: int,
    num_bins: int,
    least_extent: float | None,
) -> Tensor:
    """Weight of each position of one axis in the mean of each bin.

    Args:
        low: (R,) where the boxes start, in positions of the map.
        high: (R,) where they end.
        size: positions of the axis.
        num_bins: P.
        least_extent: smaller boxes grow to this; None: they stay.

    Returns:
        (R, P, size).
    """
    extent = high - low
    if least_extent is not None:
        extent = extent.clamp(min=least_extent)
    bin_size = extent / num_bins  # (R,)
    starts = low[:, None] + _numbers(num_bins, low) * bin_size[:, None]  # (R, P)
    num_samples = bin_size.ceil()
    # Samples of a bin that has several are over half a position apart, so no more than these fall
    # on the map. To look at them alone makes the size of the largest box, which is known on the
    # device only, irrelevant.
    num_slots = 2 * size + 5
    step = bin_size / num_samples.clamp(min=1)
    first = ((-1 - starts) / step[:, None]).floor().sub(1).clamp(min=0)
    first = first.where(num_samples[:, None] > 1, 0)
    samples = first[..., None] + _numbers(num_slots, low)  # (R, P, S)
    offsets = (samples + 0.5) * bin_size[:, None, None] / num_samples[:, None, None]
    places = starts[..., None] + offsets
    counted = (samples < num_samples[:, None, None]) & (places >= -1) & (places <= size)
    distance = places.clamp(0, size - 1)[..., None] - _numbers(size, low)  # (R, P, S, size)
    shares = (1 - distance.abs()).clamp(min=0).where(counted[..., None], 0)
    return shares.sum(dim=2) / num_samples.clamp(min=1)[:, None, None]


def _numbers(count: int, like: Tensor) -> Tensor:
    """0, 1, ... count - 1."""
    return torch.arange(count, dtype=like.dtype, device=like.device)
