"""Stored label maps travel with their images, whose crops and flips batches hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from slowfast_maskfeat.augment import TrainTransform
from slowfast_maskfeat.augment.transforms import TestTransform as FixedTransform
from slowfast_maskfeat.clips import (
    ClipBatch,
    ClipDataset,
    ClipLoader,
    DeviceCrop,
    LabelMaps,
    MultiView,
    RandomFrames,
    RandomView,
    UniformViews,
    ViewSpec,
)
from slowfast_maskfeat.clips.dataset import SampleKey
from slowfast_maskfeat.datasets import read_list
from slowfast_maskfeat.videos.decode import DecodeError

NUM_IMAGES, NUM_CLASSES, MAP_SIZE = 8, 6, (6, 9)
TEMPORAL = RandomFrames(sampling_rate=1)
ROTATED = 3  # the image with an EXIF orientation
CROPS = {
    "area": {"area": (0.2, 1.0)},
    "short side": {"short_side": (36, 60)},
    "short side, inverse": {"short_side": (36, 60), "inverse_uniform": True},
    "small area of large images": {"area": (0.02, 0.1), "aspect": (0.5, 2.0)},
}


def ramp(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 that increases linearly with the row (red) and the column (green)."""
    rows, columns = (255 * (np.arange(side) + 0.5) / side for side in (height, width))
    blue = np.zeros((height, width))
    red, green = rows[:, None] + blue, columns[None] + blue
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def label_map(seed: int) -> torch.Tensor:
    """A map in the form of Token Labeling."""
    generator = np.random.default_rng(seed)
    scores = 10 * generator.random((5, *MAP_SIZE))
    numbers = generator.random((NUM_CLASSES, *MAP_SIZE)).argsort(axis=0)[:5]
    return torch.from_numpy(np.stack([scores, numbers])).half()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in classes, and their maps in `maps`."""
    path = tmp_path_factory.mktemp("images")
    rows = []
    for number in range(NUM_IMAGES):
        name = f"train/class {number % 2}/photo.of.{number}"
        file = path / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        size = (90, 130) if number % 2 else (150, 70)
        pixels, exif = ramp(*size), Image.Exif()
        if number == ROTATED:  # stored turned to the left; the orientation turns it back
            pixels, exif[0x0112] = np.rot90(pixels), 6
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, exif=exif)
        stored = path / "maps" / f"{name}.pt"
        stored.parent.mkdir(parents=True, exist_ok=True)
        torch.save(label_map(number), stored)
        rows.append(f"{name}.png,{number % 2}\n")
    (path / "list.csv").write_text("".join(rows))
    return path


def maps_of(folder: Path, **options) -> LabelMaps:
    options = {"num_classes": NUM_CLASSES, "size": MAP_SIZE, **options}
    return LabelMaps(folder=str(folder / "maps"), root=str(folder), **options)


def dataset_of(folder: Path, views, maps: LabelMaps | None = None, **options) -> ClipDataset:
    videos = read_list(folder / "list.csv", separator=",", prefix=str(folder))
    return ClipDataset(videos, views, seed=7, label_maps=maps, **options)


def random_view(*, on_device: bool = False, num_samples: int = 2, **transform) -> RandomView:
    return RandomView(
        transform=TrainTransform(crop_size=32, **transform),
        num_frames=1,
        temporal=TEMPORAL,
        num_samples=num_samples,
        on_device=on_device,
    )


def loader_of(dataset: ClipDataset, **options) -> ClipLoader:
    return ClipLoader(dataset, 4, shuffle=True, seed=5, **options)


def check_places(batch: ClipBatch) -> None:
    """Each pixel of a ramp tells its place in the image, which crop and flip must predict."""
    assert batch.crops is not None
    assert batch.flips is not None
    size = batch.clips.shape[-1]
    centers = (torch.arange(size) + 0.5) / size
    inner = slice(2, -2)  # the edges of a frame are extended by the resize
    for clip, crop, flip in zip(batch.clips, batch.crops.double(), batch.flips, strict=True):
        top, left, height, width = crop
        rows, columns = top + height * centers, left + width * centers
        columns = columns.flip(0) if flip else columns
        red, green = clip[0, 0].double() / 255, clip[1, 0].double() / 255
        assert (red - rows[:, None])[inner, inner].abs().max() < 0.015
        assert (green - columns)[inner, inner].abs().max() < 0.015


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("name", CROPS)
def test_crops_and_flips_are_those_of_the_pixels(folder: Path, name: str, on_device: bool) -> None:
    dataset = dataset_of(folder, random_view(on_device=on_device, **CROPS[name]))
    flips = []
    for epoch in range(3):
        for batch in loader_of(dataset).epoch(epoch):
            assert batch.crops.shape == (8, 4)
            assert batch.label_maps is None
            batch = DeviceCrop(crop_size=32)(batch)
            check_places(batch)
            flips += batch.flips.tolist()
    assert len(set(flips)) == 2


@pytest.mark.parametrize("num_crops", [1, 3])
def test_the_crops_of_a_validation_are_those_of_the_pixels(folder: Path, num_crops: int) -> None:
    transform = FixedTransform(crop_size=32, short_side=40, num_crops=num_crops)
    view = UniformViews(transform=transform, num_frames=1, sampling_rate=1)
    dataset = dataset_of(folder, view, maps_of(folder))
    for batch in ClipLoader(dataset, 4, shuffle=False).epoch(0):
        assert batch.crops.shape == (4 * num_crops, 4)
        assert not batch.flips.any()
        check_places(batch)
        check_maps(batch)


def test_a_rotated_photo_has_the_crop_of_what_is_displayed(folder: Path) -> None:
    sample = dataset_of(folder, random_view(area=(1.0, 1.0), aspect=(90 / 130, 130 / 90)))
    loaded = sample[SampleKey(0, ROTATED)]
    assert loaded.clips.shape == (2, 1, 32, 32, 3)
    assert Image.open(folder / "train/class 1/photo.of.3.png").size == (90, 130)
    assert loaded.clips[0, 0, -1, 16, 0] > 200  # red increases downward in the displayed image


def check_maps(batch: ClipBatch) -> None:
    expected = torch.stack([label_map(row).float() for row in batch.index.tolist()])
    assert batch.label_maps.equal(expected)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_maps_come_with_their_images_from_any_worker_and_after_a_resume(folder: Path) -> None:
    dataset = dataset_of(folder, random_view(area=(0.2, 1.0)), maps_of(folder))
    expected = list(loader_of(dataset).epoch(1))
    for batch in expected:
        check_maps(batch)
    for first, num_workers in ((0, 2), (1, 0)):
        others = loader_of(dataset, num_workers=num_workers).epoch(1, first)
        for batch, other in zip(expected[first:], others, strict=True):
            for name in ("clips", "crops", "flips", "label_maps", "index"):
                assert getattr(batch, name).equal(getattr(other, name))


def test_maps_change_no_draw(folder: Path) -> None:
    view = random_view(area=(0.2, 1.0))
    pairs = (loader_of(dataset_of(folder, view, maps)).epoch(2) for maps in (None, maps_of(folder)))
    for plain, mapped in zip(*pairs, strict=True):
        assert plain.clips.equal(mapped.clips)
        assert plain.crops.equal(mapped.crops)


def test_a_split_and_a_copy_keep_maps_with_their_clips(folder: Path) -> None:
    dataset = dataset_of(folder, random_view(area=(0.2, 1.0)), maps_of(folder))
    batch = next(iter(loader_of(dataset).epoch(0)))
    parts = batch.split(3)
    assert [len(part) for part in parts] == [3, 3, 2]
    for part in parts:
        check_places(part)
        check_maps(part)
    on_meta = batch.to(torch.device("meta"))
    for name in ("crops", "flips", "label_maps"):
        assert torch.cat([getattr(part, name) for part in parts]).equal(getattr(batch, name))
        assert getattr(on_meta, name).device.type == "meta"
    with pytest.raises(ValueError, match=r"ClipBatch\.crops must have 8 rows"):
        ClipBatch(batch.clips, crops=batch.crops[:7])


def test_each_of_several_views_has_its_crop(folder: Path) -> None:
    def spec(size: int, count: int, shares: int | None = None) -> ViewSpec:
        transform = TrainTransform(crop_size=size, area=(0.2, 1.0))
        return ViewSpec(
            augmentation=transform,
            crop_size=size,
            num_frames=1,
            temporal=TEMPORAL,
            count=count,
            shares=shares,
        )

    views = MultiView((spec(32, 2), spec(24, 3), spec(16, 2, shares=0)))
    batch = next(iter(loader_of(dataset_of(folder, views, maps_of(folder))).epoch(0)))
    assert [len(kind.crops) for kind in batch.views] == [8, 12, 8]
    for part in batch.split(2):
        for kind in part.views:
            check_places(kind)
            check_maps(kind)
    assert batch.views[2].crops.equal(batch.crops)
    assert batch.views[2].flips.equal(batch.flips)
    assert not batch.crops[0].equal(batch.crops[1])


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """The same images, where the maps of three are missing, cut off or of another shape."""
    (tmp_path / "train").symlink_to(folder / "train")
    (tmp_path / "list.csv").write_text((folder / "list.csv").read_text())
    for number in range(NUM_IMAGES):
        stored = tmp_path / f"maps/train/class {number % 2}/photo.of.{number}.pt"
        stored.parent.mkdir(parents=True, exist_ok=True)
        if number == 1:
            stored.write_bytes((folder / stored.relative_to(tmp_path)).read_bytes()[:300])
        elif number == 4:
            torch.save(label_map(number)[..., :-1], stored)
        elif number != 2:
            torch.save(label_map(number), stored)
    return tmp_path


def test_an_image_without_a_map_is_lost_with_the_reason(damaged: Path) -> None:
    transform = FixedTransform(crop_size=32, short_side=40)
    view = UniformViews(transform=transform, num_frames=1, sampling_rate=1)
    dataset = dataset_of(damaged, view, maps_of(damaged))
    batches = list(ClipLoader(dataset, 4, shuffle=False).epoch(0))
    reasons = {lost.row: lost.reason for batch in batches for lost in batch.lost}
    assert sorted(reasons) == [1, 2, 4]
    assert "photo.of.1.pt cannot be read" in reasons[1]
    assert "photo.of.2.pt does not exist" in reasons[2]
    assert "must have the shape (2, 5, 6, 9), got (2, 5, 6, 8)" in reasons[4]
    assert [batch.index.tolist() for batch in batches] == [[0, 3], [5, 6, 7]]
    for batch in batches:
        check_maps(batch)


def test_training_replaces_an_image_without_a_map(damaged: Path) -> None:
    dataset = dataset_of(damaged, random_view(), maps_of(damaged), replace_lost=True)
    batches = list(loader_of(dataset).epoch(0))
    assert {lost.row for batch in batches for lost in batch.lost} >= {1, 2, 4}
    for batch in batches:
        assert len(batch) == 8
        assert not {1, 2, 4} & set(batch.index.tolist())
        check_maps(batch)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda x: x[0], r"shape \(2, 5, h, w\), got \(5, 6, 9\)"),
        (lambda x: x[:, :4], r"shape \(2, 5, h, w\), got \(2, 4, 6, 9\)"),
        (lambda x: x[..., :0], r"shape \(2, 5, h, w\), got \(2, 5, 6, 0\)"),
        (lambda x: x.int(), "float16 or float32, got torch.int32"),
        (lambda x: x * torch.tensor([torch.nan, 1]).view(2, 1, 1, 1), "finite"),
        (lambda x: x + 1, r"class numbers in \[0, 6\) \(MODEL\.NUM_CLASSES\), got 6"),
        (lambda x: x + 0.5, r"class numbers in \[0, 6\) .* got \d\.5"),
        (lambda x: {"maps": x}, "must hold a dense tensor"),
        (lambda x: x.to_sparse(), "must hold a dense tensor"),
        (lambda x: Path("no tensor"), "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_map(folder: Path, tmp_path: Path, change, problem: str) -> None:
    torch.save(change(label_map(0)), tmp_path / "a.pt")
    maps = LabelMaps(folder=str(tmp_path), root=str(folder), num_classes=NUM_CLASSES)
    with pytest.raises(DecodeError, match=problem):
        maps.read(str(folder / "a.jpg"))


def test_class_numbers_that_half_precision_rounds_need_single_precision(tmp_path: Path) -> None:
    stored = torch.full((2, 5, 2, 2), 2049.0)
    maps = LabelMaps(folder=str(tmp_path), root="images", num_classes=21841)
    for number, values in enumerate((stored, stored.half() + 2)):
        torch.save(values, tmp_path / f"{number}.pt")
    assert maps.read("images/0.jpg").equal(stored)
    with pytest.raises(DecodeError, match="must be float32"):
        maps.read("images/1.jpg")


def test_an_image_outside_of_the_root_has_no_map(folder: Path) -> None:
    with pytest.raises(DecodeError, match="not inside"):
        maps_of(folder).read(str(folder.parent / "a.jpg"))
