"""Crops, resizes and flips on uint8 frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden_rule import golden_randn
from helpers.pillow_forms import pictures
from helpers.python_draws import PythonDraws
from PIL import Image

from slowfast_maskfeat.augment.apply_operations import apply_operations
from slowfast_maskfeat.augment.color_recipe import ColorRecipe
from slowfast_maskfeat.augment.crop import (
    crop,
    fixed_crop,
    random_crop,
    random_resized_crop,
    short_side_size,
)
from slowfast_maskfeat.augment.normalize import normalize
from slowfast_maskfeat.augment.randaugment import parse_policy
from slowfast_maskfeat.augment.resize import resize
from slowfast_maskfeat.augment.transforms import TestTransform as FixedTransform
from slowfast_maskfeat.augment.transforms import TrainTransform

# Geometry, distributions and values of the published transforms.
GOLDEN = json.loads((Path(__file__).parent.parent / "golden/data_spatial.json").read_text())
NPZ = Path(__file__).parent.parent / "golden/data_spatial.npz"


@pytest.mark.parametrize("row", GOLDEN["spatial"], ids=lambda row: row["key"])
def test_fixed_crops_lie_where_the_published_ones_do(row):
    short_side = min(row["scaled_hw"])
    assert short_side_size(*row["in_hw"], short_side) == tuple(row["scaled_hw"])
    box = fixed_crop(*row["scaled_hw"], row["crop"], row["spatial_idx"])
    assert (box.top, box.left) == (row["y"], row["x"])


@pytest.mark.parametrize("row", GOLDEN["spatial"], ids=lambda row: row["key"])
def test_fixed_crops_have_the_published_values(row):
    golden, (height, width) = row["out"], row["in_hw"]
    planes = golden_randn(300, (3, 2, height, width))
    frames = planes.permute(1, 2, 3, 0)  # (T, H, W, C)
    resized = resize(frames, tuple(row["scaled_hw"]), antialias=False)
    cropped = crop(resized, fixed_crop(*row["scaled_hw"], row["crop"], row["spatial_idx"]))
    values = cropped.permute(3, 0, 1, 2).double()
    assert list(values.shape) == golden["shape"]
    assert float(values.norm()) == pytest.approx(golden["norm"], rel=1e-6)
    assert float(values.mean()) == pytest.approx(golden["mean"], abs=1e-7)
    sample = values.flatten()[:: row["stride"]]
    with np.load(NPZ) as arrays:
        np.testing.assert_allclose(sample[:64], arrays[row["key"]], atol=1e-5)


@pytest.mark.parametrize("size", [(48, 64), (112, 100), (224, 224)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_antialiased_resizes_are_pillows(size, interpolation):
    for picture in pictures().values():
        frames = torch.from_numpy(picture)[None]
        result = resize(frames, size, antialias=True, interpolation=interpolation)[0].int()
        image = Image.fromarray(picture).resize(size[::-1], Image.Resampling[interpolation.upper()])
        # torch leaves enlarged bilinear frames to the form that needs no antialiasing: the same
        # up to the rounding of its 8-bit weights.
        assert (result - torch.from_numpy(np.array(image)).int()).abs().max() <= 2


@pytest.mark.parametrize("row", GOLDEN["random_resized_crop"], ids=lambda r: str(r["seed"]))
def test_the_published_random_resized_crops(row):
    draws = PythonDraws(row["seed"])
    box = random_resized_crop(*row["hw"], tuple(row["scale"]), (0.75, 1.3333), draws)
    assert list(box) == row["ijhw"]


@pytest.mark.parametrize(
    "row", GOLDEN["short_side_jitter"]["rows"], ids=lambda r: str(r["np_seed"])
)
def test_the_published_short_sides(row):
    transform = TrainTransform(crop_size=8, short_side=(256, 320), inverse_uniform=row["inverse"])
    short_side = transform._draw_short_side(np.random.RandomState(row["np_seed"]))
    size = short_side_size(*GOLDEN["short_side_jitter"]["input_hw"], short_side)
    assert list(size) == row["hw"]


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


def test_a_frame_too_narrow_for_any_crop_gives_the_center():
    box = random_resized_crop(100, 4, (0.9, 1.0), (0.75, 1.3333), np.random.default_rng(0))
    assert (box.left, box.width, box.height) == (0, 4, 5)
    assert box.top == 47


def test_random_crops_take_the_last_offset_too():
    generator = np.random.default_rng(0)
    tops = {random_crop(10, 12, 8, generator).top for _ in range(200)}
    assert tops == {0, 1, 2}


def test_a_crop_larger_than_the_frame_names_the_key():
    with pytest.raises(ValueError, match=r"DATA\.TRAIN_JITTER_SCALES must .* 64, got .* 48x80"):
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


def test_pixel_values_are_normalized_as_published():
    golden = GOLDEN["normalize"]
    clips = torch.tensor(golden["input"], dtype=torch.uint8).view(1, 1, 1, 1, -1)
    clips = clips.expand(1, 3, 1, 1, -1)
    output = normalize(clips, (0.45,) * 3, (0.225,) * 3)
    torch.testing.assert_close(output[0, 1, 0, 0], torch.tensor(golden["output"]))


def test_float_clips_are_normalized_already():
    clips = torch.randn(1, 3, 2, 4, 4)
    assert normalize(clips, (0.45,) * 3, (0.225,) * 3) is clips


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


def test_all_frames_of_a_clip_are_cropped_alike():
    frame = torch.randint(0, 256, (1, 40, 50, 3), dtype=torch.uint8)
    for transform in (
        TrainTransform(crop_size=24, area=(0.3, 1.0)),
        TrainTransform(crop_size=24, short_side=(26, 32)),
    ):
        clip = transform(frame.expand(5, -1, -1, -1), np.random.default_rng(3))
        assert clip.shape == (5, 24, 24, 3)
        assert clip.dtype == torch.uint8
        assert (clip == clip[:1]).all()


def _transforms(**options):
    policy = parse_policy("rand-m9-n6-mstd0.5-inc1")
    return (
        TrainTransform(crop_size=24, area=(0.3, 1.0), randaugment=policy, **options),
        TrainTransform(crop_size=24, short_side=(26, 32), randaugment=policy, **options),
        TrainTransform(
            crop_size=24,
            area=(0.3, 1.0),
            randaugment=policy,
            augment_crop=True,
            interpolation="bicubic",
            **options,
        ),
    )


@pytest.mark.parametrize("seed", range(6))
def test_all_frames_are_augmented_alike(seed):
    frame = torch.from_numpy(pictures()["smooth"])[None]
    for transform in _transforms(
        colors=ColorRecipe(brightness=0.4, contrast=0.4, saturation=0.4, gray_probability=0.2)
    ):
        clip = transform(frame.expand(5, -1, -1, -1), np.random.default_rng(seed))
        assert clip.shape == (5, 24, 24, 3)
        assert clip.dtype == torch.uint8
        assert (clip == clip[:1]).all()
        again = transform(frame.expand(5, -1, -1, -1), np.random.default_rng(seed))
        assert clip.equal(again)


def test_videos_are_augmented_whole_and_images_after_the_crop():
    frames = torch.from_numpy(pictures()["smooth"])[None]
    whole, _, image = _transforms(flip=False)
    generator = np.random.default_rng(5)
    drawn = whole.randaugment.draw(generator)
    small = resize(frames, short_side_size(60, 80, 60), antialias=True)
    box = random_resized_crop(60, 80, whole.area, whole.aspect, generator)
    expected = resize(crop(apply_operations(small, drawn), box), (24, 24), antialias=True)
    assert whole(frames, np.random.default_rng(5)).equal(expected)

    generator = np.random.default_rng(5)
    box = random_resized_crop(60, 80, image.area, image.aspect, generator)
    cropped = resize(crop(frames, box), (24, 24), antialias=True, interpolation="bicubic")
    expected = apply_operations(cropped, image.randaugment.draw(generator))
    assert image(frames, np.random.default_rng(5)).equal(expected)


def test_larger_frames_are_brought_to_the_short_side_before_randaugment():
    frames = torch.from_numpy(pictures()["smooth"])[None]
    transform = TrainTransform(
        crop_size=24,
        area=(1.0, 1.0),
        aspect=(4 / 3, 4 / 3),
        short_side=(30, 40),
        flip=False,
        randaugment=parse_policy("rand-m7-n6"),
    )
    drawn = transform.randaugment.draw(np.random.default_rng(1))
    assert drawn
    expected = apply_operations(resize(frames, (30, 40), antialias=True), drawn)
    expected = resize(expected, (24, 24), antialias=True)
    assert transform(frames, np.random.default_rng(1)).equal(expected)


def test_half_of_the_clips_are_flipped():
    ramp = torch.arange(8, dtype=torch.uint8).view(1, 1, 8, 1).expand(1, 8, 8, 3)
    transform = TrainTransform(crop_size=8, short_side=(8, 8), flip=True)
    flipped = [
        bool((transform(ramp, np.random.default_rng(seed))[0, 0, 0, 0] == 7).all())
        for seed in range(400)
    ]
    assert 160 < sum(flipped) < 240


def test_three_crops_are_first_center_and_last():
    ramp = torch.arange(40, dtype=torch.uint8).view(1, 1, 40, 1).expand(2, 20, 40, 3)
    clips = FixedTransform(crop_size=20, short_side=20, num_crops=3)(ramp)
    assert clips.shape == (3, 2, 20, 20, 3)
    assert clips[:, 0, 0, 0, 0].tolist() == [0, 10, 20]
    (center,) = FixedTransform(crop_size=20, short_side=20)(ramp)
    assert (center == clips[1]).all()
