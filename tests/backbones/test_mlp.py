"""The MLP of a block: the gradients of autograd, with one tensor kept instead of two."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.kept_memory import kept_storages
from torch import nn

from slowfast_maskfeat.backbones.mlp import Mlp, gelu_linear


def _tensors(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 5, 24), (8, 24), (8,))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_results_and_gradients_are_those_of_autograd(dtype):
    tensors = _tensors(dtype)
    expected = F.linear(F.gelu(tensors[0]), *tensors[1:])
    actual = gelu_linear(*tensors)
    assert torch.equal(actual, expected)
    gradient = torch.linspace(-1, 1, expected.numel(), dtype=dtype).view_as(expected)
    pairs = zip(
        torch.autograd.grad(actual, tensors, gradient),
        torch.autograd.grad(expected, tensors, gradient),
        strict=True,
    )
    for of_ours, of_autograd in pairs:
        assert torch.equal(of_ours, of_autograd)


@pytest.mark.parametrize("shape", [(2, 700, 1024), (3000, 512), (1, 1, 2**21)])
def test_many_tokens_are_taken_in_parts(shape):
    """A CPU takes 2**20 numbers of the hidden tensor at a time, and at least one row."""
    generator = torch.Generator().manual_seed(0)
    results = []
    sizes = (shape, (4, shape[-1]), (4,))
    tensors = [torch.randn(size, generator=generator) / size[-1] ** 0.5 for size in sizes]
    for form in (gelu_linear, lambda x, w, b: F.linear(F.gelu(x), w, b)):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        output = form(*leaves)
        output.square().sum().backward()
        results.append((output, *(leaf.grad for leaf in leaves)))
    assert results[0][0].shape == (*shape[:-1], 4)
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_backward_pass_passes_a_numerical_check():
    assert torch.autograd.gradcheck(gelu_linear, _tensors(torch.float64))


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_inputs_get_no_gradient(frozen):
    tensors = _tensors()
    tensors[frozen].requires_grad_(False)
    gelu_linear(*tensors).sum().backward()
    assert [tensor.grad is None for tensor in tensors] == [i == frozen for i in range(3)]


def test_autocast_gives_its_dtype_and_gradients_in_that_of_the_weights():
    tensors = _tensors()
    with torch.autocast("cpu", torch.bfloat16):
        output = gelu_linear(tensors[0].bfloat16(), *tensors[1:])
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert tensors[1].grad.dtype == torch.float32
    exact = _tensors()
    F.linear(F.gelu(exact[0]), *exact[1:]).sum().backward()
    assert torch.allclose(tensors[1].grad, exact[1].grad, rtol=0.02, atol=0.02)


def test_one_tensor_of_the_hidden_width_is_kept():
    mlp = Mlp(dim=8, hidden=32, dim_out=8)
    tokens = torch.zeros(2, 5, 8)
    num_bytes = 2 * 5 * 32 * 4
    assert kept_storages(mlp, tokens, lambda: mlp(tokens)) == [num_bytes]
    plain = nn.Sequential(mlp.fc1, nn.GELU(), mlp.fc2)
    assert kept_storages(plain, tokens, lambda: plain(tokens)) == [num_bytes, num_bytes]


def test_dropout_in_training_only():
    torch.manual_seed(0)
    mlp = Mlp(dim=8, hidden=32, dim_out=8, dropout=0.5)
    tokens = torch.ones(1, 200, 8)
    assert (mlp(tokens) == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    mlp.eval()
    assert torch.equal(mlp(tokens), mlp.fc2(F.gelu(mlp.fc1(tokens))))
