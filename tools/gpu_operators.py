"""Single operators of MViTv2-S, for `gpu_report.py`: pooling, attention, HOG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from benchmark_steps import PLAIN as PLAIN_STEP
from benchmark_steps import PRECISIONS, make_state
from gpu_records import EAGER, KERNELS, OPERATORS, PLAIN, Record
from gpu_settings import FORMS, S, Setting, attempt
from plain_forms import separate_casts
from torch import Tensor, nn

from slowfast_maskfeat.backbones import block as blocks
from slowfast_maskfeat.backbones.attention import PoolingAttention
from slowfast_maskfeat.backbones.pooling import pool_tokens
from slowfast_maskfeat.builders.backbones import configured_clip_size
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.hog import HOGTarget

OPERATOR_NAMES = (
    "pooling of queries, first block",
    "pooling of keys, first block",
    "attention, first block",
    "attention, last block",
    "HOG",
)
ROWS = tuple((name, form) for form in (PLAIN, EAGER, KERNELS) for name in OPERATOR_NAMES)


class Operator(NamedTuple):
    """A module on random inputs.

    Attributes:
        name: name of the operator.
        setting: its sizes, as text.
        module: called with the inputs and a grid.
        inputs: tokens of shape (B, ...) in float32, or uint8 clips.
        grid: of the tokens.
    """

    name: str
    setting: str
    module: nn.Module
    inputs: Tensor
    grid: Grid


class _Pooling(nn.Module):
    """Pooling of the queries, keys or values of an attention, with its norm."""

    def __init__(self, attention: PoolingAttention, name: str) -> None:
        super().__init__()
        self.pool = getattr(attention, f"pool_{name}")
        self.norm = getattr(attention, f"norm_{name}")
        self.heads, self.has_cls = attention.num_pooled_apart, attention.has_cls

    def forward(self, tokens: Tensor, grid: Grid, bias: None = None) -> tuple[Tensor, Grid]:
        """(B, N, heads * d) -> (B, heads, N', d)."""
        apart = tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return pool_tokens(apart, grid, self.pool, self.norm, has_cls=self.has_cls)


class _HOG(nn.Module):
    """HOG of the tokens of clips."""

    def __init__(self, target: HOGTarget) -> None:
        super().__init__()
        self.target = target

    def forward(self, clips: Tensor, grid: Grid, bias: None = None) -> tuple[Tensor, Grid]:
        """(B, C, T, H, W) -> (B, N, dim)."""
        return self.target.encode(clips, grid), grid


def operators(state: TrainState, size: int, clip_size: tuple[int, int, int]) -> Iterator[Operator]:
    """Yield the operators of a MaskFeat pre-training with random inputs.

    Args:
        state: the pre-training, whose forms of the operators are taken.
        size: clips B.
        clip_size: (T, H, W) of the clips.
    """
    attentions = [m for m in state.bare.modules() if isinstance(m, PoolingAttention)]
    first, last = attentions[0], attentions[-1]
    device = next(state.bare.parameters()).device
    draw = torch.Generator(device).manual_seed(0)

    def tokens(attention: PoolingAttention, width: int) -> Tensor:
        shape = (size, int(attention.has_cls) + attention.grid.num_tokens, width)
        return torch.randn(shape, device=device, generator=draw)

    def sizes(attention: PoolingAttention) -> str:
        shape = attention.geometry
        grid, heads = "x".join(map(str, attention.grid)), shape.num_heads
        return f"batch {size}, {grid} tokens, {heads} heads, width {shape.attention_dim}"

    for names, which in (("queries", "q"), ("keys", "k")):
        pooling = _Pooling(first, which)
        if pooling.pool is None:
            continue
        inputs = tokens(first, first.geometry.attention_dim)
        stride = "x".join(map(str, pooling.pool.stride))
        text = f"{sizes(first)}, stride {stride}"
        yield Operator(f"pooling of {names}, first block", text, pooling, inputs, first.grid)
    for place, attention in (("first", first), ("last", last)):
        inputs = tokens(attention, attention.geometry.dim)
        name = f"attention, {place} block"
        yield Operator(name, sizes(attention), attention, inputs, attention.grid)
    (target,) = (m for m in state.task.modules() if isinstance(m, HOGTarget))
    shape = (size, 3, *clip_size)
    clips = torch.randint(0, 256, shape, device=device, generator=draw, dtype=torch.uint8)
    steps = zip(clip_size, target.token_size, strict=True)
    grid = Grid(*(length // step for length, step in steps))
    text = f"batch {size}, clips of {'x'.join(map(str, clip_size))}"
    yield Operator("HOG", text, _HOG(target), clips, grid)


def measure_operator(operator: Operator, form: str, setting: Setting) -> dict[str, float]:
    """Seconds of the forward pass, and of the backward pass if there is one, and peak memory.

    Args:
        operator: what to measure.
        form: of `benchmark_steps`; the plain one casts each weight for itself.
        setting: where to measure.
    """
    device, dtype = setting.device, PRECISIONS[setting.precision]
    is_trained = operator.inputs.is_floating_point()
    inputs = operator.inputs
    if is_trained:
        inputs = inputs.to(dtype or torch.float32).requires_grad_()
    parameters = [p for p in operator.module.parameters() if p.requires_grad]

    def forward() -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return blocks.run_block(operator.module, inputs, operator.grid, recompute=False)[0]

    with separate_casts() if form == PLAIN_STEP else nullcontext():
        gradient = torch.ones_like(forward().detach())

        def call(_: int) -> object:
            result = forward()
            if not is_trained:
                return result
            return torch.autograd.grad(result, [inputs, *parameters], gradient, allow_unused=True)

        values = {"seconds": setting.seconds_of(call, window=0.1)}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            call(0)
            values["memory_gib"] = (torch.cuda.max_memory_allocated(device) - before) / 2**30
    return values


def measure_operators(setting: Setting) -> Iterator[Record]:
    """Yield pooling, attention and HOG of MViTv2-S in the plain, the fast and the kernels' form."""
    size = 2 if setting.quick else 16
    for form in (PLAIN, EAGER, KERNELS):
        kind, pairs = FORMS[form]
        cfg = S.read(setting, pairs)
        try:
            state = make_state(cfg, kind, setting.device)
        except ValueError as error:  # the kernels do not run here
            for name in OPERATOR_NAMES:
                yield Record(OPERATORS, name, form, error=first_line(error))
            continue
        for operator in operators(state, size, configured_clip_size(cfg)):
            measure = partial(measure_operator, operator, kind, setting)
            yield attempt(OPERATORS, operator.name, form, operator.setting, measure)
