"""Shapes of results on torch's `meta` device without its kernels for it.

These kernels are slow Python for most functions and import torch's compiler, which takes over a
second; `torch.broadcast_shapes` imports a part of it. Where a shape is a short formula it is
computed here. Functions without one still call the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_META = torch.device("meta")


@contextmanager
def on_meta() -> Iterator[None]:
    """Context in which a model is built on `meta`, where its parameters have no values."""
    with _META, _MetaShapes():
        yield


class _MetaShapes(TorchFunctionMode):
    """Computes results on `meta` by `call_by_shape`."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one function."""
        return call_by_shape(func, args, kwargs or {})


def call_by_shape(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function of torch; if its result is on `meta`, by the formula of its shape.

    Args:
        func: as `__torch_function__` of a mode receives it.
        args: its arguments; tensors among them are on one device, or single numbers.
        kwargs: its keyword arguments.

    Returns:
        The result, contiguous where a formula made it.
    """
    name = getattr(func, "__name__", "")
    rule = None
    if name in _RULES and _is_on_meta(args):
        rule = _RULES[name]
    elif name in _FACTORIES:
        device = kwargs.get("device")
        is_meta = torch.device(torch.get_default_device() if device is None else device) == _META
        rule = _FACTORIES[name] if is_meta else None
    result = NotImplemented
    if rule is not None and kwargs.get("out") is None:
        result = rule(*args, **kwargs)
    return func(*args, **kwargs) if result is NotImplemented else result


def _is_on_meta(args: tuple[Any, ...]) -> bool:
    first = args[:1]
    if first and isinstance(first[0], Sequence):
        first = tuple(first[0][:1])
    return any(isinstance(arg, Tensor) and arg.is_meta for arg in (*first, *args[1:]))


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device=_META)


def _elementwise(left: Any, right: Any = None, **_: Any) -> Any:
    if right is None:
        return NotImplemented
    shapes = [side.shape for side in (left, right) if isinstance(side, Tensor)]
    return _empty(np.broadcast_shapes(*shapes), torch.result_type(left, right))


def _quotient(left: Any, right: Any = None, **_: Any) -> Any:
    result = _elementwise(left, right)
    if result is NotImplemented or result.is_floating_point():
        return result
    return _empty(result.shape, torch.get_default_dtype())


def _in_place(inputs: Tensor, *_: Any, **__: Any) -> Tensor:
    return inputs


def _same(inputs: Tensor, *_: Any, **__: Any) -> Tensor:
    return _empty(inputs.shape, inputs.dtype)


def _like(inputs: Tensor, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    return NotImplemented if options else _empty(inputs.shape, dtype or inputs.dtype)


def _item(inputs: Tensor, key: Any) -> Any:
    """Shape of what tensors of indices select; other keys make views, which need no kernel."""
    keys = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(part, Tensor) and part.dtype == torch.int64 for part in keys):
        return NotImplemented
    selected = np.broadcast_shapes(*(part.shape for part in keys))
    return _empty((*selected, *inputs.shape[len(keys) :]), inputs.dtype)


def _repeated(inputs: Tensor, *repeats: Any) -> Any:
    if len(repeats) != inputs.ndim:
        return NotImplemented
    return _empty([size * n for size, n in zip(inputs.shape, repeats, strict=True)], inputs.dtype)


def _reduced(inputs: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    if dim is None:
        return NotImplemented
    dims = {axis % inputs.ndim for axis in ((dim,) if isinstance(dim, int) else dim)}
    sizes = [1 if axis in dims else size for axis, size in enumerate(inputs.shape)]
    kept = [size for axis, size in enumerate(sizes) if keepdim or axis not in dims]
    return _empty(kept, inputs.dtype)


def _norm(inputs: Tensor, _: Any = None, *more: Any, **options: Any) -> Any:
    return NotImplemented if more else _reduced(inputs, **options)


def _where(condition: Any, left: Any = None, right: Any = None) -> Any:
    """Shape of `torch.where`; the method of a tensor has its arguments in another order."""
    if not all(isinstance(part, Tensor) for part in (condition, left, right)):
        return NotImplemented
    return _broadcast(condition, left, right) if condition.dtype == torch.bool else NotImplemented


def _broadcast(first: Tensor, left: Tensor, right: Tensor, **_: Any) -> Tensor:
    shape = np.broadcast_shapes(first.shape, left.shape, right.shape)
    return _empty(shape, torch.result_type(left, right))


def _linear(inputs: Tensor, weight: Tensor, *_: Any, **__: Any) -> Tensor:
    return _empty((*inputs.shape[:-1], weight.shape[0]), inputs.dtype)


def _product(left: Tensor, right: Tensor) -> Any:
    if min(left.ndim, right.ndim) < 2:
        return NotImplemented
    leading = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    return _empty((*leading, left.shape[-2], right.shape[-1]), left.dtype)


def _convolution(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    if isinstance(padding, str) or inputs.ndim != weight.ndim:
        return NotImplemented
    sizes = _windows(inputs, weight.shape[2:], stride, padding, dilation)
    return _empty((len(inputs), len(weight), *sizes), inputs.dtype)


def _pooled(
    inputs: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if ceil_mode or return_indices or isinstance(kernel_size, int) or not stride:
        return NotImplemented
    sizes = _windows(inputs, kernel_size, stride, padding, dilation)
    return _empty((*inputs.shape[: -len(sizes)], *sizes), inputs.dtype)


def _windows(inputs: Tensor, kernel: Sequence[int], *options: Any) -> list[int]:
    """Count the windows along the last axes; options: stride, padding, dilation."""
    axes = len(kernel)
    per_axis = [[value] * axes if isinstance(value, int) else value for value in options]
    return [
        (size + 2 * pad - spread * (extent - 1) - 1) // step + 1
        for size, extent, step, pad, spread in zip(
            inputs.shape[-axes:], kernel, *per_axis, strict=True
        )
    ]


def _attention(query: Tensor, _: Tensor, value: Tensor, *__: Any, **___: Any) -> Tensor:
    return _empty((*query.shape[:-1], value.shape[-1]), query.dtype)


def _concatenation(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    if len({(len(tensor.shape), tensor.dtype) for tensor in tensors}) != 1:
        return NotImplemented
    shape = list(tensors[0].shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return _empty(shape, tensors[0].dtype)


def _padded(inputs: Tensor, pad: Sequence[int], *_: Any, **__: Any) -> Tensor:
    shape = list(inputs.shape)
    for number in range(len(pad) // 2):  # pairs, those of the last axis first
        shape[-1 - number] += pad[2 * number] + pad[2 * number + 1]
    return _empty(shape, inputs.dtype)


def _interpolated(inputs: Tensor, size: Any = None, **_: Any) -> Any:
    if size is None:
        return NotImplemented
    axes = inputs.ndim - 2
    sizes = [size] * axes if isinstance(size, int) else list(size)
    return _empty((*inputs.shape[:2], *sizes), inputs.dtype)


def _taken(inputs: Tensor, indices: Tensor, dim: int | None = None) -> Any:
    if dim is None:
        return NotImplemented
    source = list(inputs.shape)
    source[dim] = 1
    return _empty(np.broadcast_shapes(source, indices.shape), inputs.dtype)


def _arange(*numbers: float, dtype: torch.dtype | None = None, **_: Any) -> Any:
    if not 1 <= len(numbers) <= 3:
        return NotImplemented
    start, end, step = (0, *numbers, 1) if len(numbers) == 1 else (*numbers, 1)[:3]
    if dtype is None:
        is_whole = all(isinstance(number, int) for number in numbers)
        dtype = torch.int64 if is_whole else torch.get_default_dtype()
    return _empty((max(0, ceil((end - start) / step)),), dtype)


def _eye(rows: int, columns: int | None = None, *, dtype: Any = None, **named: Any) -> Any:
    if "m" in named:
        return NotImplemented
    return _empty((rows, rows if columns is None else columns), dtype or torch.get_default_dtype())


_BINARY = "add sub mul pow __rpow__"
_IN_PLACE = "add_ sub_ mul_ div_ clamp_ erfinv_ fill_ zero_ uniform_ normal_"
_SAME = "batch_norm cos gelu layer_norm normalize relu rsqrt scatter sin square"
_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_BINARY.split(), _elementwise),
    **dict.fromkeys(_IN_PLACE.split(), _in_place),
    **dict.fromkeys(_SAME.split(), _same),
    **dict.fromkeys(("div", "true_divide", "__rdiv__"), _quotient),
    **dict.fromkeys(("zeros_like", "ones_like", "empty_like"), _like),
    "__getitem__": _item,
    **dict.fromkeys(("amax", "mean"), _reduced),
    "linalg_vector_norm": _norm,
    "addcmul": _broadcast,
    "where": _where,
    "linear": _linear,
    **dict.fromkeys(("bmm", "matmul"), _product),
    "repeat": _repeated,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("max_pool2d", "max_pool3d"), _pooled),
    "scaled_dot_product_attention": _attention,
    "cat": _concatenation,
    "pad": _padded,
    "interpolate": _interpolated,
    "take_along_dim": _taken,
}
_FACTORIES: dict[str, Callable[..., Any]] = {"arange": _arange, "eye": _eye}
