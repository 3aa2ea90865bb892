"""The tap-by-tap depthwise convolution against torch's 3-D one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from slowfast_maskfeat.backbones.depthwise import depthwise_conv3d


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


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_is_the_same(kernel, stride, dtype) -> None:  # type: ignore[no-untyped-def]
    """Values and both gradients of the form that torch.compile traces."""

    def pool(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        padding = tuple(size // 2 for size in kernel)
        return depthwise_conv3d(x, w, stride=stride, padding=padding)  # type: ignore[arg-type]

    torch.manual_seed(0)
    clips = torch.randn(2, 3, 8, 8, 16, dtype=dtype)
    weight = torch.randn(16, 1, *kernel)
    results = []
    for form in (pool, torch.compile(pool, backend="eager", fullgraph=True)):
        x, w = clips.clone().requires_grad_(), weight.clone().requires_grad_()
        out = form(x, w)
        (out * torch.arange(out.numel()).reshape(out.shape).sin()).sum().backward()
        results.append((out, x.grad, w.grad))
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for compiled, expected in zip(*results, strict=True):
        assert compiled.dtype == expected.dtype
        assert (compiled - expected).norm() <= tolerance * expected.norm()


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
