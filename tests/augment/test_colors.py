"""Hue, saturation, additive brightness, contrast of channels and blur, against their formulas."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from helpers.pillow_forms import pictures
from PIL import Image, ImageFilter

from slowfast_maskfeat.augment.apply_operations import apply_operations, apply_to_batch
from slowfast_maskfeat.augment.crop import CropBox, Region
from slowfast_maskfeat.augment.crop_plan import pad_together
from slowfast_maskfeat.augment.randaugment import Operation

PICTURES = pictures()
DEVICES = [
    pytest.param("cpu"),
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


def _change(name: str, argument: float, picture: np.ndarray) -> np.ndarray:
    frames = torch.from_numpy(picture)[None]
    return apply_operations(frames, [Operation(name, argument)])[0].numpy()


def _colors(change, picture: np.ndarray) -> np.ndarray:
    """Applies a function of (h, s, v) to each pixel, by Python's own conversion."""
    pixels = [
        colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel)))
        for pixel in (picture.reshape(-1, 3) / 255).tolist()
    ]
    return 255 * np.array(pixels).reshape(picture.shape)


def _assert_rounded(result: np.ndarray, exact: np.ndarray) -> None:
    """The nearest values in 0..255, up to the rounding of float32."""
    assert result.dtype == np.uint8
    assert np.abs(result - np.clip(exact, 0, 255)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("turns", [0.0, 0.1, -0.1, 0.37, 0.5, -0.5])
def test_hue(name: str, turns: float) -> None:
    picture = PICTURES[name]
    _assert_rounded(
        _change("Hue", turns, picture), _colors(lambda h, s, v: ((h + turns) % 1, s, v), picture)
    )


def test_hue_leaves_grays_and_a_whole_turn() -> None:
    gray = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert np.array_equal(_change("Hue", 0.3, gray), gray)
    assert np.array_equal(_change("Hue", 1.0, PICTURES["noise"]), PICTURES["noise"])


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 9.0])
def test_saturation(factor: float) -> None:
    picture = PICTURES["noise"]
    _assert_rounded(
        _change("Saturation", factor, picture),
        _colors(lambda h, s, v: (h, min(s * factor, 1), v), picture),
    )


@pytest.mark.parametrize("amount", [-0.4, 0.0, 0.25])
def test_brightness_is_added(amount: float) -> None:
    picture = PICTURES["ramp"]
    _assert_rounded(_change("BrightnessShift", amount, picture), picture + 255.0 * amount)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.4])
def test_contrast_is_about_the_mean_of_each_channel(factor: float) -> None:
    picture = PICTURES["smooth"]
    mean = picture.astype(np.float64).mean(axis=(0, 1))
    _assert_rounded(_change("ChannelContrast", factor, picture), mean + factor * (picture - mean))


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Sum over the whole neighborhood, not separably, borders repeated."""
    radius = math.ceil(4 * sigma)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    padded = np.pad(picture.astype(np.float64), ((radius,) * 2, (radius,) * 2, (0, 0)), "edge")
    height, width = picture.shape[:2]
    return sum(
        weights[y, x] * padded[y : y + height, x : x + width]
        for y in range(len(offsets))
        for x in range(len(offsets))
    )


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0, 5.0])
def test_blur(name: str, sigma: float) -> None:
    picture = PICTURES[name]
    _assert_rounded(_change("GaussianBlur", sigma, picture), _blurred(picture, sigma))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_close_to_pillows(sigma: float) -> None:
    """Pillow's blur, which DINO has, approximates a Gaussian by three box filters."""
    picture = PICTURES["smooth"]
    theirs = np.array(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma)))
    difference = np.abs(_change("GaussianBlur", sigma, picture).astype(int) - theirs)
    assert difference.max() <= 4
    assert difference.mean() < 0.6


def test_differences_of_frames() -> None:
    """PySlowFast's: of the luma, minus the next frame, halved, about gray; the last one twice."""
    clip = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8))
    clip[1, 0, 0], clip[2, 0, 0] = 0, 255
    clip[3, 0, 0], clip[4, 0, 0] = 9, 9
    result = apply_operations(clip, [Operation("FrameDifference")])
    luma = clip.double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    halves = (luma[:-1] - luma[1:] + 255) / 2
    expected = torch.cat([halves, halves[-1:]])[..., None].expand_as(clip)
    assert result.dtype == torch.uint8
    assert (result.double() - expected).abs().max() <= 1  # the luma is rounded before, too
    assert result[1:, 0, 0, 0].tolist() == [0, 251, 128, 128]
    assert apply_operations(clip[:1], [Operation("FrameDifference")]).unique().tolist() == [128]


@pytest.mark.parametrize("device", DEVICES)
def test_differences_in_a_batch_are_those_of_each_clip(device) -> None:
    clips = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 4, 8, 8, 3), np.uint8))
    region = Region.whole(8, 8)
    drawn = [[Operation("FrameDifference")], [], [Operation("FrameDifference")]]
    results, _ = apply_to_batch(clips.to(device), drawn, [region] * 3, [region.box] * 3)
    for result, clip, operations in zip(results.cpu(), clips, drawn, strict=True):
        assert result.equal(apply_operations(clip, operations))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Hue", (0.1, -0.2, 0.05)),
        ("Saturation", (0.5, 1.2, 2.0)),
        ("BrightnessShift", (0.1, -0.2, 0.3)),
        ("ChannelContrast", (0.5, 1.2, 0.9)),
        ("GaussianBlur", (0.3, 2.0, 1.1)),
    ],
)
def test_clips_of_a_batch_have_arguments_and_sizes_of_their_own(name, arguments, device) -> None:
    images = list(PICTURES.values())
    clips = pad_together([torch.from_numpy(image)[None, None] for image in images]).to(device)
    regions = [Region.whole(*image.shape[:2]) for image in images]
    drawn = [[Operation(name, argument)] for argument in arguments]
    results, _ = apply_to_batch(clips, drawn, regions, [region.box for region in regions])
    for result, image, argument in zip(results.cpu(), images, arguments, strict=True):
        mine = result[0, : image.shape[0], : image.shape[1]].int()
        alone = torch.from_numpy(_change(name, argument, image)).int()
        assert (mine - alone).abs().max() <= 1  # of sums in another order
        assert (mine != alone).double().mean() < 0.001


@pytest.mark.parametrize(
    "operation", [Operation("GaussianBlur", 1.5), Operation("ChannelContrast", 1.3)]
)
def test_a_part_of_the_frame_is_cut_from_the_whole_result(operation: Operation) -> None:
    frames = torch.from_numpy(PICTURES["noise"])[None].expand(2, -1, -1, -1)
    box = CropBox(10, 3, 20, 30)
    part = apply_operations(frames, [operation], box).int()
    whole = apply_operations(frames, [operation])[:, 10:30, 3:33].int()
    assert (part - whole).abs().max() <= 1
    assert (part != whole).double().mean() < 0.001
