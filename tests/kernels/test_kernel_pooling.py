"""The pooling kernel against the plain form: results, gradients, torch.compile, fake tensors."""

from __future__ import annotations

import pytest
import torch
from helpers.kernel_cases import (
    DEVICES,
    HAS_TRITON,
    NEEDS_GPU,
    NEEDS_INTERPRETER,
    PoolingCase,
    keys_of,
    relative_difference,
)
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode

from slowfast_maskfeat.shapes import Grid

if HAS_TRITON:
    from slowfast_maskfeat.kernels.pooling import pool_and_norm

CASES = {
    "cls": PoolingCase(2, 6, Grid(3, 4, 5), (3, 3, 3), (1, 1, 1), True),
    "stride": PoolingCase(2, 8, Grid(2, 5, 6), (3, 3, 3), (1, 2, 2), False),
    "all axes": PoolingCase(1, 8, Grid(4, 2, 3), (3, 3, 3), (2, 2, 2), True),
    "wide steps": PoolingCase(1, 5, Grid(2, 8, 8), (1, 5, 9), (1, 4, 8), True),
    "even kernel": PoolingCase(1, 4, Grid(1, 4, 4), (1, 3, 2), (1, 2, 1), True),
    "image": PoolingCase(1, 4, Grid(1, 1, 3), (3, 3, 3), (1, 1, 1), False),
    "conv_unshared": PoolingCase(1, 24, Grid(1, 3, 3), (1, 3, 3), (1, 2, 2), True, batch=1),
}


def _with_gradients(case, tokens, leaf, pool, norm, gradient=None):
    """The result and the gradients of `leaf` and of the weights; and the gradient that went in."""
    pooled, grid = case.run(tokens, pool, norm)
    if gradient is None:
        torch.manual_seed(3)
        gradient = torch.randn_like(pooled)
    inputs = (leaf, pool.weight, norm.weight, norm.bias)
    found = torch.autograd.grad(pooled, inputs, gradient.to(pooled.dtype))
    return grid, (pooled.detach(), *found), gradient


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_are_those_of_the_plain_form(name, device):
    case = CASES[name]
    (pool, norm), qkv = case.modules(device), case.qkv(device)
    with torch.backends.cudnn.flags(allow_tf32=False):
        grid, expected, gradient = _with_gradients(case, keys_of(qkv), qkv, pool, norm)
    pool.fused = pool_and_norm
    new_grid, found, _ = _with_gradients(case, keys_of(qkv), qkv, pool, norm, gradient)
    assert new_grid == grid
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert relative_difference(ours, theirs) < 1e-5


@pytest.mark.parametrize(
    ("dtype", "device"),
    [
        pytest.param(torch.float16, "cpu", marks=NEEDS_INTERPRETER),
        # The interpreter does not round to bfloat16 as a GPU does.
        pytest.param(torch.float16, "cuda", marks=[pytest.mark.cuda, NEEDS_GPU]),
        pytest.param(torch.bfloat16, "cuda", marks=[pytest.mark.cuda, NEEDS_GPU]),
    ],
)
def test_a_coarse_dtype_is_rounded_only_where_tensors_are_stored(dtype, device):
    case = CASES["cls"]
    (pool, norm), qkv = case.modules(device), case.qkv(device, dtype)
    with torch.backends.cudnn.flags(allow_tf32=False):
        _, expected, gradient = _with_gradients(case, keys_of(qkv).float(), qkv, pool, norm)
    gradient = gradient.to(dtype)
    pool.fused = pool_and_norm
    _, found, _ = _with_gradients(case, keys_of(qkv), qkv, pool, norm, gradient)
    assert found[0].dtype == found[1].dtype == dtype
    assert found[2].dtype == pool.weight.dtype == torch.float32
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_difference(ours, theirs) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("device", DEVICES)
def test_any_strides_are_taken(device):
    case = CASES["stride"]
    pool, norm = case.modules(device)
    sizes = (case.width, case.grid.num_tokens, case.heads, case.batch)
    leaf = torch.randn(sizes, device=device, requires_grad=True)
    expected, _ = case.run(leaf.permute(3, 2, 1, 0), pool, norm)
    (plain,) = torch.autograd.grad(expected.sum(), leaf)  # its gradient has strides of 0
    pool.fused = pool_and_norm
    found, _ = case.run(leaf.permute(3, 2, 1, 0), pool, norm)
    (ours,) = torch.autograd.grad(found.sum(), leaf)
    assert relative_difference(found, expected) < 1e-5
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_compiled_code_has_the_kernel_without_a_break(device):
    case = CASES["cls"]
    (pool, norm), qkv = case.modules(device), case.qkv(device)
    pool.fused = pool_and_norm
    _, expected, gradient = _with_gradients(case, keys_of(qkv), qkv, pool, norm)
    counter = CompileCounter()
    torch.compile(lambda x: case.run(x, pool, norm)[0], backend=counter, fullgraph=True)(
        keys_of(qkv)
    )
    assert counter.frame_count == 1
    compiled = torch.compile(
        lambda x: case.run(x, pool, norm)[0], backend="aot_eager", fullgraph=True
    )
    pooled = compiled(keys_of(qkv))
    inputs = (qkv, pool.weight, norm.weight, norm.bias)
    found = (pooled, *torch.autograd.grad(pooled, inputs, gradient))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
