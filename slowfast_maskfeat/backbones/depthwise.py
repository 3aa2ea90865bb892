"""Depthwise 3-D convolution of tokens on a CPU.

torch has fast CPU kernels for depthwise convolutions of images whose channels lie last, forward and
backward, and none for those of clips, whose backward pass took nine tenths of a small MViT's step.
A convolution over (t, h, w) is the sum over its temporal taps of convolutions over (h, w), each
shifted in time; tokens have their channels last already.

Where a stride is larger than the kernel, as that of the first blocks' keys is, most tokens are in
no window. Only those that are in one are copied, convolved and, outside of the graphs of
torch.compile, kept for the backward pass.

In bf16 the backward pass of a strided convolution is 2 to 8 times slower than in float32 with its
casts (docs/benchmarks.md), so it runs in float32; that of a convolution with stride 1 is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from slowfast_maskfeat.backbones.geometry import Triple
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.tracing import is_exporting

Pair = tuple[int, int]


def depthwise_conv3d(clips: Tensor, weight: Tensor, *, stride: Triple, padding: Triple) -> Tensor:
    """Depthwise 3-D convolution of tokens with their channels last, exact to rounding.

    Args:
        clips: (b, t, h, w, d).
        weight: (d, 1, kernel_t, kernel_h, kernel_w).
        stride: (t, h, w).
        padding: (t, h, w), zeros on both sides.

    Returns:
        (b, t', h', w', d).
    """
    clips = _cast(clips)
    if _runs_by_taps(clips, weight, stride, padding):
        taps = (weight.to(clips.dtype), stride[1:], padding[1:])
        if torch.compiler.is_compiling():
            return _convolution_in_graph(clips, *taps)
        grid = Grid(*clips.shape[1:4])
        return _TapwiseConvolution.apply(clips.flatten(1, 3), grid, *taps)[1]  # type: ignore[no-untyped-call]
    planes = clips.permute(0, 4, 1, 2, 3)  # (b, d, t, h, w)
    planes = F.conv3d(planes, weight, stride=stride, padding=padding, groups=weight.shape[0])
    return planes.permute(0, 2, 3, 4, 1)


def depthwise_conv3d_of_patches(
    tokens: Tensor, grid: Grid, weight: Tensor, *, stride: Triple, padding: Triple
) -> tuple[Tensor, Tensor]:
    """Convolve as `depthwise_conv3d` what follows the class token.

    Their gradients are written into one tensor on a CPU, where splitting the tokens would copy them
    once more.

    Args:
        tokens: (b, 1 + t*h*w, d), a class token first.
        grid: of the other tokens.
        weight: (d, 1, kernel_t, kernel_h, kernel_w).
        stride: (t, h, w).
        padding: (t, h, w), zeros on both sides.

    Returns:
        The class token (b, 1, d), on a CPU a copy, so that what keeps it does not keep the other
        tokens; and (b, t', h', w', d).
    """
    tokens = _cast(tokens)
    if _runs_by_taps(tokens, weight, stride, padding) and not torch.compiler.is_compiling():
        taps = (weight.to(tokens.dtype), stride[1:], padding[1:])
        return _TapwiseConvolution.apply(tokens, grid, *taps)  # type: ignore[no-untyped-call]
    # One split and not two slices: its backward pass is one concatenation.
    cls, patches = tokens.split([1, grid.num_tokens], dim=1)
    clips = patches.unflatten(1, tuple(grid))
    pooled = depthwise_conv3d(clips, weight, stride=stride, padding=padding)
    return cls.clone() if cls.device.type == "cpu" else cls, pooled


def _cast(tokens: Tensor) -> Tensor:
    """As torch's autocast of a CPU casts what is convolved."""
    if tokens.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return tokens.to(torch.get_autocast_dtype("cpu"))
    return tokens


def _runs_by_taps(tokens: Tensor, weight: Tensor, stride: Triple, padding: Triple) -> bool:
    """Whether the convolution is one of those that this file is for."""
    keeps_time = stride[0] == 1 and weight.shape[2] == 2 * padding[0] + 1
    on_cpu = tokens.device.type == "cpu" and tokens.dtype in (torch.float32, torch.bfloat16)
    return keeps_time and on_cpu and not is_exporting()


def _is_slow_in(dtype: torch.dtype, stride: Pair) -> bool:
    """Whether the backward pass with this stride is faster in float32, casts included."""
    return dtype == torch.bfloat16 and max(stride) > 1


class _TapwiseConvolution(torch.autograd.Function):
    """The sum over temporal taps, with stride 1 and a full reach along time.

    The frames of all clips stand in one row with empty frames between the clips, so that a shift in
    time is a slice of that row and no copy; what runs over a clip's end meets an empty frame.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, grid: Grid, weight: Tensor, stride: Pair, padding: Pair
    ) -> tuple[Tensor, Tensor]:
        front = tokens.shape[1] - grid.num_tokens
        windows = _Windows.of(grid, weight, stride, padding)
        row = windows.row(tokens[:, front:].unflatten(1, tuple(grid)))
        ctx.save_for_backward(row, weight)
        ctx.windows, ctx.shape, ctx.grid = windows, tokens.shape, grid
        pooled = _sum_of_taps(row, weight, windows)
        return tokens[:, :front].clone(), _clips_of_row(pooled, len(tokens), grid.t)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_front: Tensor, of_pooled: Tensor
    ) -> tuple[Tensor | None, None, Tensor | None, None, None]:
        row, weight = ctx.saved_tensors
        needs_tokens, needs_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        of_row, of_weight = _gradients_of_taps(
            of_pooled, row, weight, ctx.windows, (needs_tokens, needs_weight)
        )
        of_tokens = None
        if of_row is not None:
            front = ctx.shape[1] - ctx.grid.num_tokens
            of_tokens = of_pooled.new_empty(ctx.shape)
            of_tokens[:, :front] = of_front
            ctx.windows.write(of_row, of_tokens[:, front:].unflatten(1, tuple(ctx.grid)))
        return of_tokens, None, of_weight, None, None


@dataclass(frozen=True)
class _Windows:
    """Where the windows of a convolution over (h, w) lie, and how its frames stand in a row.

    Attributes:
        reach: temporal taps on either side of the center, and empty frames behind a clip.
        kernel: (h, w) of a window.
        frame: (h, w) of the frames of a clip.
        stride: (h, w) from one window to the next.
        padding: (h, w), zeros on both sides of a frame.
    """

    reach: int
    kernel: Pair
    frame: Pair
    stride: Pair
    padding: Pair

    @classmethod
    def of(cls, grid: Grid, weight: Tensor, stride: Pair, padding: Pair) -> _Windows:
        """The windows of a weight on frames of a grid."""
        kernel_t, *kernel = weight.shape[2:]
        sizes = (tuple(kernel), (grid.h, grid.w), tuple(stride), tuple(padding))
        return cls(kernel_t // 2, *sizes)  # type: ignore[arg-type]

    @property
    def counts(self) -> Pair:
        """Windows along (h, w)."""
        return tuple(  # type: ignore[return-value]
            (size + 2 * pad - kernel) // step + 1
            for size, pad, kernel, step in zip(
                self.frame, self.padding, self.kernel, self.stride, strict=True
            )
        )

    @property
    def are_apart(self) -> bool:
        """Whether there are tokens between any two neighbors, and none ends in the padding."""
        return all(
            pad <= kernel < step and (count - 1) * step + kernel - pad <= size
            for step, kernel, count, pad, size in zip(
                self.stride, self.kernel, self.counts, self.padding, self.frame, strict=True
            )
        )

    def steps(self) -> tuple[Pair, Pair]:
        """Stride and padding of the convolution over the frames of a row."""
        return (self.kernel, (0, 0)) if self.are_apart else (self.stride, self.padding)

    def row(self, clips: Tensor) -> Tensor:
        """(b, t, h, w, d) -> (b * (t + reach), d, h, w) with channels last: frames of a row.

        Of windows that are apart, the frames hold these alone.
        """
        if not self.are_apart:
            return _row_of_frames(clips, self.reach)
        batch, length, _, _, width = clips.shape
        frame = [count * size for count, size in zip(self.counts, self.kernel, strict=True)]
        row = clips.new_empty(batch, length + self.reach, *frame, width)
        row[:, length:] = 0
        frames = row[:, :length]
        for window, source in self._places(frames, clips):
            window.copy_(source)
        frames[:, :, : self.padding[0]] = 0
        frames[:, :, :, : self.padding[1]] = 0
        return row.flatten(0, 1).permute(0, 3, 1, 2)

    def write(self, row: Tensor, clips: Tensor) -> None:
        """Write the frames of a row to where they came from, and 0 between the windows."""
        batch, length = clips.shape[:2]
        frames = _clips_of_row(row, batch, length)
        if not self.are_apart:
            clips.copy_(frames)
            return
        clips.zero_()
        for window, target in self._places(frames, clips):
            target.copy_(window)

    def _places(self, frames: Tensor, clips: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The same tokens of all windows, in frames of windows alone and in their clips."""
        for in_row, in_clip in self._places_along(0):
            for column, column_in_clip in self._places_along(1):
                yield frames[:, :, in_row, column], clips[:, :, in_clip, column_in_clip]

    def _places_along(self, axis: int) -> Iterator[tuple[slice, slice]]:
        """Where the first, second, ... tokens of the windows are along h or w, without padding."""
        kernel, step, count = self.kernel[axis], self.stride[axis], self.counts[axis]
        for offset in range(kernel):
            first = offset - self.padding[axis]
            end = max(first + (count - 1) * step + 1, 0)
            skipped = int(first < 0)  # of the first window
            yield (
                slice(offset + skipped * kernel, None, kernel),
                slice(first + skipped * step, end, step),
            )


def _sum_of_taps(row: Tensor, weight: Tensor, windows: _Windows) -> Tensor:
    """Convolution of a row of frames, (n, d, h, w) -> (n, d, h', w')."""
    stride, padding = windows.steps()
    reach = windows.reach
    total = F.conv2d(row, weight[:, :, reach], None, stride, padding, groups=len(weight))
    for tap in _taps_from_center(reach)[1:]:
        source, target = _shifted(len(row), tap - reach)
        taps = weight[:, :, tap]
        total[target] += F.conv2d(row[source], taps, None, stride, padding, groups=len(weight))
    return total


def _gradients_of_taps(
    of_pooled: Tensor,
    row: Tensor,
    weight: Tensor,
    windows: _Windows,
    needed: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a row (n, d, h, w) and weight; None for those not needed."""
    dtype = weight.dtype
    if _is_slow_in(dtype, windows.stride):
        of_pooled, row, weight = of_pooled.float(), row.float(), weight.float()
    gradients = _row_of_frames(of_pooled, windows.reach)
    of_row, of_taps = None, {}
    for tap in _taps_from_center(windows.reach):
        source, target = _shifted(len(row), tap - windows.reach)
        part, of_taps[tap], _ = torch.ops.aten.convolution_backward(
            gradients[target],
            row[source],
            weight[:, :, tap].contiguous(),
            None,
            *windows.steps(),
            (1, 1),
            False,
            (0, 0),
            len(weight),
            (*needed, False),
        )
        if part is None:
            continue
        if of_row is None:
            of_row = part
        else:
            of_row[source] += part
    of_weight = None
    if needed[1]:
        taps = [of_taps[tap] for tap in range(2 * windows.reach + 1)]
        of_weight = torch.stack(taps, dim=2).to(dtype)
    return of_row, of_weight


# The same as operators of torch.compile, whose graphs then hold one node instead of one for each
# slice of each tap. Inductor can't lay these out where height and width are symbols (torch 2.13:
# "cannot determine truth value of Relational").


@torch.library.custom_op(
    "slowfast_maskfeat::depthwise_taps",
    mutates_args=(),
    schema="(Tensor clips, Tensor weight, int[] stride, int[] padding) -> Tensor",
)
def _convolution_in_graph(clips: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    windows = _Windows.of(Grid(*clips.shape[1:4]), weight, stride, padding)
    total = _sum_of_taps(windows.row(clips), weight, windows)
    return _clips_of_row(total, *clips.shape[:2]).contiguous()


@_convolution_in_graph.register_fake
def _(clips: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    windows = _Windows.of(Grid(*clips.shape[1:4]), weight, stride, padding)
    return clips.new_empty(*clips.shape[:2], *windows.counts, clips.shape[4])


@torch.library.custom_op(
    "slowfast_maskfeat::depthwise_taps_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor clips, Tensor weight, int[] stride, int[] padding)"
    " -> (Tensor, Tensor)",
)
def _gradients_in_graph(
    gradient: Tensor, clips: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> tuple[Tensor, Tensor]:
    windows = _Windows.of(Grid(*clips.shape[1:4]), weight, stride, padding)
    of_row, of_weight = _gradients_of_taps(gradient, windows.row(clips), weight, windows)
    assert of_row is not None
    assert of_weight is not None
    of_clips = torch.empty_like(clips, memory_format=torch.contiguous_format)
    windows.write(of_row, of_clips)
    return of_clips, of_weight.contiguous()


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


def _shifted(length: int, shift: int) -> tuple[slice, slice]:
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
