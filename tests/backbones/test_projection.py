"""The projection to queries, keys and values: the gradients of autograd, without joining them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.backbones.projection import project_apart


def tensors(*, bias: bool = True, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 5, 6), (12, 6), (12,))
    made = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    return made if bias else [*made[:2], None]


@pytest.mark.parametrize("bias", [True, False])
def test_parts_and_gradients_are_those_of_a_linear_layer(bias: bool) -> None:
    ours, plain = tensors(bias=bias), tensors(bias=bias)
    parts = project_apart(*ours, 3)  # type: ignore[arg-type]
    expected = F.linear(*plain).chunk(3, dim=-1)  # type: ignore[arg-type]
    assert [part.shape for part in parts] == [(2, 5, 4)] * 3
    for part, other in zip(parts, expected, strict=True):
        assert torch.equal(part, other)
    for found in (parts, expected):
        sum((number + 1) * x.square().sum() for number, x in enumerate(found)).backward()
    for tensor, other in zip(ours, plain, strict=True):
        if tensor is not None and other is not None:
            torch.testing.assert_close(tensor.grad, other.grad)


def test_gradients_pass_a_numerical_check() -> None:
    assert torch.autograd.gradcheck(
        lambda *inputs: project_apart(*inputs, 3), tensors(dtype=torch.float64)
    )


def test_a_part_that_is_not_used_has_no_share() -> None:
    ours = tensors()
    project_apart(*ours, 3)[1].sum().backward()  # type: ignore[arg-type]
    assert ours[1] is not None
    assert ours[1].grad is not None
    of_parts = ours[1].grad.chunk(3)
    assert of_parts[1].any()
    assert not of_parts[0].any()
    assert not of_parts[2].any()


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_inputs_get_no_gradient(frozen: int) -> None:
    ours = [tensor for tensor in tensors() if tensor is not None]
    ours[frozen].requires_grad_(False)
    sum(part.sum() for part in project_apart(*ours, 3)).backward()  # type: ignore[union-attr]
    assert [tensor.grad is None for tensor in ours] == [i == frozen for i in range(3)]


def test_autocast_gives_its_dtype_and_gradients_in_that_of_the_weights() -> None:
    ours = tensors()
    with torch.autocast("cpu", torch.bfloat16):
        parts = project_apart(*ours, 3)  # type: ignore[arg-type]
    assert {part.dtype for part in parts} == {torch.bfloat16}
    sum(part.float().sum() for part in parts).backward()  # type: ignore[union-attr]
    assert ours[1] is not None
    assert ours[1].grad is not None
    assert ours[1].grad.dtype == torch.float32
