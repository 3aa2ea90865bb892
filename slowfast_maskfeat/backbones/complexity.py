"""Cost of a model: its parameters and multiply-adds, block by block.

Nothing is computed: the model and its clips are on torch's `meta` device, whose tensors have shapes
and no values. Operators are counted by fvcore, as in the papers of this field: one multiply-add is
one, and so is what the published figures call a FLOP. Three things are added to it. Fused attention
is counted at the width of the heads, without the columns that carry relative positions (they are
counted where they are made) and without padding. Convolutions are traced on `meta`, where torch
hides them from the tracer. And what a mask selects is found, because masks keep their values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from slowfast_maskfeat.backbones.attention import PoolingAttention
from slowfast_maskfeat.backbones.block import MultiscaleBlock
from slowfast_maskfeat.backbones.geometry import BlockGeometry
from slowfast_maskfeat.backbones.patch_embed import PatchEmbed
from slowfast_maskfeat.shapes import Grid

_ATTENTION = "aten::scaled_dot_product_attention"
# Nothing is computed by these either, which fvcore does not know.
_WITHOUT_COST = (
    "aten::pad",
    "aten::repeat_interleave",
    "aten::scatter",
    "aten::take_along_dim",
    "aten::unflatten",
    "aten::where",
)
# The operators of attention that are no linear layer: products with keys, positions and values.
_OF_ATTENTION = ("scaled_dot_product_attention", "einsum", "matmul", "bmm")
_CONVOLUTIONS = (torch.conv2d, torch.conv3d)
# These look at the values of their indices, which are on the CPU for that.
_INDEXING = (Tensor.__getitem__, Tensor.__setitem__)


@dataclass(frozen=True, kw_only=True)
class PartComplexity:
    """One row: a block, or what comes before, between and after the blocks.

    Attributes:
        name: Name of the module, such as "blocks.3"; "rest" for what no other row counts, which is
            all of a model without patch embedding and blocks of this package.
        geometry: Widths, heads and strides of a block; None for what is none.
        grid_in: Grid of the tokens that come in, the cls token not counted; None where there is
            none. Tokens that lie on no grid, because some are left out, count as one row.
        grid_out: Grid of those that leave.
        num_parameters: Numbers in its parameters.
        multiply_adds: For one clip.
        attention: Those of them that are products of queries, keys, positions and values.
    """

    name: str
    geometry: BlockGeometry | None = None
    grid_in: Grid | None = None
    grid_out: Grid | None = None
    num_parameters: int
    multiply_adds: int
    attention: int


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Cost of a model for one clip.

    Attributes:
        num_parameters: Numbers in all parameters, those that stay fixed included.
        multiply_adds: For the given inputs.
        attention: Those of them that are products of queries, keys, positions and values.
        by_operator: Multiply-adds by name of the operator.
        unsupported: Operators that fvcore does not count, and how often each is called; among them
            are products of single numbers, such as sizes.
        parts: Rows that add up to the whole.
    """

    num_parameters: int
    multiply_adds: int
    attention: int
    by_operator: Mapping[str, int]
    unsupported: Mapping[str, int]
    parts: Sequence[PartComplexity] = field(repr=False)


def count_complexity(model: nn.Module, *inputs: Tensor) -> Complexity:
    """Counts the parameters and the multiply-adds of a model.

    Args:
        model: A network on the `meta` device: build it under `torch.device("meta")`.
        inputs: Its arguments, for one clip. The clips (1, C, T, H, W) are on `meta`; a mask, or
            boxes, is on the CPU with its values, because the cost depends on how many tokens it
            selects.

    Returns:
        The counts, for evaluation: without dropout.

    Raises:
        ValueError: The model or its clips are not on `meta`.
    """
    if any(tensor.device.type != "meta" for tensor in (inputs[0], *model.parameters())):
        raise ValueError("the model and its clips must be on torch's 'meta' device to be counted")
    grids: dict[str, tuple[Grid, Grid]] = {}
    hooks = [
        block.register_forward_hook(_grid_recorder(name, grids))
        for name, block in model.named_modules()
        if isinstance(block, MultiscaleBlock)
    ]
    was_training = model.training
    model.eval()
    try:
        counter = _analysis(model, inputs)
        with torch.no_grad(), _OnMeta():
            by_module = counter.by_module_and_operator()
        unsupported = counter.unsupported_ops()
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    parts = _parts(model, by_module, grids)
    total = by_module[""]
    return Complexity(
        num_parameters=_num_parameters(model),
        multiply_adds=round(sum(total.values())),
        attention=sum(part.attention for part in parts),
        by_operator={name: round(count) for name, count in total.most_common()},
        unsupported=dict(unsupported.most_common()),
        parts=parts,
    )


