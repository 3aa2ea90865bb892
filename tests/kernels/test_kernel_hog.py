"""The HOG kernel against the plain form, whose thresholds it compares with."""

from __future__ import annotations

import pytest
import torch
from helpers.kernel_cases import DEVICES, HAS_TRITON, NEEDS_GPU, NEEDS_INTERPRETER
from torch._subclasses.fake_tensor import FakeTensorMode

from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.hog import HOGTarget, bin_thresholds, window_profile

if HAS_TRITON:
    from slowfast_maskfeat.kernels.hog import FusedHOG

# Infinite ratios are meant: numpy, which interprets the kernel, warns of them.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in divide:RuntimeWarning")


def _fused(target: HOGTarget, device: str) -> FusedHOG:
    _, rows, columns = target.token_size
    return FusedHOG(
        bin_thresholds(target.bins),
        window_profile(target.window, torch.device("cpu")),
        cell=target.cell,
        token_rows=rows // target.cell,
        token_columns=columns // target.cell,
    ).to(device)


def _clips(shape: tuple[int, ...], levels: int) -> torch.Tensor:
    """Random pixels of a few levels, which have many ties; a part is flat."""
    generator = torch.Generator().manual_seed(5)
    clips = torch.randint(0, levels, shape, generator=generator).to(torch.uint8)
    clips[0, 0] = 9
    return clips


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("token", "options", "levels"),
    [
        ((2, 16, 16), {}, 256),
        ((1, 16, 8), {"window": 16}, 3),
        ((1, 8, 16), {"bins": 4, "cell": 4}, 3),
        ((2, 14, 14), {"bins": 8, "cell": 7}, 5),
        ((1, 8, 8), {"num_channels": 1, "bins": 3}, 2),
    ],
)
def test_tokens_are_those_of_the_plain_form(token, options, levels, device):
    target, grid = HOGTarget(token, **options), Grid(2, 1, 2)
    sizes = tuple(cells * size for cells, size in zip(grid, token, strict=True))
    clips = _clips((2, target.num_channels, *sizes), levels)
    expected = target.encode(clips, grid)
    target.fused = _fused(target, device)
    found = target.encode(clips.to(device), grid).cpu()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    # A pixel in another bin would make a zero of one form no zero of the other.
    assert torch.equal(found == 0, expected == 0)


@pytest.mark.parametrize("device", DEVICES)
def test_float_pixels_and_any_strides_are_taken(device):
    target, grid = HOGTarget((2, 8, 8)), Grid(1, 2, 1)
    torch.manual_seed(6)
    clips = torch.randn(8, 16, 3, 2, 2).permute(4, 2, 3, 1, 0)  # (B, C, T, H, W)
    expected = target.encode(clips, grid)
    target.fused = _fused(target, device)
    found = target.encode(clips.to(device), grid).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_the_operator_is_registered_and_compiles_without_a_break(device):
    target, grid = HOGTarget((1, 8, 8)), Grid(1, 1, 1)
    target.fused = _fused(target, device)
    clips = _clips((1, 3, 1, 8, 8), 256).to(device)
    frames = clips.transpose(1, 2)
    operator = torch.ops.slowfast_maskfeat.hog_tokens.default
    fused = target.fused
    checks = torch.library.opcheck(operator, (frames, fused.thresholds, fused.profile, 8, 1, 1))
    assert set(checks.values()) == {"SUCCESS"}
    compiled = torch.compile(target.fused, backend="eager", fullgraph=True)
    assert torch.equal(compiled(frames), target.encode(clips, grid))


@NEEDS_INTERPRETER
def test_fake_tensors_have_the_shape_of_real_ones():
    with FakeTensorMode(), torch.device("cuda"):
        fused = FusedHOG(torch.empty(9), torch.empty(0), cell=8, token_rows=2, token_columns=2)
        tokens = fused(torch.empty(4, 8, 3, 224, 224, dtype=torch.uint8))
    assert (tokens.shape, tokens.dtype) == ((4, 8 * 14 * 14, 3 * 9 * 4), torch.float32)
    assert tokens.device.type == "cuda"


@NEEDS_INTERPRETER
def test_constants_of_the_kernel_are_not_part_of_the_state():
    target = HOGTarget((2, 16, 16))
    target.fused = _fused(target, "cpu")
    assert target.state_dict() == {}


@pytest.mark.cuda
@NEEDS_GPU
@pytest.mark.parametrize(("window", "levels"), [(0, 256), (16, 4)])
def test_clips_of_mvit_s_on_a_gpu(window, levels):
    target, grid = HOGTarget((2, 16, 16), window=window), Grid(8, 14, 14)
    clips = _clips((4, 3, 16, 224, 224), levels)
    expected = target.encode(clips, grid)
    target.fused = _fused(target, "cuda")
    found = target.encode(clips.cuda(), grid)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)
    assert torch.equal(found, target.encode(clips.cuda(), grid))
