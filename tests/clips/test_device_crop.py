"""Crops on the device: equal to those of a worker, whatever else is in the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.pillow_forms import pictures, pillow_result
from helpers.videos_on_disk import numbered_frames, write_video
from PIL import Image

from slowfast_maskfeat.augment import (
    ColorRecipe,
    EraseSampler,
    Mix,
    TrainTransform,
    operations,
    parse_policy,
)
from slowfast_maskfeat.augment.apply_operations import (
    apply_operations,
    apply_to_batch,
    boxes_needed,
)
from slowfast_maskfeat.augment.batch_resize import AxisResize, resize_batch
from slowfast_maskfeat.augment.crop import CropBox, Region, crop
from slowfast_maskfeat.augment.crop_plan import pad_together
from slowfast_maskfeat.augment.randaugment import Operation, RandAugment, level_argument
from slowfast_maskfeat.clips import (
    BatchTransform,
    ClipDataset,
    ClipLoader,
    DeviceCrop,
    RandomFrames,
    RandomView,
)
from slowfast_maskfeat.clips.batch import Sample, collate
from slowfast_maskfeat.datasets import read_list

CPU = torch.device("cpu")
TEMPORAL = RandomFrames(sampling_rate=2)
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
POLICY = parse_policy("rand-m7-n4-mstd0.5-inc1")
ALL_NAMES = sorted({*POLICY.names, *parse_policy("rand-m9").names})
MOVING = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
SIZES = [(90, 120), (120, 90), (85, 85), (64, 200), (200, 300), (72, 70)]
CONTRASTIVE = ColorRecipe(
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    gray_probability=0.2,
    blur_probability=0.5,
    solarize_probability=0.2,
)
CROPS = {
    "resized crops": {"area": (0.08, 1.0)},
    "not antialiased": {"area": (0.08, 1.0), "antialias": False},
    "short side": {"short_side": (70, 100)},
    "RandAugment": {"area": (0.08, 1.0), "short_side": (100, 100), "randaugment": POLICY},
    "RandAugment, short side": {
        "short_side": (70, 100),
        "randaugment": parse_policy("rand-m9-n3", interpolation="random"),
    },
    "images": {
        "area": (0.08, 1.0),
        "interpolation": "bicubic",
        "augment_crop": True,
        "randaugment": parse_policy("rand-m9-mstd0.5-inc1", fill=(124, 116, 104)),
    },
    "colors": {
        "area": (0.3, 1.0),
        "colors": ColorRecipe(brightness=0.4, contrast=0.4, saturation=0.4, gray_probability=0.3),
    },
    "contrastive": {"area": (0.3, 1.0), "colors": CONTRASTIVE},
    "contrastive, additive": {
        "area": (0.3, 1.0),
        "colors": replace(CONTRASTIVE, form="additive"),
    },
}


def _smooth(height, width, seed, num_frames=2):
    coarse = np.random.default_rng(seed).integers(0, 256, (num_frames, 5, 7, 3)).astype(np.uint8)
    frames = [
        np.array(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
        for frame in coarse
    ]
    return torch.from_numpy(np.stack(frames))


def _noise(height, width, seed, num_frames=2):
    shape = (num_frames, height, width, 3)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8))


def _level_difference(first, second):
    return (first.int() - second.int()).abs()


@pytest.mark.parametrize("device", DEVICES)
def test_every_operation_is_pillows_for_clips_of_several_sizes(device):
    """All clips in one batch, each with an argument of its own; the padding counts for nothing."""
    images = [np.maximum(image, 1) for image in pictures().values() for _ in range(3)]
    clips = pad_together([torch.from_numpy(image)[None, None] for image in images]).to(device)
    regions = [Region.whole(*image.shape[:2]) for image in images]
    boxes = [region.box for region in regions]
    for name in ALL_NAMES:
        for highest in (2, 7, 10):
            arguments = [
                level_argument(name, max(highest - number / 3, 0), negative=bool(number % 2))
                for number in range(len(images))
            ]
            drawn = [[Operation(name, argument)] for argument in arguments]
            results, held = apply_to_batch(clips, drawn, regions, boxes)
            assert held == regions
            for result, image, argument in zip(results.cpu(), images, arguments, strict=True):
                expected = torch.from_numpy(pillow_result(image, name, argument))
                mine = result[0, : image.shape[0], : image.shape[1]]
                difference = _level_difference(mine, expected)
                assert difference.max() <= (1 if name in MOVING else 0), (name, argument)
                assert (difference > 0).double().mean() < 0.01, (name, argument)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(4))
def test_chains_of_operations_are_those_of_a_worker(seed, device):
    """Bit for bit on the CPU: it is the same code."""
    generator = np.random.default_rng(seed)
    policy = RandAugment(magnitude=6, num_operations=5, magnitude_std=2, interpolation="random")
    frames = [_noise(*size, seed) for size in SIZES for _ in range(3)]
    drawn, held, regions, boxes = [], [], [], []
    for clip in frames:
        height, width = clip.shape[1:3]
        drawn.append(policy.draw(generator))
        top, left = (int(generator.integers(side // 2)) for side in (height, width))
        boxes.append(CropBox(top, left, height // 3, width // 3))
        regions.append(Region(boxes_needed(drawn[-1], boxes[-1], height, width)[0], height, width))
        held.append(crop(clip, regions[-1].box))
    clips = pad_together([clip[None] for clip in held]).to(device)
    before = clips.clone()
    results, regions = apply_to_batch(clips, drawn, regions, boxes)
    assert clips.equal(before)
    for clip, of_clip, box, result, region in zip(
        frames, drawn, boxes, results, regions, strict=True
    ):
        expected = apply_operations(clip, of_clip, box)
        result = crop(result, box.within(region.box)).cpu()
        if device == "cpu":
            assert result.equal(expected), of_clip
        else:  # one level of a sum may be another 100 after further operations
            assert (_level_difference(result, expected) > 1).double().mean() < 0.01, of_clip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_resizes_are_pillows(interpolation, device):
    """Rectangles of several sizes out of pictures of several sizes, in one call."""
    images = [image for image in pictures().values() for _ in range(4)]
    generator = np.random.default_rng(0)
    clips = pad_together([torch.from_numpy(image)[None, None] for image in images]).to(device)
    rows, columns, expected = [], [], []
    for image in images:
        box = []
        for side, axis in zip(image.shape[:2], (rows, columns), strict=True):
            length = int(generator.integers(side // 3, side + 1))
            axis.append(AxisResize(int(generator.integers(side - length + 1)), length, 32, 0))
            box.append(slice(axis[-1].start, axis[-1].start + length))
        part = Image.fromarray(np.ascontiguousarray(image[tuple(box)]))
        resized = part.resize((32, 32), Image.Resampling[interpolation.upper()])
        expected.append(torch.from_numpy(np.array(resized)))
    results = resize_batch(
        clips, rows, columns, (32, 32), antialias=True, interpolation=interpolation
    )
    difference = _level_difference(results[:, 0].cpu(), torch.stack(expected))
    assert difference.max() <= 2
    assert (difference > 0).double().mean() < 0.04


def _prepared(transform, frames, generator):
    plan = transform.plan(frames.shape[1], frames.shape[2], generator)
    return transform.source_pixels(plan, frames)


def _worker_and_device(name, make, device, repeat):
    """The same clips, cropped by a worker and on the device, the latter out of one batch."""
    transform = TrainTransform(crop_size=64, **CROPS[name])
    device_crop = DeviceCrop(
        crop_size=64, antialias=transform.antialias, interpolation=transform.interpolation
    )
    samples, expected = [], []
    for number, size in enumerate(SIZES):
        frames = make(*size, repeat * 100 + number)
        expected.append(transform(frames, np.random.default_rng((repeat, number))))
        pixels, plan = _prepared(transform, frames, np.random.default_rng((repeat, number)))
        assert pixels.dtype == torch.uint8
        samples.append(Sample(pixels[None], 0, None, number, (), None, (plan,)))
    batch = collate(samples).to(torch.device(device))
    before = batch.clips.clone()
    clips = device_crop(batch).clips.permute(0, 2, 3, 4, 1)
    assert batch.clips.equal(before)
    for part in (samples[:2], samples[4:]):
        mine = device_crop(collate(part).to(torch.device(device))).clips.permute(0, 2, 3, 4, 1)
        start = part[0].row
        difference = _level_difference(mine, clips[start : start + 2])
        assert difference.max() == 0 or (device == "cuda" and difference.double().mean() < 0.1)
    assert clips.shape == (len(SIZES), 2, 64, 64, 3)
    return clips.cpu(), torch.stack(expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", [_smooth, _noise], ids=["smooth", "noise"])
@pytest.mark.parametrize("name", CROPS)
def test_a_device_crops_as_a_worker_does(name, make, device):
    differences = torch.cat(
        [
            _level_difference(*_worker_and_device(name, make, device, repeat)).flatten()
            for repeat in range(4)
        ]
    )
    # Operations after the resize may make more of the level that its rounding differs by, where
    # they have thresholds or exaggerate.
    if not name.startswith(("images", "colors", "contrastive")):
        assert differences.max() <= 2
    assert (differences > 2).double().mean() < 5e-4
    assert differences.double().mean() < 0.05
    assert differences.bool().any() or name == "not antialiased"


def test_few_source_pixels_go_to_the_device():
    plain = TrainTransform(crop_size=64, area=(0.08, 1.0))
    augmented = TrainTransform(
        crop_size=64, area=(0.08, 1.0), short_side=(80, 80), randaugment=POLICY
    )
    small, large = _noise(70, 90, 0), _noise(200, 250, 0)
    kept = set()
    for seed in range(60):
        pixels, plan = _prepared(plain, large, np.random.default_rng(seed))
        assert pixels.shape[1] * pixels.shape[2] <= 4 * 64**2
        if pixels.shape[1:3] == (64, 64):  # resized by the worker, bit for bit
            finished = plain(large, np.random.default_rng(seed))
            assert pixels.equal(finished.flip(2) if plan.flip else finished)
        else:
            kept.add(pixels.shape)
        pixels, plan = _prepared(plain, small, np.random.default_rng(seed))
        assert pixels.shape[1:3] == plan.box[2:]
        pixels, plan = _prepared(augmented, large, np.random.default_rng(seed))
        if plan.before:
            assert plan.frame == (80, 100)
            assert pixels.shape[1:3] == plan.held[2:]
    assert kept


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos")
    for number in range(8):
        size = (48, 64) if number % 2 else (72, 40)
        write_video(path / f"{number}.mp4", numbered_frames(24 + number, *size), fps=30)
    (path / "list.csv").write_text("".join(f"{n}.mp4 {n % 3}\n" for n in range(8)))
    return path


def _loader(folder, *, on_device, rank=0, world=1, num_workers=0):
    transform = TrainTransform(
        crop_size=32,
        area=(0.3, 1.0),
        short_side=(40, 40),
        randaugment=POLICY,
        colors=ColorRecipe(brightness=0.4, contrast=0.4, saturation=0.4),
    )
    view = RandomView(
        transform=transform,
        num_frames=4,
        temporal=TEMPORAL,
        num_samples=2,
        on_device=on_device,
    )
    dataset = ClipDataset(
        read_list(folder / "list.csv", prefix=str(folder)),
        view,
        seed=1,
        erase_sampler=EraseSampler(size=(32, 32), probability=0.7, max_count=2),
    )
    options = {"rank": rank, "world": world, "num_workers": num_workers}
    return ClipLoader(dataset, 4, shuffle=True, seed=5, **options)


def _transform(**options):
    options = {"mean": (0.45,) * 3, "std": (0.225,) * 3, **options}
    return BatchTransform(crops=(DeviceCrop(crop_size=32),), **options)


def _transformed(loader, first_batch=0, **options):
    transform = _transform(**options)
    return [
        transform(batch, CPU, epoch=3, step=first_batch + step)
        for step, batch in enumerate(loader.epoch(3, first_batch))
    ]


def test_a_batch_is_that_of_workers_to_rounding(folder):
    mix = Mix(num_classes=3)
    plain = _transformed(_loader(folder, on_device=False), mix=mix)
    ours = _transformed(_loader(folder, on_device=True), mix=mix)
    assert [len(batch) for batch in ours] == [8, 8]
    for mine, other in zip(ours, plain, strict=True):
        assert mine.clips.shape == (8, 3, 4, 32, 32)
        assert mine.plans is None
        assert mine.labels.equal(other.labels)
        levels = (mine.clips - other.clips).abs() * 0.225 * 255
        assert float((levels > 2.01).double().mean()) < 5e-4
        assert float(levels.mean()) < 0.2


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_processes_and_a_resume_change_nothing(folder):
    expected = _transformed(_loader(folder, on_device=True))
    for first, num_workers in ((0, 2), (1, 0)):
        loader = _loader(folder, on_device=True, num_workers=num_workers)
        for mine, other in zip(_transformed(loader, first), expected[first:], strict=True):
            assert mine.clips.equal(other.clips)
    shares = [_transformed(_loader(folder, on_device=True, rank=rank, world=2)) for rank in (0, 1)]
    for step, whole in enumerate(expected):
        assert sum(len(share[step]) for share in shares) == len(whole)
        for share in shares:
            for row, view, clip in zip(
                share[step].index, share[step].view, share[step].clips, strict=True
            ):
                (place,) = torch.where((whole.index == row) & (whole.view == view))
                assert clip.equal(whole.clips[place[0]])


def test_uint8_pixels_and_plans_are_what_crosses_processes(folder):
    batch = next(iter(_loader(folder, on_device=True).epoch(0)))
    assert batch.clips.dtype == torch.uint8
    assert len(batch.plans) == len(batch) == 8
    cropped = DeviceCrop(crop_size=32)(batch)
    assert cropped.clips.dtype == torch.uint8
    assert cropped.erase.equal(batch.erase)
    reverse = DeviceCrop(crop_size=32, reverse_channels=True)(batch)
    assert reverse.clips.equal(cropped.clips.flip(1))
    with pytest.raises(AssertionError, match="not cropped yet"):
        batch.split(2)


def test_without_erasing_and_mixing_clips_stay_uint8(folder):
    loader = _loader(folder, on_device=True)
    loader.dataset.erase_sampler = None
    for batch in _transformed(loader):
        assert batch.clips.dtype == torch.uint8


@pytest.mark.parametrize(
    ("name", "num_kinds"),
    [
        ("RandAugment", 15),
        ("RandAugment, short side", 15),
        ("images", 15),
        ("colors", 3),
        ("contrastive", 6),
        ("contrastive, additive", 7),
    ],
)
def test_no_value_decides_what_is_done(name, num_kinds):
    """Tensors without values go through it: nothing is read back from a device."""
    transform = TrainTransform(crop_size=64, **CROPS[name])
    samples, kinds = [], set()
    for number in range(120):
        frames = _noise(90 + number % 3, 120, number, num_frames=1)
        pixels, plan = _prepared(transform, frames, np.random.default_rng(number))
        samples.append(Sample(pixels[None], 0, None, number, (), None, (plan,)))
        kinds |= {operation.kind for operation in (*plan.before, *plan.after)}
    batch = collate(samples).to(torch.device("meta"))
    clips = DeviceCrop(crop_size=64, interpolation=transform.interpolation)(batch).clips
    assert clips.shape == (120, 3, 1, 64, 64)
    assert (clips.dtype, clips.device.type) == (torch.uint8, "meta")
    assert len(kinds) == num_kinds


def test_both_ways_of_counting_agree():
    keys = torch.from_numpy(np.random.default_rng(0).integers(0, 500, 3000))
    counts = torch.bincount(keys, minlength=501)
    assert operations._count_without_waiting(keys, minlength=500).equal(counts)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_is_not_waited_for(folder):
    batch = next(iter(_loader(folder, on_device=True).epoch(0))).pin_memory()
    device, transform = torch.device("cuda"), _transform(mix=Mix(num_classes=3))
    transform(batch, device, epoch=0, step=0)  # what is set up once may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = transform(batch, device, epoch=0, step=0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert result.clips.shape == (8, 3, 4, 32, 32)