def _grid_recorder(name: str, grids: dict[str, tuple[Grid, Grid]]) -> Callable[..., None]:
    """Hook that notes the grids of a block; a dict keeps the order of the calls."""

    def record(module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Grid]) -> None:
        # While a model is traced sizes are tensors.
        before, after = (Grid(*map(int, grid)) for grid in (inputs[1], output[1]))
        grids[name] = before, after

    return record


def _analysis(model: nn.Module, inputs: tuple[Tensor, ...]) -> FlopCountAnalysis:
    head_widths = {
        name: module.geometry.attention_dim // module.num_heads
        for name, module in model.named_modules()
        if isinstance(module, PoolingAttention)
    }

    def count_attention(operands: list[Any], results: list[Any]) -> int:
        query, key, value = (get_shape(operand) for operand in operands[:3])
        scope = results[0].node().scopeName().rpartition("/")[2]
        width = head_widths.get(scope)
        widths = 2 * width if width else query[-1] + value[-1]
        return prod(query[:-1]) * key[-2] * widths

    counter = FlopCountAnalysis(model, inputs)
    counter.set_op_handle(_ATTENTION, count_attention)
    for name in _WITHOUT_COST:
        counter.set_op_handle(name, None)
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return counter.tracer_warnings("none")


class _OnMeta(TorchFunctionMode):
    """Lets a model on `meta` be traced, together with a mask that keeps its values on the CPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            return _convolution(*args, **kwargs)
        if func is torch.conv_transpose2d:
            return _transposed_convolution(*args, **kwargs)
        # A tracer makes tensors without axes of all sizes; they are left alone.
        devices = {arg.device.type for arg in args if _has_axes(arg)}
        if func is Tensor.to and devices == {"cpu"}:
            # A mask that followed the tokens to their device would lose its values there.
            return args[0].to(func(*args, **kwargs).dtype)
        if len(devices) > 1 and func not in _INDEXING:
            args = tuple(arg.to("meta") if _has_axes(arg) else arg for arg in args)
        return func(*args, **kwargs)


def _has_axes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _convolution(
    planes: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """The operator beneath a convolution, which the tracer records and `meta` does without."""
    stride, padding, dilation = (
        [value] * (weight.ndim - 2) if isinstance(value, int) else list(value)
        for value in (stride, padding, dilation)
    )
    unused = ([0] * len(stride), groups, False, False, False, False)
    return torch._convolution(planes, weight, bias, stride, padding, dilation, False, *unused)


def _transposed_convolution(
    planes: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """As `_convolution`, for the gradient of one, which enlarges planes."""
    stride, padding, output_padding, dilation = (
        [value] * (weight.ndim - 2) if isinstance(value, int) else list(value)
        for value in (stride, padding, output_padding, dilation)
    )
    unused = (False, False, False, False)
    return torch._convolution(
        planes, weight, bias, stride, padding, dilation, True, output_padding, groups, *unused
    )


def _parts(
    model: nn.Module,
    by_module: Mapping[str, Mapping[str, float]],
    grids: Mapping[str, tuple[Grid, Grid]],
) -> list[PartComplexity]:
    """Patch embedding, blocks in the order of their calls, and the rest of the model."""
    modules = dict(model.named_modules())
    patches = [name for name, module in modules.items() if isinstance(module, PatchEmbed)]
    parts = []
    for name in (*patches, *grids):
        module = modules[name]
        is_block = isinstance(module, MultiscaleBlock)
        before, after = grids.get(name, (None, None))
        part = PartComplexity(
            name=name,
            geometry=module.attn.geometry if is_block else None,
            grid_in=before,
            grid_out=after,
            num_parameters=_num_parameters(module),
            multiply_adds=round(sum(by_module[name].values())),
            attention=_of_attention(by_module[f"{name}.attn"]) if is_block else 0,
        )
        parts.append(part)
    rest = PartComplexity(
        name="rest",
        num_parameters=_num_parameters(model) - sum(part.num_parameters for part in parts),
        multiply_adds=round(sum(by_module[""].values()))
        - sum(part.multiply_adds for part in parts),
        attention=0,
    )
    return [*parts, rest]


def _of_attention(counts: Mapping[str, float]) -> int:
    return round(sum(counts.get(name, 0) for name in _OF_ATTENTION))


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
