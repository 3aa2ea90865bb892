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

from slowfast_maskfeat.tracing import is_exporting

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
    if clips.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        clips = clips.to(torch.get_autocast_dtype("cpu"))  # as that of torch casts its convolutions
    kernel_t = weight.shape[2]
    keeps_time = stride[0] == 1 and kernel_t == 2 * padding[0] + 1
    on_cpu = clips.device.type == "cpu" and clips.dtype in (torch.float32, torch.bfloat16)
    if keeps_time and on_cpu and not is_exporting():
        taps = (clips, weight.to(clips.dtype), stride[1:], padding[1:])
        if torch.compiler.is_compiling():
            return _convolution_in_graph(*taps)
        return _TapwiseConvolution.apply(*taps)  # type: ignore[no-untyped-call]
    planes = clips.permute(0, 4, 1, 2, 3)  # (b, d, t, h, w)
    planes = F.conv3d(planes, weight, stride=stride, padding=padding, groups=weight.shape[0])
    return planes.permute(0, 2, 3, 4, 1)


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
        row = _row_of_frames(clips, weight.shape[2] // 2)
        ctx.save_for_backward(row, weight)
        ctx.stride, ctx.padding = stride, padding
        return _clips_of_row(_sum_of_taps(row, weight, stride, padding), *clips.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        row, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        gradients = _gradients_of_taps(gradient, row, weight, ctx.stride, ctx.padding, needed)
        return *gradients, None, None


def _sum_of_taps(row: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Convolution of a row of frames, (n, d, h, w) -> (n, d, h', w')."""
    reach = weight.shape[2] // 2
    total = F.conv2d(row, weight[:, :, reach], None, stride, padding, groups=len(weight))
    for tap in _taps_from_center(reach)[1:]:
        source, target = _slices(len(row), tap - reach)
        taps = weight[:, :, tap]
        total[target] += F.conv2d(row[source], taps, None, stride, padding, groups=len(weight))
    return total


def _gradients_of_taps(
    gradient: Tensor,
    row: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    needed: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of clips (b, t, h, w, d) and weight; None for those not needed."""
    dtype, (batch, length) = weight.dtype, gradient.shape[:2]
    if _is_slow_in(dtype, stride):
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
            stride,
            padding,
            (1, 1),
            False,
            (0, 0),
            len(weight),
            (*needed, False),
        )
        if part is None:
            continue
        if grad_row is None:
            grad_row = part
        else:
            grad_row[source] += part
    grad_weight = None
    if needed[1]:
        taps = [grad_taps[tap] for tap in range(2 * reach + 1)]
        grad_weight = torch.stack(taps, dim=2).to(dtype)
    grad_clips = None if grad_row is None else _clips_of_row(grad_row, batch, length).to(dtype)
    return grad_clips, grad_weight


# The same as operators of torch.compile, whose graphs then hold one node instead of one for each
# slice of each tap. Inductor can't lay these out where height and width are symbols (torch 2.13:
# "cannot determine truth value of Relational").


@torch.library.custom_op(
    "slowfast_maskfeat::depthwise_taps",
    mutates_args=(),
    schema="(Tensor clips, Tensor weight, int[] stride, int[] padding) -> Tensor",
)
def _convolution_in_graph(clips: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    row = _row_of_frames(clips, weight.shape[2] // 2)
    total = _sum_of_taps(row, weight, stride, padding)
    return _clips_of_row(total, *clips.shape[:2]).contiguous()


@_convolution_in_graph.register_fake
def _(clips: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    batch, length, *frame, width = clips.shape
    pooled = [
        (size + 2 * pad - kernel) // step + 1
        for size, kernel, step, pad in zip(frame, weight.shape[3:], stride, padding, strict=True)
    ]
    return clips.new_empty(batch, length, *pooled, width)


@torch.library.custom_op(
    "slowfast_maskfeat::depthwise_taps_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor clips, Tensor weight, int[] stride, int[] padding)"
    " -> (Tensor, Tensor)",
)
def _gradients_in_graph(
    gradient: Tensor, clips: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> tuple[Tensor, Tensor]:
    row = _row_of_frames(clips, weight.shape[2] // 2)
    grad_clips, grad_weight = _gradients_of_taps(gradient, row, weight, stride, padding)
    assert grad_clips is not None
    assert grad_weight is not None
    return grad_clips.contiguous(), grad_weight.contiguous()


@_gradients_in_graph.register_fake
def _(
    gradient: Tensor, clips: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> tuple[Tensor, Tensor]:
    return clips.new_empty(clips.shape), weight.new_empty(weight.shape)


def _keep_for_gradients(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    clips, weight, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(clips, weight)


def _backward_in_graph(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
    gradients = _gradients_in_graph(gradient, *ctx.saved_tensors, ctx.stride, ctx.padding)
    return *gradients, None, None


_convolution_in_graph.register_autograd(_backward_in_graph, setup_context=_keep_for_gradients)


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
