"""Crops, resizes and flips on uint8 frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from slowfast_maskfeat.clips.transform import (
    TestTransform as FixedTransform,  # under its own name pytest would collect it
)
from slowfast_maskfeat.clips.transform import (
    TrainTransform,
    fixed_crop,
    normalise,
    random_crop,
    random_resized_crop,
    resize,
    short_side_size,
)

# Geometry, distributions and values of the published transforms.
GOLDEN = json.loads((Path(__file__).parent.parent / "golden/data_spatial.json").read_text())


@pytest.mark.parametrize("row", GOLDEN["spatial"], ids=lambda row: row["key"])
def test_fixed_crops_lie_where_the_published_ones_do(row):
    short_side = min(row["scaled_hw"])
    assert short_side_size(*row["in_hw"], short_side) == tuple(row["scaled_hw"])
    box = fixed_crop(*row["scaled_hw"], row["crop"], row["spatial_idx"])
    assert (box.top, box.left) == (row["y"], row["x"])


@pytest.mark.parametrize("scale", ["[0.5, 1.0]", "[0.08, 1.0]"])
def test_random_resized_crops_are_distributed_as_published(scale):
    golden, generator = GOLDEN["random_resized_crop_dist"][scale], np.random.default_rng(0)
    area = tuple(json.loads(scale))
    boxes = [random_resized_crop(256, 340, area, (0.75, 1.3333), generator) for _ in range(20000)]
    height = np.array([box.height for box in boxes])
    width = np.array([box.width for box in boxes])
    log_aspect = np.log(width / height)
    assert (height * width / (256 * 340)).mean() == pytest.approx(
        golden["area_fraction_mean"], abs=0.006
    )
    assert log_aspect.mean() == pytest.approx(golden["aspect_log_mean"], abs=0.006)
    assert log_aspect.std() == pytest.approx(golden["aspect_log_std"], abs=0.006)
    assert height.mean() == pytest.approx(golden["h_mean"], abs=1.5)
    assert width.mean() == pytest.approx(golden["w_mean"], abs=1.5)


def test_random_resized_crops_stay_inside_and_reach_every_edge():
    generator = np.random.default_rng(1)
    boxes = [
        random_resized_crop(20, 30, (0.2, 1.0), (0.75, 1.3333), generator) for _ in range(3000)
    ]
    assert min(box.top for box in boxes) == min(box.left for box in boxes) == 0
    assert max(box.top + box.height for box in boxes) == 20
    assert max(box.left + box.width for box in boxes) == 30


def test_a_frame_too_narrow_for_any_crop_gives_the_centre():
    box = random_resized_crop(100, 4, (0.9, 1.0), (0.75, 1.3333), np.random.default_rng(0))
    assert (box.left, box.width, box.height) == (0, 4, 5)
    assert box.top == 47


def test_random_crops_take_the_last_offset_too():
    generator = np.random.default_rng(0)
    tops = {random_crop(10, 12, 8, generator).top for _ in range(200)}
    assert tops == {0, 1, 2}


def test_a_crop_larger_than_the_frame_names_the_key():
    with pytest.raises(ValueError, match=r"crop of 64 .* 48x80: DATA.TRAIN_JITTER_SCALES"):
        random_crop(48, 80, 64, np.random.default_rng(0))


@pytest.mark.parametrize("inverse", [False, True])
def test_the_short_side_is_drawn_from_its_range(inverse):
    transform = TrainTransform(crop_size=8, short_side=(256, 320), inverse_uniform=inverse)
    generator = np.random.default_rng(0)
    sides = np.array([transform._draw_short_side(generator) for _ in range(4000)])
    assert sides.min() >= 256
    assert sides.max() <= 320
    # The mean of 1 / U(1/320, 1/256) is ln(320/256) / (1/256 - 1/320).
    mean = np.log(320 / 256) / (1 / 256 - 1 / 320) if inverse else 288
    assert sides.mean() == pytest.approx(mean, abs=1.2)


def test_pixel_values_are_normalised_as_published():
    golden = GOLDEN["normalize"]
    clips = torch.tensor(golden["input"], dtype=torch.uint8).view(1, 1, 1, 1, -1)
    clips = clips.expand(1, 3, 1, 1, -1)
    output = normalise(clips, (0.45,) * 3, (0.225,) * 3)
    torch.testing.assert_close(output[0, 1, 0, 0], torch.tensor(golden["output"]))


def test_float_clips_are_normalised_already():
    clips = torch.randn(1, 3, 2, 4, 4)
    assert normalise(clips, (0.45,) * 3, (0.225,) * 3) is clips


def test_a_resize_that_shrinks_is_antialiased_and_the_published_form_is_not():
    stripes = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    stripes[:, :, ::4] = 240
    smooth = resize(stripes, (8, 8), antialias=True)
    assert smooth.float().std() < 10
    published = resize(stripes, (8, 8), antialias=False)
    planes = torch.nn.functional.interpolate(
        stripes.permute(0, 3, 1, 2).float(), size=(8, 8), mode="bilinear", align_corners=False
    )
    assert (published.permute(0, 3, 1, 2).float() - planes).abs().max() <= 1


def test_all_frames_of_a_clip_are_cut_alike():
    frame = torch.randint(0, 256, (1, 40, 50, 3), dtype=torch.uint8)
    for transform in (
        TrainTransform(crop_size=24, area=(0.3, 1.0)),
        TrainTransform(crop_size=24, short_side=(26, 32)),
    ):
        clip = transform(frame.expand(5, -1, -1, -1), np.random.default_rng(3))
        assert clip.shape == (5, 24, 24, 3)
        assert clip.dtype == torch.uint8
        assert (clip == clip[:1]).all()


def test_half_of_the_clips_are_flipped():
    ramp = torch.arange(8, dtype=torch.uint8).view(1, 1, 8, 1).expand(1, 8, 8, 3)
    transform = TrainTransform(crop_size=8, short_side=(8, 8), flip=True)
    flipped = [
        bool((transform(ramp, np.random.default_rng(seed))[0, 0, 0, 0] == 7).all())
        for seed in range(400)
    ]
    assert 160 < sum(flipped) < 240


def test_three_crops_are_first_centre_and_last():
    ramp = torch.arange(40, dtype=torch.uint8).view(1, 1, 40, 1).expand(2, 20, 40, 3)
    clips = FixedTransform(crop_size=20, short_side=20, num_crops=3)(ramp)
    assert clips.shape == (3, 2, 20, 20, 3)
    assert clips[:, 0, 0, 0, 0].tolist() == [0, 10, 20]
    (centre,) = FixedTransform(crop_size=20, short_side=20)(ramp)
    assert (centre == clips[1]).all()
