"""Shapes by formula are those of torch's own results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from slowfast_maskfeat.backbones import meta_shapes
from slowfast_maskfeat.backbones.meta_shapes import call_by_shape, on_meta

INDEX = torch.tensor([[2, 0], [1, 1]])
Make = Callable[..., Tensor]


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


# Functions of a constructor of tensors and their result.
CASES: dict[str, Callable[[Make], Any]] = {
    "add": lambda t: (
        torch.add(t(2, 3), t(3), alpha=2),
        t(2, 1, 3) + t(4, 1),
        1 + t(3, dtype=torch.int64),
    ),
    "sub": lambda t: t(2, 1).sub(t(3)),
    "mul": lambda t: (t(2, 3, dtype=torch.int64) * 1.5, 2 * t(2, 3)),
    "pow": lambda t: t(2, 3) ** 2,
    "__rpow__": lambda t: 10.0 ** t(2, 3),
    "div": lambda t: (t(3, dtype=torch.int64) / 2, t(4, 3) / t(3)),
    "true_divide": lambda t: t(4, 3).true_divide(t(3)),
    "__rdiv__": lambda t: 1 / t(4, 3),
    "add_": lambda t: t(2, 3).add_(1),
    "sub_": lambda t: t(2, 3).sub_(t(3)),
    "mul_": lambda t: t(2, 3).mul_(2),
    "div_": lambda t: t(2, 3).div_(2),
    "clamp_": lambda t: t(2, 3).clamp_(0, 1),
    "erfinv_": lambda t: t(2, 3).erfinv_(),
    "fill_": lambda t: t(2, 3).fill_(1),
    "zero_": lambda t: t(2, 3).zero_(),
    "uniform_": lambda t: t(2, 3).uniform_(-1, 1),
    "normal_": lambda t: t(2, 3).normal_(),
    "batch_norm": lambda t: F.batch_norm(t(2, 3, 4), t(3), t(3) + 1, t(3), t(3)),
    "cos": lambda t: t(2, 3).cos(),
    "gelu": lambda t: F.gelu(t(2, 3), approximate="tanh"),
    "layer_norm": lambda t: F.layer_norm(t(2, 3), (3,), t(3), t(3)),
    "normalize": lambda t: F.normalize(t(2, 3), dim=-1),
    "relu": lambda t: F.relu(t(2, 3)),
    "scatter": lambda t: t(2, 3).scatter(1, INDEX, t(2, 2)),
    "sin": lambda t: torch.sin(t(2, 3)),
    "square": lambda t: t(2, 3).square(),
    "zeros_like": lambda t: torch.zeros_like(t(2, 3)),
    "ones_like": lambda t: torch.ones_like(t(2, 3), dtype=torch.int64),
    "empty_like": lambda t: torch.empty_like(t(2, 3)),
    "__getitem__": lambda t: (t(4, 5)[INDEX], t(4, 5, 6)[INDEX[0], INDEX], t(4, 5)[None, 1:, 2]),
    "amax": lambda t: t(2, 3, 4, 5).amax(dim=(2, 3)),
    "mean": lambda t: (t(2, 3, 4).mean(1), t(2, 3).mean(dim=-1, keepdim=True), t(2, 3).mean()),
    "linalg_vector_norm": lambda t: torch.linalg.vector_norm(t(2, 3), dim=1, keepdim=True),
    "rsqrt": lambda t: t(2, 3).rsqrt(),
    "addcmul": lambda t: torch.addcmul(t(3), t(2, 3), t(2, 1)),
    "where": lambda t: (torch.where(t(2, 1, 1) > 0, t(3), t(4, 1)), t(2).where(t(3, 2) > 0, 1.0)),
    "linear": lambda t: F.linear(t(2, 5, 3), t(4, 3), t(4)),
    "bmm": lambda t: torch.bmm(t(2, 3, 4), t(2, 4, 5)),
    "matmul": lambda t: (t(2, 1, 3, 4) @ t(5, 4, 6), torch.matmul(t(3, 4), t(4))),
    "repeat": lambda t: (t(2, 3).repeat(2, 2), t(3).repeat(2, 1)),
    "conv1d": lambda t: F.conv1d(t(2, 3, 9), t(4, 3, 2), t(4), 2),
    "conv2d": lambda t: (
        F.conv2d(t(2, 4, 9, 8), t(4, 1, 3, 3), None, (2, 1), (1, 0), 2, 4),
        F.conv2d(t(2, 4, 9, 8), t(4, 4, 3, 3), padding="same"),
    ),
    "conv3d": lambda t: F.conv3d(t(1, 2, 4, 8, 8), t(6, 2, 1, 3, 3), stride=(1, 2, 2)),
    "max_pool2d": lambda t: (
        F.max_pool2d(t(2, 3, 8, 7), (3, 3), (2, 2), (1, 1)),
        F.max_pool2d(t(2, 3, 8, 7), 3),
    ),
    "max_pool3d": lambda t: F.max_pool3d(t(2, 3, 4, 8, 7), (1, 3, 3), (1, 2, 2), (0, 1, 1)),
    "scaled_dot_product_attention": lambda t: F.scaled_dot_product_attention(
        t(2, 3, 5, 8), t(2, 3, 7, 8), t(2, 3, 7, 6), scale=1.0
    ),
    "cat": lambda t: (torch.cat((t(2, 3), t(2, 4)), dim=-1), torch.cat((t(2), t(0)))),
    "pad": lambda t: F.pad(t(2, 3, 4), (1, 0, 2, 3)),
    "interpolate": lambda t: (
        F.interpolate(t(1, 2, 5), size=7, mode="linear"),
        F.interpolate(t(1, 2, 5, 5), size=(7, 3)),
        F.interpolate(t(1, 2, 4), scale_factor=2.0),
    ),
    "take_along_dim": lambda t: t(2, 5, 4).take_along_dim(INDEX[:, :, None], dim=1),
    "arange": lambda t: (torch.arange(5), torch.arange(1, 7, 2), torch.arange(0.0, 1.0, 0.3)),
    "eye": lambda t: (torch.eye(3), torch.eye(2, 4), torch.eye(2, m=3)),
}
NAMES = [*meta_shapes._RULES, *meta_shapes._FACTORIES]


class Seen(TorchFunctionMode):
    """Calls by formula, and the names of the functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(getattr(func, "__name__", ""))
        args = tuple(arg.to("meta") if arg is INDEX else arg for arg in args)
        return call_by_shape(func, args, kwargs or {})


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_dtypes_are_those_of_the_result(name: str) -> None:
    def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    expected = CASES[name](zeros)
    with torch.device("meta"), Seen() as seen:
        found = CASES[name](meta)
    assert name in seen.names
    if isinstance(expected, Tensor):
        expected, found = [expected], [found]
    for real, made in zip(expected, found, strict=True):
        assert made.is_meta
        assert made.shape == real.shape
        assert made.dtype == real.dtype


def test_tensors_with_values_keep_them() -> None:
    """A mask on the CPU selects real tokens, also in the context."""
    with on_meta():
        made = torch.arange(3, device="cpu") + torch.tensor([1, 2, 3], device="cpu")
        weights = torch.nn.Linear(2, 3).weight
    assert made.tolist() == [1, 3, 5]
    assert weights.is_meta
    assert np.shape(weights) == (3, 2)
