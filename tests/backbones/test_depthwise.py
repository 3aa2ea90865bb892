"""The tap-by-tap depthwise convolution against torch's 3-D one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from slowfast_maskfeat.backbones.depthwise import depthwise_conv3d, depthwise_conv3d_of_patches
from slowfast_maskfeat.shapes import Grid


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (5, 3, 3), (3, 2, 2), (2, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 2, 2)])
@pytest.mark.parametrize("frames", [1, 4])
def test_equals_conv3d(kernel, stride, frames) -> None:  # type: ignore[no-untyped-def]
    """Values and both gradients, clips apart from each other."""
    padding = tuple(size // 2 for size in kernel)
    torch.manual_seed(0)
    clips = torch.randn(3, frames, 9, 8, 16)
    weight = torch.randn(16, 1, *kernel)
    results = []
    for fast in (True, False):
        x, w = clips.clone().requires_grad_(), weight.clone().requires_grad_()
        if fast:
            out = depthwise_conv3d(x, w, stride=stride, padding=padding)
        else:
            planes = x.permute(0, 4, 1, 2, 3)
            planes = F.conv3d(planes, w, stride=stride, padding=padding, groups=16)
            out = planes.permute(0, 2, 3, 4, 1)
        (out * torch.arange(out.numel()).reshape(out.shape).sin()).sum().backward()
        results.append((out, x.grad, w.grad))
    for fast_tensor, expected in zip(*results, strict=True):
        torch.testing.assert_close(fast_tensor, expected, rtol=1e-4, atol=2e-5)


WINDOWS_APART = [
    ((3, 3, 3), (1, 4, 4), (16, 12)),
    ((3, 3, 3), (1, 8, 4), (16, 12)),
    ((1, 3, 3), (1, 4, 4), (7, 11)),  # the last window ends before the frame does
    ((3, 2, 2), (1, 3, 4), (6, 8)),  # even kernels, padding before and behind
    ((3, 1, 1), (1, 2, 2), (4, 6)),
    ((3, 3, 3), (1, 8, 8), (3, 3)),  # one window
]


def test_padding_wider_than_the_kernel() -> None:
    """The second window has real tokens first, whatever the first one has."""
    clips, weight = torch.randn(1, 2, 17, 9, 4), torch.randn(4, 1, 1, 3, 3)
    pooled = depthwise_conv3d(clips, weight, stride=(1, 8, 4), padding=(0, 5, 1))
    planes = clips.permute(0, 4, 1, 2, 3)
    expected = F.conv3d(planes, weight, stride=(1, 8, 4), padding=(0, 5, 1), groups=4)
    torch.testing.assert_close(pooled, expected.permute(0, 2, 3, 4, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "frame"), WINDOWS_APART)
@pytest.mark.parametrize("has_cls", [True, False])
def test_windows_that_are_apart(kernel, stride, frame, has_cls) -> None:  # type: ignore[no-untyped-def]
    """Tokens in no window are not kept, and have no gradient."""
    padding = tuple(size // 2 for size in kernel)
    torch.manual_seed(0)
    grid = Grid(3, *frame)
    tokens = torch.randn(2, has_cls + grid.num_tokens, 8)
    weight = torch.randn(8, 1, *kernel)
    results = []
    for fast in (True, False):
        x, w = tokens.clone().requires_grad_(), weight.clone().requires_grad_()
        cls, clips = x[:, :has_cls], x[:, int(has_cls) :].unflatten(1, tuple(grid))
        if fast and has_cls:
            cls, out = depthwise_conv3d_of_patches(x, grid, w, stride=stride, padding=padding)
        elif fast:
            out = depthwise_conv3d(clips, w, stride=stride, padding=padding)
        else:
            planes = clips.permute(0, 4, 1, 2, 3)
            planes = F.conv3d(planes, w, stride=stride, padding=padding, groups=8)
            out = planes.permute(0, 2, 3, 4, 1)
        of_out = torch.arange(out.numel()).reshape(out.shape).sin()
        ((out * of_out).sum() + 3 * cls.sum()).backward()
        results.append((cls, out, x.grad, w.grad))
    for fast_tensor, expected in zip(*results, strict=True):
        torch.testing.assert_close(fast_tensor, expected, rtol=1e-4, atol=2e-5)


def test_only_tokens_in_windows_are_kept_for_the_backward_pass() -> None:
    clips, weight = torch.randn(2, 3, 16, 16, 8), torch.randn(8, 1, 3, 3, 3).requires_grad_()
    sizes = []
    for stride in (2, 4, 8):
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=kept: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            depthwise_conv3d(clips, weight, stride=(1, stride, stride), padding=(1, 1, 1))
        sizes.append(max(kept))
    frames, width = 2 * (3 + 1), 8  # of two clips, each with an empty frame behind it
    assert sizes == [frames * side * side * width for side in (16, 12, 6)]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """torch counts the graphs of a function, which are those of all tests together."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def pool_and_gradients(form, clips, weight):  # type: ignore[no-untyped-def]
    """A convolution of new leaves, and the gradients of both."""
    x, w = clips.clone().requires_grad_(), weight.clone().requires_grad_()
    out = form(x, w)
    (out * torch.arange(out.numel()).reshape(out.shape).sin()).sum().backward()
    return out, x.grad, w.grad


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_it_is_the_same(kernel, stride, dtype, backend) -> None:  # type: ignore[no-untyped-def]
    """To the bit: the operators of a graph call what runs without one; here for three sizes."""

    def pool(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        padding = tuple(size // 2 for size in kernel)
        return depthwise_conv3d(x, w, stride=stride, padding=padding)  # type: ignore[arg-type]

    torch.manual_seed(0)
    weight = torch.randn(16, 1, *kernel)
    graph = torch.compile(pool, backend=backend, fullgraph=True)
    for size in ((2, 3, 8, 8), (3, 3, 8, 8), (3, 2, 7, 9)):
        clips = torch.randn(*size, 16, dtype=dtype)
        results = (pool_and_gradients(form, clips, weight) for form in (pool, graph))
        for expected, compiled in zip(*results, strict=True):
            assert compiled.dtype == expected.dtype
            assert compiled.equal(expected)


def test_the_operators_of_graphs_are_what_torch_takes_them_for() -> None:
    """Their schemas, fake results and gradients, with sizes as symbols, too."""
    clips, weight = torch.randn(2, 3, 7, 9, 4), torch.randn(4, 1, 3, 3, 3)
    gradient = torch.randn(2, 3, 4, 5, 4)
    settings = ([2, 2], [1, 1])
    leaves = (clips.clone().requires_grad_(), weight.clone().requires_grad_())
    torch.library.opcheck(torch.ops.slowfast_maskfeat.depthwise_taps, (*leaves, *settings))
    torch.library.opcheck(
        torch.ops.slowfast_maskfeat.depthwise_taps_backward, (gradient, clips, weight, *settings)
    )


@pytest.mark.slow  # inductor compiles C++
def test_inductor_compiles_it_for_any_height_and_width() -> None:
    """The gradients of a norm before it are computed from the tokens that it received."""

    def pool(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        tokens = torch.nn.functional.layer_norm(x, x.shape[-1:])
        return depthwise_conv3d(tokens, w, stride=(1, 2, 2), padding=(1, 1, 1))

    graph = torch.compile(pool, fullgraph=True, dynamic=True)
    weight = torch.randn(8, 1, 3, 3, 3)
    for size in ((2, 4, 8, 8), (3, 2, 4, 6)):
        clips = torch.randn(*size, 8, dtype=torch.bfloat16)
        results = (pool_and_gradients(form, clips, weight) for form in (pool, graph))
        for expected, compiled in zip(*results, strict=True):
            assert (compiled - expected).norm() <= 0.02 * expected.norm()


def test_an_exported_graph_has_operators_of_torch_alone() -> None:
    class Pool(torch.nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return depthwise_conv3d(x, w, stride=(1, 1, 1), padding=(1, 1, 1))

    graph = torch.export.export(Pool(), (torch.randn(2, 3, 8, 8, 4), torch.randn(4, 1, 3, 3, 3)))
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert any("conv3d" in name for name in called)
    assert not any("slowfast_maskfeat" in name for name in called)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_bf16_has_the_gradients_of_float32(stride: int) -> None:
    """To the rounding of bf16; with a stride the backward pass runs in float32."""
    torch.manual_seed(0)
    clips, weight = torch.randn(2, 3, 8, 8, 16), torch.randn(16, 1, 3, 3, 3)
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        x = clips.bfloat16().to(dtype).requires_grad_()
        w = weight.bfloat16().float().requires_grad_()
        out = depthwise_conv3d(x, w, stride=(1, stride, stride), padding=(1, 1, 1))
        out.float().sum().backward()
        assert x.grad is not None
        assert x.grad.dtype == dtype
        assert w.grad is not None
        assert w.grad.dtype == torch.float32
        results.append((x.grad.float(), w.grad))
    for half, full in zip(*results, strict=True):
        assert (half - full).norm() <= 0.01 * full.norm()


def test_under_bf16_autocast() -> None:
    clips, weight = torch.randn(2, 4, 8, 8, 16), torch.randn(16, 1, 3, 3, 3)
    expected = depthwise_conv3d(clips, weight, stride=(1, 1, 1), padding=(1, 1, 1))
    out = depthwise_conv3d(
        clips.bfloat16(), weight.requires_grad_(), stride=(1, 1, 1), padding=(1, 1, 1)
    )
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).norm() < 0.02 * expected.norm()
    out.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize("stride", [1, 2])
def test_float32_tokens_become_bf16_under_autocast(stride: int) -> None:
    """Their gradients are float32; pooling comes before the projection with MVIT.POOL_FIRST."""
    clips, weight = torch.randn(2, 4, 8, 8, 16), torch.randn(16, 1, 3, 3, 3)

    def pool(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return depthwise_conv3d(x, w, stride=(1, stride, stride), padding=(1, 1, 1))

    expected = pool_and_gradients(pool, clips, weight)
    with torch.autocast("cpu", torch.bfloat16):
        found = pool_and_gradients(pool, clips, weight)
    assert [tensor.dtype for tensor in found] == [torch.bfloat16, torch.float32, torch.float32]
    for result, tensor in zip(found, expected, strict=True):
        assert (result - tensor).norm() <= 0.02 * tensor.norm()