def test_the_operator_is_registered_as_torch_demands(device):
    case = CASES["even kernel"]
    pool, norm = case.modules(device)
    arguments = (
        keys_of(case.qkv(device)),
        *(weight.detach().requires_grad_() for weight in (pool.weight, norm.weight, norm.bias)),
        list(case.grid),
        list(case.stride),
        case.has_cls,
        1e-6,
    )
    checks = torch.library.opcheck(torch.ops.slowfast_maskfeat.pool_and_norm.default, arguments)
    assert set(checks.values()) == {"SUCCESS"}


@NEEDS_INTERPRETER
def test_fake_tensors_have_the_shapes_of_real_ones():
    """A GPU's, too, on a machine without one; tokens of a video in bfloat16."""
    case = PoolingCase(1, 96, Grid(8, 56, 56), (3, 3, 3), (1, 8, 8), True)
    options = (list(case.grid), list(case.stride), case.has_cls, 1e-6)
    with FakeTensorMode(), torch.device("cuda"):
        qkv = torch.empty(2, 25089, 3, 1, 96, dtype=torch.bfloat16)
        tokens = qkv.permute(2, 0, 3, 1, 4).unbind(0)[1]
        weight, gamma, beta = torch.empty(96, 1, 3, 3, 3), torch.empty(96), torch.empty(96)
        pooled, grid = pool_and_norm(
            tokens, case.grid, weight, gamma, beta, stride=case.stride, has_cls=True, epsilon=1e-6
        )
        gradient, sums = torch.ops.slowfast_maskfeat.pool_and_norm_backward(
            pooled, tokens, weight, gamma, *options
        )
    assert grid == Grid(8, 7, 7)
    assert (pooled.shape, pooled.dtype) == ((2, 1, 393, 96), torch.bfloat16)
    assert (gradient.shape, gradient.dtype) == (tokens.shape, torch.bfloat16)
    assert (sums.shape, sums.dtype) == ((29, 96), torch.float32)
    assert {tensor.device.type for tensor in (pooled, gradient, sums)} == {"cuda"}


@pytest.mark.cuda
@NEEDS_GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            PoolingCase(1, 96, Grid(8, 56, 56), (3, 3, 3), (1, 1, 1), True, 8), id="block 0 q"
        ),
        pytest.param(
            PoolingCase(1, 96, Grid(8, 56, 56), (3, 3, 3), (1, 8, 8), True, 8), id="block 0 k"
        ),
        pytest.param(
            PoolingCase(2, 96, Grid(8, 56, 56), (3, 3, 3), (1, 2, 2), True, 8), id="block 1 q"
        ),
        pytest.param(
            PoolingCase(8, 96, Grid(8, 7, 7), (3, 3, 3), (1, 1, 1), True, 8), id="block 15"
        ),
        pytest.param(
            PoolingCase(1, 768, Grid(8, 14, 14), (3, 3, 3), (1, 2, 2), True, 2), id="unshared"
        ),
    ],
)
def test_sizes_of_mvit_s_on_a_gpu(case, dtype):
    (pool, norm), qkv = case.modules("cuda"), case.qkv("cuda", dtype)
    with torch.backends.cudnn.flags(allow_tf32=False):
        _, expected, gradient = _with_gradients(case, keys_of(qkv).float(), qkv, pool, norm)
    pool.fused = pool_and_norm
    gradient = gradient.to(dtype)
    _, found, _ = _with_gradients(case, keys_of(qkv), qkv, pool, norm, gradient)
    _, again, _ = _with_gradients(case, keys_of(qkv), qkv, pool, norm, gradient)
    for ours, theirs, repeated in zip(found, expected, again, strict=True):
        tolerance = 1e-4 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
        assert relative_difference(ours, theirs) < tolerance
        assert torch.equal(ours, repeated)
