"""Color operations that Pillow's enhancers lack: hue, saturation, brightness, blur, differences.

Shapes and conventions are those of `operations`: (G, T, H, W, C) uint8 frames of G clips with one
argument per clip. Results are rounded to the nearest value and clipped, which BYOL's code does
after its last change only. Colors are those of HSV (Smith, "Color gamut transform pairs", 1978),
computed without a quantization to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from slowfast_maskfeat.augment import operations


def shift_brightness(frames: Tensor, amount: Tensor) -> Tensor:
    """Add a fraction `amount` (G,) of the range of values."""
    return _round(frames.float().add_(255 * _per_clip(amount)))


def channel_contrast(frames: Tensor, factor: Tensor, inside: Tensor | None = None) -> Tensor:
    """Scale the distances from the mean of each channel of each frame by `factor` (G,)."""
    values = frames.float()
    if inside is None:
        mean = values.mean(dim=(2, 3), keepdim=True)
    else:
        total = torch.where(inside, values, 0.0).sum(dim=(2, 3), keepdim=True)
        mean = total / inside.sum(dim=(2, 3), keepdim=True)
    return _round(values.sub_(mean).mul_(_per_clip(factor)).add_(mean))


def saturate(frames: Tensor, factor: Tensor) -> Tensor:
    """Multiply the saturation of HSV by `factor` (G,), up to its largest value."""
    values = frames.float()
    highest = values.amax(-1, keepdim=True)
    chroma = highest - values.amin(-1, keepdim=True)
    # A saturation of 1 is a chroma as large as the value.
    ratio = torch.minimum(_per_clip(factor), highest / chroma.clamp(min=1))
    return _round(highest - (highest - values).mul_(ratio))


def rotate_hue(frames: Tensor, turns: Tensor) -> Tensor:
    """Rotate the color wheel of HSV by `turns` (G,)."""
    red, green, blue = (channel.float() for channel in frames.unbind(-1))
    highest = torch.maximum(torch.maximum(red, green), blue)
    chroma = highest - torch.minimum(torch.minimum(red, green), blue)
    sixth = chroma.clamp(min=1)  # integers: only a gray has less
    hue = torch.where(
        highest == red,
        (green - blue).div_(sixth),
        torch.where(
            highest == green, (blue - red).div_(sixth).add_(2), (red - green).div_(sixth).add_(4)
        ),
    )
    hue.add_(6 * turns[:, None, None, None])
    channels = []
    for place in (5, 3, 1):  # of red, green and blue on the wheel of six sectors
        sector = (hue + place).remainder_(6)
        fall = torch.minimum(sector, 4 - sector).clamp_(0, 1)
        channels.append(highest - fall.mul_(chroma))
    return _round(torch.stack(channels, dim=-1))


def frame_difference(frames: Tensor) -> Tensor:
    """Return 128 plus half the difference of each frame's luma to the next, in equal channels.

    What does not move becomes gray. The last difference is repeated, so that the number of frames
    stays; that of a single frame is 0. PySlowFast (datasets/transform.py) subtracts neighbors in
    the video, of which only every DATA.SAMPLING_RATE-th belongs to the clip.
    """
    luma = operations.gray(frames).to(torch.int16)
    following = luma[:, 1:] if luma.shape[1] > 1 else luma
    half = luma[:, : following.shape[1]].sub(following).add_(256).bitwise_right_shift_(1)
    last = half[:, -1:].expand(-1, luma.shape[1] - half.shape[1], -1, -1, -1)
    return torch.cat([half, last], dim=1).to(torch.uint8).expand(frames.shape).contiguous()


def blur_radius(sigma: float) -> int:
    """Return the pixels to each side that a blur reads: four standard deviations."""
    return math.ceil(4 * sigma)


def gaussian_blur(frames: Tensor, sigma: Tensor, radius: int, inside: Tensor | None) -> Tensor:
    """Blur columns and then rows by a Gaussian; border pixels count as repeated beyond the border.

    Args:
        frames: (G, T, H, W, C) uint8.
        sigma: (G,) float32, standard deviation in pixels.
        radius: the largest `blur_radius` of the clips; smaller ones are zero outside of theirs.
        inside: see `operations`.
    """
    clips, steps, height, width, channels = frames.shape
    heights = widths = None
    if inside is not None:
        heights = inside.any(3).sum((1, 2, 3))  # (G,)
        widths = inside.any(2).sum((1, 2, 3))
    planes = frames.permute(0, 1, 4, 2, 3).reshape(clips, steps * channels, height, width).float()
    # Matrices, of which rows are mostly zero: faster than a convolution with a kernel per clip.
    with _exact_products():
        planes = planes @ _blur_matrix(width, sigma, radius, widths)[:, None].mT
        planes = _blur_matrix(height, sigma, radius, heights)[:, None] @ planes
    blurred = _round(planes).view(clips, steps, channels, height, width)
    return blurred.permute(0, 1, 3, 4, 2).contiguous()


@contextmanager
def _exact_products() -> Iterator[None]:
    """Compute matrix products in float32 on a GPU, whatever the precision of the networks."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def _blur_matrix(length: int, sigma: Tensor, radius: int, lengths: Tensor | None) -> Tensor:
    """Return the weight of each input pixel in each output pixel of a line: (G, length, length)."""
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    # float64, so that the weights of a clip do not depend on the radius of the others.
    deviation = sigma.double().clamp(min=1e-6)[:, None]
    weights = (-(offsets / deviation).square() / 2).exp()
    weights = torch.where(offsets.abs() <= (4 * deviation).ceil(), weights, 0.0)
    weights = (weights / weights.sum(1, keepdim=True)).float()  # (G, taps)
    taps = torch.arange(length, device=sigma.device)[:, None] + offsets
    if lengths is None:
        taps = taps.clamp_(0, length - 1).expand(len(sigma), -1, -1)
    else:
        taps = torch.minimum(taps.clamp(min=0), lengths[:, None, None] - 1)
    matrix = torch.zeros(len(sigma), length, length, device=sigma.device)
    return matrix.scatter_add_(2, taps, weights[:, None].expand(-1, length, -1))


def _per_clip(values: Tensor) -> Tensor:
    """Reshape (G,) to (G, 1, 1, 1, 1)."""
    return values[:, None, None, None, None]


def _round(values: Tensor) -> Tensor:
    """Round to uint8."""
    return values.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
