"""Pixel targets against the published labels, their order and their scaling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden_rule import golden_mask, golden_randn

from slowfast_maskfeat.builders.task import build_targets
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets import PixelTarget

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
GRID = Grid(4, 4, 4)


@pytest.mark.parametrize(
    ("name", "all_frames"), [("pt_video_pixel", False), ("mae_sincos_decsep", True)]
)
def test_published_labels_of_the_tiny_models(name, all_frames):
    case = json.loads((GOLDEN / f"tiny/{name}.json").read_text())
    clips = golden_randn(case["input_seed"], tuple(case["input_shape"]))
    mask = golden_mask(case, ratio=case["options"].get("AUG.MASK_RATIO", 0.0), grid=GRID)
    repeats = GRID.h // mask.shape[2]
    mask = mask.repeat_interleave(repeats, 2).repeat_interleave(repeats, 3)
    target = PixelTarget((2, 16, 16), all_frames=all_frames)
    labels = target.encode(clips, GRID)[mask.flatten(1)]
    expected = torch.from_numpy(np.load(GOLDEN / f"tiny/{name}.npz")["label0"])
    assert target.dim == expected.shape[1]
    assert float((labels - expected).norm() / expected.norm()) < 1e-6


def test_order_for_video():
    clips = golden_randn(1, (2, 3, 8, 64, 64))
    tokens = PixelTarget((2, 16, 16), norm=False).encode(clips, GRID).view(2, *GRID, 16, 16, 3)
    patch = clips[1, :, 4, 16:32, 48:64]  # token (2, 1, 3): the first of its two frames
    assert torch.equal(tokens[1, 2, 1, 3], patch.permute(1, 2, 0))


def test_order_of_whole_tubelets():
    clips = golden_randn(1, (2, 3, 8, 64, 64))
    target = PixelTarget((2, 16, 16), norm=False, all_frames=True)
    assert target.dim == 2 * 16 * 16 * 3
    tokens = target.encode(clips, GRID).view(2, *GRID, 2, 16, 16, 3)
    patch = clips[1, :, 4:6, 16:32, 48:64]
    assert torch.equal(tokens[1, 2, 1, 3], patch.permute(1, 2, 3, 0))


def test_order_for_images():
    clips = golden_randn(1, (2, 3, 1, 64, 32))
    target = PixelTarget((1, 16, 16), norm=False, color_first=True)
    tokens = target.encode(clips, Grid(1, 4, 2)).view(2, 4, 2, 3, 16, 16)
    assert torch.equal(tokens[1, 2, 1], clips[1, :, 0, 32:48, 16:32])
    with pytest.raises(ValueError, match="TIME_STRIDE_LOSS"):
        PixelTarget((2, 16, 16), color_first=True, all_frames=True)


def test_scaling_uses_the_unbiased_variance():
    clips = golden_randn(1, (1, 3, 8, 64, 64)) * 3 + 2
    plain = PixelTarget((2, 16, 16), norm=False).encode(clips, GRID).double()
    expected = (plain - plain.mean(-1, keepdim=True)) / (plain.var(-1, keepdim=True) + 1e-6).sqrt()
    ours = PixelTarget((2, 16, 16)).encode(clips, GRID)
    assert torch.allclose(ours.double(), expected, atol=1e-5)


def test_a_flat_token_is_zero():
    tokens = PixelTarget((2, 16, 16)).encode(torch.full((1, 3, 8, 64, 64), 0.3), GRID)
    assert tokens.abs().max() < 1e-3


@pytest.mark.parametrize("norm", [True, False])
def test_bytes_are_normalized_as_published(norm):
    generator = np.random.default_rng(0)
    clips = torch.from_numpy(generator.integers(0, 256, (1, 3, 8, 64, 64), dtype=np.uint8))
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    target = PixelTarget((2, 16, 16), mean=mean.tolist(), std=std.tolist(), norm=norm)
    shape = (1, 3, 1, 1, 1)
    normalized = (clips.float() / 255 - mean.view(shape)) / std.view(shape)
    assert torch.equal(target.encode(clips, GRID), target.encode(normalized, GRID))


def test_float32_without_gradient_under_autocast():
    clips = golden_randn(1, (1, 3, 8, 64, 64)).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = PixelTarget((2, 16, 16)).encode(clips, GRID)
    assert tokens.dtype == torch.float32
    assert not tokens.requires_grad


def test_size_error_names_both():
    with pytest.raises(ValueError, match=r"4x4x4 tokens of 2x16x16 pixels.* got \(8, 60, 64\)"):
        PixelTarget((2, 16, 16)).encode(torch.zeros(1, 3, 8, 60, 64), GRID)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((2, 16, 16), {}),
        ((2, 16, 16), {"all_frames": True}),
        ((1, 16, 16), {"color_first": True}),
    ],
)
def test_tokens_come_back_as_the_pictures_that_they_are_of(size, options, norm):
    generator = torch.Generator().manual_seed(0)
    frames = 4 * size[0]
    clips = torch.randint(0, 256, (2, 3, frames, 64, 64), dtype=torch.uint8, generator=generator)
    clips[0, :, :, :16, :16] = 77  # a flat patch, whose variance is 0
    target = PixelTarget(size, norm=norm, **options)
    tokens = target.encode(clips, GRID)
    expected = clips if options.get("all_frames") else clips[:, :, :: size[0]]
    assert torch.equal(target.to_frames(tokens, clips, GRID), expected)


def test_a_scaled_prediction_takes_the_mean_and_variance_of_its_own_patch():
    clips = torch.full((1, 3, 8, 64, 64), 100, dtype=torch.uint8)
    clips[..., 32:] = 200
    clips[..., ::2] += 10
    target = PixelTarget((2, 16, 16))
    # Predicting 0 is predicting the mean of each patch.
    frames = target.to_frames(torch.zeros(1, GRID.num_tokens, target.dim), clips, GRID)
    assert frames[..., :32].unique().tolist() == [105]
    assert frames[..., 32:].unique().tolist() == [205]


def test_absolute_errors_are_those_of_simmim():
    target = PixelTarget((1, 2, 2), norm=False, absolute=True)
    prediction, wanted = torch.tensor([[1.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [2, 0]])
    assert target.loss(prediction, wanted).tolist() == [2.0, 1.0]
    # Of the values 0, 0, 9 the median 0 costs 3 on average, the mean 3 would cost 4.
    rows = torch.tensor([[0.0], [0.0], [9.0]])
    assert float(target.baseline_loss(rows)) == pytest.approx(3.0)
    squared = PixelTarget((1, 2, 2), norm=False)
    assert squared.loss(prediction, wanted).tolist() == [5.0, 2.0]


@pytest.mark.parametrize("name", ["in1k_VIT_B_SimMIM_PT", "k400_VIT_B_16x4_SimMIM_PT"])
def test_images_and_video_have_one_order_where_the_target_is_named(name):
    cfg = load_config([str(ROOT / "configs" / "masked_ssl" / f"{name}.yaml")])
    (target,) = build_targets(cfg)
    assert (target.color_first, target.norm, target.absolute) == (False, False, True)


def test_a_file_that_does_not_name_the_target_keeps_the_published_order_of_images():
    file = str(ROOT / "configs" / "masked_ssl" / "in1k_VIT_B_MaskFeat_PT.yaml")
    published = load_config([file], ["MASK.PRED_HOG", "False"])
    named = load_config([file], ["MASK.TARGET", "pixels"])
    assert build_targets(published)[0].color_first
    assert not build_targets(named)[0].color_first
