"""Several views of a sample, cropped on the device: equal to those of workers up to rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.videos_on_disk import write_video
from PIL import Image

from slowfast_maskfeat.augment import ColorRecipe, TrainTransform
from slowfast_maskfeat.clips import (
    BatchTransform,
    ClipDataset,
    ClipLoader,
    DeviceCrop,
    MultiView,
    RandomFrames,
    RandomSpan,
    SameFrames,
    ViewSpec,
)
from slowfast_maskfeat.datasets import read_list

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
JITTER = ColorRecipe(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, gray_probability=0.2)
BLURRED = replace(JITTER, blur_probability=1.0)
SOLARIZED = replace(JITTER, blur_probability=0.1, solarize_probability=0.5)
ADDITIVE = replace(JITTER, blur_probability=0.5, form="additive")


def _spec(crop_size, count, temporal, colors, area=(0.4, 1.0), interpolation="bilinear"):
    transform = TrainTransform(crop_size=crop_size, area=area, interpolation=interpolation)
    return ViewSpec(
        augmentation=transform,
        crop_size=crop_size,
        num_frames=4,
        temporal=temporal,
        count=count,
        colors=colors,
    )


def _contrastive(first, local):
    """Two large views with a recipe each, and three small ones."""
    return (
        _spec(32, 2, first, (BLURRED, SOLARIZED)),
        _spec(16, 3, local, (ADDITIVE,) * 3, area=(0.05, 0.4)),
    )


def _two_sizes():
    """One crop at two sizes, as for BEiT: two views, bicubic and Lanczos."""
    bicubic = _spec(32, 2, RandomFrames(sampling_rate=2), (JITTER, None), interpolation="bicubic")
    small = replace(bicubic.augmentation, crop_size=16, interpolation="lanczos")
    return bicubic, replace(bicubic, augmentation=small, crop_size=16, shares=0)


SPECS = {
    "several times": _contrastive(RandomSpan(0.8, 1.0), RandomSpan(0.125, 0.125)),
    "one time": _contrastive(SameFrames(RandomFrames(sampling_rate=2)), SameFrames()),
    "one crop at two sizes": _two_sizes(),
}


def _blobs(num_frames, height, width, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (num_frames, 9, 11, 3), np.uint8)
    return np.stack([np.array(Image.fromarray(f).resize((width, height))) for f in coarse])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos")
    for number in range(8):
        size = (48, 64) if number % 2 else (72, 40)
        write_video(path / f"{number}.mp4", _blobs(40 + number, *size, number), fps=30)
    (path / "list.csv").write_text("".join(f"{n}.mp4 {n % 3}\n" for n in range(8)))
    return path


def _mask(generator):
    return torch.from_numpy(generator.random((2, 4, 4)) < 0.5)


def _loader(folder, specs, *, on_device, **options):
    dataset = ClipDataset(
        read_list(folder / "list.csv", prefix=str(folder)),
        MultiView(specs, on_device=on_device),
        mask_samplers=(_mask, None),
        reverse_channels=True,
        seed=1,
    )
    return ClipLoader(dataset, 4, shuffle=True, seed=5, **options)


def _transformed(loader, specs, device="cpu", first_batch=0):
    crops = [DeviceCrop.of(spec.augmentation, reverse_channels=True) for spec in specs]
    transform = BatchTransform(mean=(0.45,) * 3, std=(0.225,) * 3, crops=crops)
    batches = loader.epoch(3, first_batch)
    return [
        transform(batch, torch.device(device), epoch=3, step=first_batch + step)
        for step, batch in enumerate(batches)
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SPECS)
def test_all_views_are_those_of_workers_to_rounding(folder, name, device):
    specs = SPECS[name]
    plain = list(_loader(folder, specs, on_device=False).epoch(3))
    ours = _transformed(_loader(folder, specs, on_device=True), specs, device)
    differences: list[list[torch.Tensor]] = [[], []]
    for mine, other in zip(ours, plain, strict=True):
        assert len(mine) == len(other) == 4
        for number, (kind, expected) in enumerate(zip(mine.views, other.views, strict=True)):
            assert kind.plans is None
            assert kind.clips.dtype == torch.uint8
            assert kind.clips.shape == expected.clips.shape
            for field in ("labels", "index", "view", "crops", "flips"):
                assert getattr(kind, field).cpu().equal(getattr(expected, field)), field
            assert (kind.mask is None) == (expected.mask is None) == (number == 1)
            differences[number].append((kind.clips.cpu().int() - expected.clips.int()).abs())
        assert mine.mask.equal(other.mask)
    for of_kind in differences:
        levels = torch.cat(of_kind)
        assert (levels > 2).double().mean() < 5e-4
        assert levels.double().mean() < 0.05
    assert torch.cat(differences[0]).any()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_processes_and_a_resume_change_no_view(folder):
    specs = SPECS["several times"]
    expected = _transformed(_loader(folder, specs, on_device=True), specs)
    for first, num_workers in ((0, 2), (1, 0)):
        loader = _loader(folder, specs, on_device=True, num_workers=num_workers)
        for mine, other in zip(
            _transformed(loader, specs, first_batch=first), expected[first:], strict=True
        ):
            for kind, same in zip(mine.views, other.views, strict=True):
                assert kind.clips.equal(same.clips)
    for rank in (0, 1):
        loader = _loader(folder, specs, on_device=True, rank=rank, world=2)
        for share, whole in zip(_transformed(loader, specs), expected, strict=True):
            assert len(share) == 2
            for kind, same in zip(share.views, whole.views, strict=True):
                for row, view, clip in zip(kind.index, kind.view, kind.clips, strict=True):
                    (place,) = torch.where((same.index == row) & (same.view == view))
                    assert clip.equal(same.clips[place[0]])


def test_workers_hand_over_few_uint8_pixels_of_each_kind(folder):
    """Those of the crop, or the finished clip if there are more than four times as many."""
    specs = SPECS["several times"]
    for batch in _loader(folder, specs, on_device=True).epoch(0):
        for kind, spec in zip(batch.views, specs, strict=True):
            assert kind.clips.dtype == torch.uint8
            assert len(kind.plans) == len(kind.clips) == 4 * spec.count
            for plan in kind.plans:
                height, width = plan.region.box[2:]
                assert height * width <= 4 * spec.crop_size**2
                assert height <= kind.clips.shape[3]
                assert width <= kind.clips.shape[4]
        with pytest.raises(AssertionError, match="not cropped yet"):
            batch.split(2)
