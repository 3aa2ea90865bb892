"""Cost of a model: its parameters and multiply-adds, block by block.

Nothing is computed: the model and its clips are on torch's `meta` device, whose tensors have shapes
and no values, and each function of torch that the model calls is counted from the shapes. As in the
papers of this field, one multiply-add is one, and so is what the published figures call a FLOP. The
figures are those of fvcore's `FlopCountAnalysis`, by which the published ones were counted: norms
cost five for each number (two if running statistics are applied), and additions, activations and
poolings nothing. Two things differ. Fused attention is counted at the width of the heads, without
the columns that carry relative positions (they are counted where they are made) and without
padding. And what a mask selects is found, because masks keep their values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from slowfast_maskfeat.backbones.attention import PoolingAttention
from slowfast_maskfeat.backbones.block import MultiscaleBlock
from slowfast_maskfeat.backbones.geometry import BlockGeometry
from slowfast_maskfeat.backbones.meta_shapes import call_by_shape
from slowfast_maskfeat.backbones.patch_embed import PatchEmbed
from slowfast_maskfeat.frozen import evaluating
from slowfast_maskfeat.shapes import Grid

_ATTENTION = "scaled_dot_product_attention"
# The operators of attention that are no linear layer: products with keys, positions and values.
_OF_ATTENTION = (_ATTENTION, "einsum", "matmul", "bmm")
# These look at the values of their indices, which are on the CPU for that.
_INDEXING = (Tensor.__getitem__, Tensor.__setitem__)


@dataclass(frozen=True, kw_only=True)
class PartComplexity:
    """One row: a block, or what comes before, between and after the blocks.

    Attributes:
        name: name of the module, such as "blocks.3"; "rest" for what no other row counts, which is
            all of a model without patch embedding and blocks of this package.
        geometry: widths, heads and strides of a block; None for what is none.
        grid_in: grid of the tokens that come in, the cls token not counted; None where there is
            none. Tokens that lie on no grid, because some are left out, count as one row.
        grid_out: grid of those that leave.
        num_parameters: numbers in its parameters.
        multiply_adds: for one clip.
        attention: those of them that are products of queries, keys, positions and values.
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
        num_parameters: numbers in all parameters, those that stay fixed included.
        multiply_adds: for the given inputs.
        attention: those of them that are products of queries, keys, positions and values.
        by_operator: Multiply-adds by name of the operator.
        unsupported: functions that compute something but are not counted, and how often each is
            called.
        parts: rows that add up to the whole.
    """

    num_parameters: int
    multiply_adds: int
    attention: int
    by_operator: Mapping[str, int]
    unsupported: Mapping[str, int]
    parts: Sequence[PartComplexity] = field(repr=False)


def count_complexity(model: nn.Module, *inputs: Tensor) -> Complexity:
    """Count the parameters and the multiply-adds of a model.

    Args:
        model: a network on the `meta` device: build it under `torch.device("meta")`.
        inputs: its arguments, for one clip. The clips (1, C, T, H, W) are on `meta`; a mask, or
            boxes, is on the CPU with its values, because the cost depends on how many tokens it
            selects.

    Returns:
        The counts, for evaluation: without dropout.

    Raises:
        ValueError: the model or its clips are not on `meta`.
    """
    if any(tensor.device.type != "meta" for tensor in (inputs[0], *model.parameters())):
        raise ValueError("the model and its clips must be on torch's 'meta' device to be counted")
    counter = _Counter()
    hooks = [hook for name, module in model.named_modules() for hook in counter.hook(name, module)]
    try:
        with evaluating(model), torch.no_grad(), counter:
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    parts = _parts(model, counter)
    total = counter.by_module[""]
    return Complexity(
        num_parameters=_num_parameters(model),
        multiply_adds=sum(total.values()),
        attention=sum(part.attention for part in parts),
        by_operator=dict(total.most_common()),
        unsupported=dict(counter.unsupported.most_common()),
        parts=parts,
    )


class _Counter(TorchFunctionMode):
    """Counts the functions of torch that a model on `meta` calls, whose masks are on the CPU.

    Attributes:
        by_module: name of a module -> multiply-adds by name of the operator; "" is the model.
        grids: name of a block -> grids before and after it, in the order of the calls.
        unsupported: how often functions are called that compute something and are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_module: dict[str, Counter[str]] = {"": Counter()}
        self.grids: dict[str, tuple[Grid, Grid]] = {}
        self.unsupported: Counter[str] = Counter()
        self._running: list[tuple[str, nn.Module]] = []

    def hook(self, name: str, module: nn.Module) -> list[RemovableHandle]:
        """Attribute what a module calls to its name, if it is one of those that are reported."""
        if not isinstance(module, PatchEmbed | MultiscaleBlock | PoolingAttention):
            return []
        self.by_module[name] = Counter()
        return [
            module.register_forward_pre_hook(lambda *_: self._running.append((name, module))),
            module.register_forward_hook(partial(self._leave, name)),
        ]

    def _leave(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._running.pop()
        if isinstance(module, MultiscaleBlock):
            self.grids[name] = inputs[1], output[1]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        devices = {arg.device.type for arg in args if _has_axes(arg)}
        if func is Tensor.to and devices == {"cpu"}:
            # A mask that followed the tokens to their device would lose its values there.
            return args[0].to(func(*args, **kwargs).dtype)
        if len(devices) > 1 and func not in _INDEXING:
            args = tuple(arg.to("meta") if _has_axes(arg) else arg for arg in args)
        result = call_by_shape(func, args, kwargs)
        self._count(getattr(func, "__name__", str(func)), args, kwargs, result)
        return result

    def _count(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if name in _OPERATORS:
            operator, count = _OPERATORS[name]
            cost = count(*args, result=result, **kwargs)
            if operator == _ATTENTION:
                cost = self._without_padding(args[0], args[1], cost)
            for module in ("", *(module for module, _ in self._running)):
                self.by_module[module][operator] += cost
        elif name not in _WITHOUT_COST:
            self.unsupported[name] += 1

    def _without_padding(self, query: Tensor, key: Tensor, cost: int) -> int:
        """Cost of fused attention at the width of the heads of the module that computes it."""
        for _, module in reversed(self._running):
            if isinstance(module, PoolingAttention):
                width = module.geometry.attention_dim // module.num_heads
                return query.shape[:-1].numel() * key.shape[-2] * 2 * width
        return cost


def _has_axes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _linear(inputs: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return inputs.numel() * weight.shape[0]


def _product(left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    return left.numel() * (right.shape[-1] if right.ndim > 1 else 1)


def _einsum(equation: str, *operands: Any, **_: Any) -> int:
    """Multiply-adds of a product of two tensors; a further one multiplies what two have made."""
    shapes = [operand.shape for operand in operands]
    letters = equation.replace(" ", "").partition("->")[0].split(",")
    assert "." not in equation, equation
    sizes = {
        letter: size
        for axes, shape in zip(letters, shapes, strict=True)
        for letter, size in zip(axes, shape, strict=True)
    }
    return prod(sizes.values()) * max(1, len(shapes) - 1)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    rows = query.shape[:-1].numel()
    return rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _convolution(inputs: Tensor, weight: Tensor, *_: Any, result: Tensor, **__: Any) -> int:
    return len(inputs) * weight.numel() * result.shape[2:].numel()


def _transposed_convolution(inputs: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return len(inputs) * weight.numel() * inputs.shape[2:].numel()


def _norm(inputs: Tensor, _: Any, weight: Tensor | None = None, *__: Any, **___: Any) -> int:
    return inputs.numel() * (4 if weight is None else 5)


def _batch_norm(
    inputs: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Tensor | None = None,
    bias: Any = None,
    training: bool = False,
    *_: Any,
    **__: Any,
) -> int:
    return inputs.numel() * ((4 if training else 1) + (weight is not None))


def _interpolate(inputs: Tensor, *_: Any, mode: str = "nearest", result: Tensor, **__: Any) -> int:
    weights = {"nearest": 1, "bilinear": 4} if inputs.ndim == 4 else {}
    return result.numel() * weights.get(mode, 0)


def _average(inputs: Tensor, *_: Any, **__: Any) -> int:
    return inputs.numel()


# By name of the function: name in `Complexity.by_operator`, and its count.
_OPERATORS: dict[str, tuple[str, Callable[..., int]]] = {
    "linear": ("linear", _linear),
    **dict.fromkeys(("matmul", "__matmul__", "mm"), ("matmul", _product)),
    "bmm": ("bmm", _product),
    "einsum": ("einsum", _einsum),
    _ATTENTION: (_ATTENTION, _attention),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), ("conv", _convolution)),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        ("conv", _transposed_convolution),
    ),
    "layer_norm": ("layer_norm", _norm),
    "group_norm": ("group_norm", _norm),
    "batch_norm": ("batch_norm", _batch_norm),
    "interpolate": ("interpolate", _interpolate),
    "adaptive_avg_pool2d": ("adaptive_avg_pool2d", _average),
}

# Functions that compute no product: sizes, views, copies, choices, comparisons and additions.
_FREE_NAMES = """
device __get__ __set__ __len__ __getitem__ __setitem__ __bool__ __int__ __index__ __float__ __hash__
size dim numel stride data_ptr item tolist is_floating_point is_contiguous requires_grad_ detach
view view_as reshape flatten unflatten permute transpose movedim t squeeze unsqueeze expand
expand_as broadcast_to contiguous clone copy_ to type_as float double half bfloat16 bool int long
cpu cat concat stack split chunk unbind unfold narrow select index_select gather scatter scatter_
take_along_dim masked_select masked_fill masked_fill_ where nonzero repeat repeat_interleave roll
flip pad empty empty_like zeros zeros_like ones ones_like full full_like arange linspace tensor
as_tensor new_zeros new_ones new_empty new_full new_tensor max min amax amin argmax argmin topk sort
argsort eq ne lt le gt ge __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __and__ __or__ __invert__ any
all add add_ sub sub_ __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __neg__ relu relu_ clamp
clamp_ dropout max_pool2d max_pool3d isfinite register_hook
"""
_WITHOUT_COST = frozenset(_FREE_NAMES.split())


def _parts(model: nn.Module, counter: _Counter) -> list[PartComplexity]:
    """Patch embedding, blocks in the order of their calls, and the rest of the model."""
    by_module, grids = counter.by_module, counter.grids
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
            multiply_adds=sum(by_module[name].values()),
            attention=_of_attention(by_module[f"{name}.attn"]) if is_block else 0,
        )
        parts.append(part)
    rest = PartComplexity(
        name="rest",
        num_parameters=_num_parameters(model) - sum(part.num_parameters for part in parts),
        multiply_adds=sum(by_module[""].values()) - sum(part.multiply_adds for part in parts),
        attention=0,
    )
    return [*parts, rest]


def _of_attention(counts: Mapping[str, int]) -> int:
    return sum(counts.get(name, 0) for name in _OF_ATTENTION)


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
