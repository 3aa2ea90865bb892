"""RandAugment: Pillow's results, published arguments and policies, the same draw for all frames."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pillow_forms import pictures, pillow_result
from PIL import Image

from slowfast_maskfeat.augment.apply_operations import apply_operations
from slowfast_maskfeat.augment.crop import CropBox, crop
from slowfast_maskfeat.augment.randaugment import (
    Operation,
    RandAugment,
    level_argument,
    parse_policy,
)

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/data_spatial.json").read_text())[
    "rand_augment"
]
POLICY = parse_policy("rand-m7-n4-mstd0.5-inc1")
MOVING = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")


def _clip(picture, num_frames=2):
    return torch.from_numpy(picture)[None].expand(num_frames, -1, -1, -1)


def _difference(first, second):
    return np.abs(np.asarray(first).astype(int) - np.asarray(second).astype(int))


@pytest.mark.parametrize("picture", ["noise", "ramp"])
@pytest.mark.parametrize("name", GOLDEN["op_results_m7"])
def test_the_published_results_at_magnitude_7(name, picture):
    pixels, golden = pictures()[picture], GOLDEN["op_results_m7"][name][picture]
    expected = pillow_result(pixels, name, level_argument(name, 7))
    assert zlib.crc32(expected.tobytes()) == golden["crc"]
    clip = apply_operations(_clip(pixels), [Operation(name, level_argument(name, 7))])
    assert clip.dtype == torch.uint8
    assert clip[0].equal(clip[1])
    difference = _difference(clip[1], expected)
    if name in MOVING:  # sums of floats that Pillow truncates: one level, now and then
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.005
    else:
        assert difference.max() == 0


@pytest.mark.parametrize("level", [0, 0.4, 3, 9.7, 10])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", sorted({*POLICY.names, *parse_policy("rand-m9").names}))
def test_every_operation_is_pillows_at_every_strength(name, negative, level):
    argument = level_argument(name, level, negative=negative)
    for pixels in pictures().values():
        clip = apply_operations(_clip(pixels), [Operation(name, argument)])
        difference = _difference(clip[0], pillow_result(pixels, name, argument))
        assert difference.max() <= (1 if name in MOVING else 0)
        assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("name", MOVING)
def test_bilinear_and_other_fills_are_pillows(name):
    pixels, argument, fill = pictures()["smooth"], level_argument(name, 6), (124, 0, 255)
    clip = apply_operations(_clip(pixels), [Operation(name, argument, "bilinear", fill)])
    expected = pillow_result(pixels, name, argument, resample=Image.Resampling.BILINEAR, fill=fill)
    assert _difference(clip[0], expected).max() <= 1
    assert (expected == fill).all(-1).any()


@pytest.mark.parametrize("value", [0, 7, 255])
def test_flat_pictures_stay_as_they_are_where_pillow_leaves_them(value):
    pixels = np.full((5, 6, 3), value, np.uint8)
    for name in POLICY.names:
        argument = level_argument(name, 5)
        clip = apply_operations(_clip(pixels), [Operation(name, argument)])
        assert _difference(clip[0], pillow_result(pixels, name, argument)).max() == 0, name


@pytest.mark.parametrize("name", GOLDEN["level_args"])
def test_the_published_arguments(name):
    for level, golden in GOLDEN["level_args"][name].items():
        argument = level_argument(name, float(level))
        assert argument == pytest.approx(golden[0] if golden else 0)
        if name in MOVING:
            assert level_argument(name, float(level), negative=True) == -argument


@pytest.mark.parametrize("seed", range(25))
def test_a_rectangle_is_cropped_from_the_result_for_whole_frames(seed):
    generator = np.random.default_rng(seed)
    frames = torch.from_numpy(generator.integers(0, 256, (3, 40, 50, 3)).astype(np.uint8))
    policy = RandAugment(magnitude=6, num_operations=6, magnitude_std=2, increasing=True)
    drawn = policy.draw(generator)
    boxes = (CropBox(11, 7, 20, 30), CropBox(0, 0, 12, 50), CropBox(39, 49, 1, 1))
    whole = apply_operations(frames, drawn)
    for box in boxes:
        assert apply_operations(frames, drawn, box).equal(crop(whole, box)), drawn


def test_pictures_are_measured_frame_by_frame():
    dark, bright = pictures()["smooth"] // 4, pictures()["smooth"] // 2 + 128
    clip = torch.from_numpy(np.stack([dark, bright]))
    for name in ("AutoContrast", "Equalize", "ContrastIncreasing"):
        argument = level_argument(name, 7)
        result = apply_operations(clip, [Operation(name, argument)])
        for frame, pixels in zip(result, (dark, bright), strict=True):
            assert _difference(frame, pillow_result(pixels, name, argument)).max() == 0


def test_the_frames_are_not_changed():
    frames = torch.from_numpy(pictures()["noise"])[None].clone()
    before = frames.clone()
    for name in POLICY.names:
        apply_operations(frames, [Operation(name, level_argument(name, 9))])
    assert frames.equal(before)


@pytest.mark.parametrize("policy", GOLDEN["parsed"])
def test_published_policies_are_read_as_published(policy):
    golden, read = GOLDEN["parsed"][policy], parse_policy(policy)
    assert read.num_operations == golden["layers"]
    assert read.increasing
    if "ops" in golden:
        assert len(read.names) == golden["ops"]
        assert set(read.names) == set(GOLDEN["level_args"])
        assert (read.magnitude, read.magnitude_std) == (golden["magnitude"], golden["std"])
        assert list(read.fill) == golden["fill"]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("augmix-m3", "got 'augmix-m3'"),
        ("rand-m7-w0", "got 'w0'"),
        ("rand-m7-p0.5", "got 'p0.5'"),
        ("rand-m7-mstdinf", "got 'mstdinf'"),
        ("rand-m7-inc0", "got 'inc0'"),
        ("rand-n0", "n must be an integer >= 1, got 'rand-n0'"),
        ("rand-m12", r"m must be in 0\.\.10"),
    ],
)
def test_other_policies_are_clear_errors(policy, message):
    with pytest.raises(ValueError, match=f"AUG.AA_TYPE.*{message}"):
        parse_policy(policy)


def test_operations_and_magnitudes_are_distributed_as_published():
    generator, policy = np.random.default_rng(0), parse_policy("rand-m7-n2-mstd0.5-inc1")
    draws = [policy.draw(generator) for _ in range(6000)]
    # Two draws, each kept half of the time.
    counts = Counter(len(drawn) for drawn in draws)
    assert counts[0] / 6000 == pytest.approx(0.25, abs=0.02)
    assert counts[2] / 6000 == pytest.approx(0.25, abs=0.02)
    operations = [operation for drawn in draws for operation in drawn]
    names = Counter(operation.name for operation in operations)
    assert set(names) == set(policy.names)
    for count in names.values():
        assert count / len(operations) == pytest.approx(1 / 15, abs=0.012)
    degrees = np.array([op.argument for op in operations if op.name == "Rotate"])
    assert (degrees < 0).mean() == pytest.approx(0.5, abs=0.1)
    assert np.abs(degrees).mean() == pytest.approx(21, abs=0.3)
    assert np.abs(degrees).std() == pytest.approx(1.5, abs=0.25)
    assert parse_policy("rand-m0-n4").draw(np.random.default_rng(1))[0].interpolation == "bicubic"


def test_random_interpolation_draws_both():
    policy = parse_policy("rand-m5-n4", interpolation="random")
    generator = np.random.default_rng(0)
    drawn = [op.interpolation for _ in range(50) for op in policy.draw(generator)]
    assert set(drawn) == {"bicubic", "bilinear"}
    with pytest.raises(ValueError, match=r"AUG.INTERPOLATION must .* got 'lanczos'"):
        parse_policy("rand-m5", interpolation="lanczos")


def test_a_magnitude_never_leaves_its_range():
    policy = RandAugment(magnitude=9.5, num_operations=4, magnitude_std=8, increasing=True)
    generator = np.random.default_rng(0)
    drawn = [op for _ in range(400) for op in policy.draw(generator)]
    shares = [abs(op.argument) for op in drawn if op.name.startswith("Translate")]
    assert min(shares) >= 0
    assert max(shares) == pytest.approx(0.45)
