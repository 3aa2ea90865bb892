"""Jitter of colors and grayscale, the same for all frames."""

from __future__ import annotations

import numpy as np
import torch
from helpers.pillow_forms import pictures, pillow_result

from slowfast_maskfeat.augment.apply_operations import apply_operations
from slowfast_maskfeat.augment.color_jitter import ColorJitter
from slowfast_maskfeat.augment.operations import blend


def _jittered(jitter, clip, generator):
    return apply_operations(clip, jitter.draw(generator))


def test_all_frames_change_alike_and_clips_differ():
    picture = torch.from_numpy(pictures()["smooth"])
    clip = picture[None].expand(4, -1, -1, -1)
    jitter = ColorJitter(strength=0.4)
    first = _jittered(jitter, clip, np.random.default_rng(0))
    assert first.shape == clip.shape
    assert first.dtype == torch.uint8
    assert (first == first[:1]).all()
    assert first.equal(_jittered(jitter, clip, np.random.default_rng(0)))
    assert not first.equal(_jittered(jitter, clip, np.random.default_rng(1)))


def test_the_brightness_stays_in_its_range():
    clip = torch.full((1, 4, 4, 3), 100, dtype=torch.uint8)
    jitter, generator = ColorJitter(strength=0.4), np.random.default_rng(0)
    # Of a flat gray picture contrast and saturation change nothing.
    levels = [int(_jittered(jitter, clip, generator)[0, 0, 0, 0]) for _ in range(500)]
    assert 60 <= min(levels) < 65
    assert 135 < max(levels) <= 140


def test_grayscale_is_pillows_and_as_frequent_as_asked():
    picture = pictures()["noise"]
    clip = torch.from_numpy(picture)[None]
    expected = torch.from_numpy(pillow_result(picture, "Color", 0.0))
    jitter, generator = ColorJitter(gray_probability=0.3), np.random.default_rng(0)
    results = [_jittered(jitter, clip, generator)[0] for _ in range(300)]
    gray = sum(result.equal(expected) for result in results)
    assert 65 < gray < 115
    assert all(result.equal(expected) or result.equal(clip[0]) for result in results)


def test_a_blend_truncates():
    pixel = torch.tensor([[[[[3, 5, 200]]]]], dtype=torch.uint8)
    assert blend(0.0, pixel, torch.tensor([1.5])).flatten().tolist() == [4, 7, 255]
