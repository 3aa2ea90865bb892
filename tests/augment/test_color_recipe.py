"""Jitter of colors and grayscale, the same for all frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.pillow_forms import pictures, pillow_result

from slowfast_maskfeat.augment.apply_operations import apply_operations
from slowfast_maskfeat.augment.color_recipe import ColorRecipe
from slowfast_maskfeat.augment.operations import blend
from slowfast_maskfeat.augment.randaugment import Operation


def _jittered(jitter, clip, generator):
    return apply_operations(clip, jitter.draw(generator))


def test_all_frames_change_alike_and_clips_differ():
    picture = torch.from_numpy(pictures()["smooth"])
    clip = picture[None].expand(4, -1, -1, -1)
    jitter = ColorRecipe(brightness=0.4, contrast=0.4, saturation=0.4)
    first = _jittered(jitter, clip, np.random.default_rng(0))
    assert first.shape == clip.shape
    assert first.dtype == torch.uint8
    assert (first == first[:1]).all()
    assert first.equal(_jittered(jitter, clip, np.random.default_rng(0)))
    assert not first.equal(_jittered(jitter, clip, np.random.default_rng(1)))


def test_the_brightness_stays_in_its_range():
    clip = torch.full((1, 4, 4, 3), 100, dtype=torch.uint8)
    jitter, generator = (
        ColorRecipe(brightness=0.4, contrast=0.4, saturation=0.4),
        np.random.default_rng(0),
    )
    # Of a flat gray picture contrast and saturation change nothing.
    levels = [int(_jittered(jitter, clip, generator)[0, 0, 0, 0]) for _ in range(500)]
    assert 60 <= min(levels) < 65
    assert 135 < max(levels) <= 140


def test_grayscale_is_pillows_and_as_frequent_as_asked():
    picture = pictures()["noise"]
    clip = torch.from_numpy(picture)[None]
    expected = torch.from_numpy(pillow_result(picture, "Color", 0.0))
    jitter, generator = ColorRecipe(gray_probability=0.3), np.random.default_rng(0)
    results = [_jittered(jitter, clip, generator)[0] for _ in range(300)]
    gray = sum(result.equal(expected) for result in results)
    assert 65 < gray < 115
    assert all(result.equal(expected) or result.equal(clip[0]) for result in results)


def test_a_blend_truncates():
    pixel = torch.tensor([[[[[3, 5, 200]]]]], dtype=torch.uint8)
    assert blend(0.0, pixel, torch.tensor([1.5])).flatten().tolist() == [4, 7, 255]


def test_the_streams_of_a_jitter_without_hue_stay():
    """A permutation of the three changes, a factor of each, and a draw of the grayscale."""
    recipe = ColorRecipe(brightness=0.4, contrast=0.4, saturation=0.4, gray_probability=0.2)
    drawn = recipe.draw(np.random.default_rng(7))
    generator = np.random.default_rng(7)
    expected = []
    for number in generator.permutation(3):
        name = ("Brightness", "Contrast", "Color")[number]
        expected.append((name, float(generator.uniform(0.6, 1.4))))
    if generator.random() < 0.2:
        expected.append(("Color", 0.0))
    assert [operation[:2] for operation in drawn] == expected


DINO = ColorRecipe(
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    jitter_probability=0.8,
    gray_probability=0.2,
    blur_probability=0.1,
    solarize_probability=0.2,
)


@pytest.mark.parametrize("form", ["blend", "additive"])
def test_frequencies_and_ranges_of_the_operations(form):
    recipe = replace(DINO, form=form)
    generator = np.random.default_rng(0)
    drawn = [recipe.draw(generator) for _ in range(4000)]
    names = [[operation.name for operation in of_clip] for of_clip in drawn]
    jitter = ("Brightness", "Contrast", "Color")
    if form == "additive":
        jitter = ("BrightnessShift", "ChannelContrast", "Saturation")
    shares = {"Hue": 0.8, "GaussianBlur": 0.1, "Solarize": 0.2, **dict.fromkeys(jitter, 0.8)}
    for name, share in shares.items():
        found = np.mean([name in of_clip for of_clip in names])
        # A conversion to grayscale is an operation "Color", too.
        expected = 1 - 0.2 * 0.8 if name == "Color" else share
        assert found == pytest.approx(expected, abs=5 * (share * (1 - share) / 4000) ** 0.5), name
    first = [of_clip[0] for of_clip in names if "Hue" in of_clip]
    assert all(first.count(name) > 600 for name in (*jitter, "Hue"))  # in random order
    arguments = {
        name: [
            op.argument
            for of_clip in drawn
            for op in of_clip
            if op[:2] != ("Color", 0.0) and op.name == name
        ]
        for name in shares
    }
    ranges = {
        jitter[0]: (-0.4, 0.4) if form == "additive" else (0.6, 1.4),
        jitter[1]: (0.6, 1.4),
        jitter[2]: (0.8, 1.2),
        "Hue": (-0.1, 0.1),
        "GaussianBlur": (0.1, 2.0),
        "Solarize": (128, 128),
    }
    for name, (low, high) in ranges.items():
        assert low <= min(arguments[name]) <= low + 0.05 * (high - low), name
        assert high - 0.05 * (high - low) <= max(arguments[name]) <= high, name


def test_differences_come_first_and_leave_the_other_streams():
    recipe = replace(DINO, difference_probability=0.3)
    generator = np.random.default_rng(0)
    drawn = [recipe.draw(generator) for _ in range(2000)]
    number = sum(of_clip[:1] == [Operation("FrameDifference")] for of_clip in drawn)
    assert number / 2000 == pytest.approx(0.3, abs=0.05)
    certain = replace(DINO, difference_probability=1.0).draw(np.random.default_rng(3))
    assert certain == [Operation("FrameDifference"), *DINO.draw(np.random.default_rng(3))]


def test_nothing_is_drawn_by_a_recipe_of_zeros():
    assert ColorRecipe().draw(np.random.default_rng(0)) == []
