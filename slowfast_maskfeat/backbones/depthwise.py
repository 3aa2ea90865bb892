"""Depthwise 3-D convolution of tokens on a CPU.

torch has fast CPU kernels for depthwise convolutions of images whose channels lie last, forward and
backward, and none for those of clips, whose backward pass took nine tenths of a small MViT's step.
A convolution over (t, h, w) is the sum over its temporal taps of convolutions over (h, w), each
shifted in time; tokens have their channels last already.

In bf16 the backward pass of a strided convolution is 2 to 8 times slower than in float32 with its
casts (docs/benchmarks.md), so it runs in float32; that of a convolution with stride 1 is not.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Pair = tuple[int, int]


def depthwise_conv3d(
    clips: Tensor, weight: Tensor, *, stride: tuple[int, int, int], padding: tuple[int, int, int]
) -> Tensor:
    """Depthwise 3-D convolution of tokens with their channels last, exact to rounding.

    Args:
        clips: (b, t, h, w, d).
        weight: (d, 1, kernel_t, kernel_h, kernel_w).
        stride: (t, h, w).
        padding: (t, h, w), zeros on both sides.

    Returns:
        (b, t', h', w', d).
    """
    kernel_t = weight.shape[2]
    keeps_time = stride[0] == 1 and kernel_t == 2 * padding[0] + 1
    on_cpu = clips.device.type == "cpu" and clips.dtype in (torch.float32, torch.bfloat16)
    if keeps_time and on_cpu:
        taps = (clips, weight.to(clips.dtype), stride[1:], padding[1:])
        if torch.compiler.is_compiling():
            return _compiled_taps(*taps)
        return _TapwiseConvolution.apply(*taps)  # type: ignore[no-untyped-call]
    planes = clips.permute(0, 4, 1, 2, 3)  # (b, d, t, h, w)
    planes = F.conv3d(planes, weight, stride=stride, padding=padding, groups=weight.shape[0])
    return planes.permute(0, 2, 3, 4, 1)


def _compiled_taps(clips: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """As `_TapwiseConvolution`, in operations that a compiler differentiates and fuses."""
    dtype, length = clips.dtype, clips.shape[1]
    if _is_slow_in(dtype, stride):
        clips, weight = clips.float(), weight.float()
    reach = weight.shape[2] // 2
    frames = F.pad(clips, (0, 0, 0, 0, 0, 0, reach, reach))  # (b, t + 2 * reach, h, w, d)
    planes = frames.flatten(0, 1).permute(0, 3, 1, 2)
    with torch.autocast("cpu", enabled=False):
        parts = [
            F.conv2d(planes, weight[:, :, tap], None, stride, padding, groups=len(weight))
            .unflatten(0, frames.shape[:2])
            .narrow(1, tap, length)
            for tap in range(2 * reach + 1)
        ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total.permute(0, 1, 3, 4, 2).to(dtype)


def _is_slow_in(dtype: torch.dtype, stride: Pair) -> bool:
    """Whether the backward pass with this stride is faster in float32, casts included."""
    return dtype == torch.bfloat16 and max(stride) > 1


class _TapwiseConvolution(torch.autograd.Function):
    """The sum over temporal taps, with stride 1 and a full reach along time.

    The frames of all clips stand in one row with empty frames between the clips, so that a shift in
    time is a slice of that row and no copy; what runs over a clip's end meets an empty frame.
    """

    @staticmethod
    def forward(ctx: Any, clips: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        batch, length = clips.shape[:2]
        reach = weight.shape[2] // 2
        row = _row_of_frames(clips, reach)  # (b * (t + reach), d, h, w), channels last
        total = None
        for tap in _taps_from_center(reach):
            source, target = _slices(len(row), tap - reach)
            part = F.conv2d(
                row[source], weight[:, :, tap], None, stride, padding, groups=len(weight)
            )
            if total is None:
                total = part
            else:
                total[target] += part
        ctx.save_for_backward(row, weight)
        ctx.shape, ctx.stride, ctx.padding = clips.shape, stride, padding
        assert total is not None
        return _clips_of_row(total, batch, length)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        row, weight = ctx.saved_tensors
        dtype, (batch, length) = weight.dtype, ctx.shape[:2]
        if _is_slow_in(dtype, ctx.stride):
            gradient, row, weight = gradient.float(), row.float(), weight.float()
        reach = weight.shape[2] // 2
        gradients = _row_of_frames(gradient, reach)
        grad_row, grad_taps = None, {}
        for tap in _taps_from_center(reach):
            source, target = _slices(len(row), tap - reach)
            part, grad_taps[tap], _ = torch.ops.aten.convolution_backward(
                gradients[target],
                row[source],
                weight[:, :, tap].contiguous(),
                None,
                ctx.stride,
                ctx.padding,
                (1, 1),
                False,
                (0, 0),
                len(weight),
                (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False),
            )
            if part is None:
                continue
            if grad_row is None:
                grad_row = part
            else:
                grad_row[source] += part
        grad_weight = None
        if ctx.needs_input_grad[1]:
            taps = [grad_taps[tap] for tap in range(2 * reach + 1)]
            grad_weight = torch.stack(taps, dim=2).to(dtype)
        grad_clips = None if grad_row is None else _clips_of_row(grad_row, batch, length).to(dtype)
        return grad_clips, grad_weight, None, None


def _taps_from_center(reach: int) -> list[int]:
    """The center tap, whose result covers the whole row, then the others."""
    return [reach, *(tap for tap in range(2 * reach + 1) if tap != reach)]


def _slices(length: int, shift: int) -> tuple[slice, slice]:
    """Where frames come from and go to along the row, for a shift in time."""
    return (
        slice(max(shift, 0), length + min(shift, 0)),
        slice(max(-shift, 0), length + min(-shift, 0)),
    )


def _row_of_frames(clips: Tensor, gap: int) -> Tensor:
    """(b, t, h, w, d) -> (b * (t + gap), d, h, w) with channels last; `gap` empty frames follow."""
    batch, length, *frame = clips.shape
    row = clips.new_empty(batch, length + gap, *frame)
    row[:, :length] = clips
    row[:, length:] = 0
    return row.flatten(0, 1).permute(0, 3, 1, 2)


def _clips_of_row(row: Tensor, batch: int, length: int) -> Tensor:
    """(b * (t + gap), d, h, w) -> (b, t, h, w, d) without the empty frames."""
    return row.permute(0, 2, 3, 1).unflatten(0, (batch, -1))[:, :length]
