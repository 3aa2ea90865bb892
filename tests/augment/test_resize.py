"""Lanczos resize: Pillow's values, up and down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from slowfast_maskfeat.augment import TrainTransform
from slowfast_maskfeat.augment.resize import resize

LANCZOS = Image.Resampling.LANCZOS


def _pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's resize in the order of its versions up to 12: columns, then rows."""
    columns = Image.fromarray(image).resize((width, image.shape[0]), LANCZOS)
    return np.array(columns.resize((width, height), LANCZOS))


@pytest.mark.parametrize("contrast", ["noise", "black and white"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((90, 120), (30, 40)),
        ((90, 120), (200, 256)),
        ((61, 47), (112, 23)),
        ((200, 31), (64, 64)),
        ((5, 3), (8, 9)),
        ((64, 80), (64, 33)),
    ],
)
def test_lanczos_is_pillows(old, new, contrast):
    """No value differs: the weights have Pillow's fixed point, and both passes are rounded."""
    frames = np.random.default_rng(sum(old + new)).integers(0, 256, (2, *old, 3)).astype(np.uint8)
    if contrast == "black and white":  # where the negative lobes clip most
        frames = (frames > 127).astype(np.uint8) * 255
    resized = resize(torch.from_numpy(frames), new, antialias=True, interpolation="lanczos")
    expected = np.stack([_pillow(frame, *new) for frame in frames])
    np.testing.assert_array_equal(resized.numpy(), expected)


def test_one_pass_is_that_of_any_pillow():
    """With one pass the order does not matter: a single call of any version of Pillow."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    for size in ((40, 25), (40, 140), (17, 60), (99, 60)):
        expected = np.array(Image.fromarray(image).resize(size[::-1], LANCZOS))
        resized = resize(
            torch.from_numpy(image)[None], size, antialias=True, interpolation="lanczos"
        )
        np.testing.assert_array_equal(resized[0].numpy(), expected)


def test_a_crop_is_resized_without_the_pixels_around_it():
    """Pillow's crop, then its resize, as in torchvision; `resize(box=...)` would read beyond it."""
    transform = TrainTransform(crop_size=32, area=(0.1, 0.9), interpolation="lanczos")
    frames = np.random.default_rng(1).integers(0, 256, (1, 70, 90, 3)).astype(np.uint8)
    for seed in range(10):
        plan = transform.plan(70, 90, np.random.default_rng(seed))
        clip = transform.apply(plan, torch.from_numpy(frames))
        top, left, height, width = plan.box
        expected = _pillow(frames[0, top : top + height, left : left + width].copy(), 32, 32)
        expected = expected[:, ::-1] if plan.flip else expected
        np.testing.assert_array_equal(clip[0].numpy(), expected)


def test_without_antialiasing_few_pixels_count():
    """Shrinking by 10 reads the 6 columns around each center, and none of the others."""
    frames = np.random.default_rng(2).integers(0, 256, (1, 4, 60, 3)).astype(np.uint8)
    changed = frames.copy()
    changed[:, :, 9:12] = 0  # the centers are at 5, 15, ..., 55, and three pixels each way count
    first, second = (
        resize(torch.from_numpy(f), (4, 6), antialias=False, interpolation="lanczos")
        for f in (frames, changed)
    )
    assert first.equal(second)
