"""A loader with several kinds of views: in training and validation, masks, erasing, errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.tiny_run import MODEL, PRETRAINING, pairs
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.builders import DataSource
from slowfast_maskfeat.builders.augment import build_batch_transform, build_device_crops
from slowfast_maskfeat.builders.data import build_feature_loader, build_loader
from slowfast_maskfeat.builders.methods import METHODS, MethodKey
from slowfast_maskfeat.builders.train_view import build_random_frames, build_train_transform
from slowfast_maskfeat.clips import ViewSpec
from slowfast_maskfeat.clips.dataset import SampleKey
from slowfast_maskfeat.config import load_config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for number in range(6):
        write_video(folder / f"{number}.mp4", numbered_frames(20 + number), fps=30)
    for split in ("train", "val", "test"):
        rows = "".join(f"{folder}/{number}.mp4 {number % 2}\n" for number in range(6))
        (folder / f"{split}.csv").write_text(rows)
    return folder


@pytest.fixture
def with_views(monkeypatch):
    """Gives the method of a configuration several kinds of views, and a loader of them."""

    def load(cfg, split, specs, samplers=None, build=build_loader):
        key = MethodKey(cfg.MODEL.MODEL_NAME, cfg.MASK.ENABLE, cfg.DETECTION.ENABLE)
        row = replace(METHODS[key], views=lambda _: specs, masks=lambda _: samplers or ())
        monkeypatch.setitem(METHODS, key, row)
        return build(cfg, split, data=DataSource(cfg))

    return load


def _config(data, *options):
    return load_config([], pairs(MODEL, {"DATA.PATH_TO_DATA_DIR": str(data)}, *options))


def _specs(cfg):
    transform = replace(build_train_transform(cfg), area=(0.3, 1.0))
    frames = build_random_frames(cfg)
    small = replace(transform, crop_size=16, interpolation="lanczos")
    options = {"num_frames": 4, "temporal": frames, "count": 2}
    return (
        ViewSpec(augmentation=transform, crop_size=32, **options),
        ViewSpec(augmentation=small, crop_size=16, shares=0, **options),
    )


def _mask(generator):
    return torch.from_numpy(generator.random((2, 4, 4)) < 0.5)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_and_validation_have_all_kinds(data, split, num_workers, with_views):
    """Random erasing is of one view a sample: with several there is none."""
    options = {"DATA_LOADER.NUM_WORKERS": num_workers, "AUG.ENABLE": True, "AUG.RE_PROB": 1.0}
    cfg = _config(data, PRETRAINING, options)
    loader = with_views(cfg, split, _specs(cfg), (_mask, None))
    (batch, *_) = loader.epoch(1)
    first, second = batch.views
    assert len(batch) == 4
    assert (first.clips.shape, second.clips.shape) == ((8, 3, 4, 32, 32), (8, 3, 4, 16, 16))
    assert first.mask.shape == (8, 2, 4, 4)
    assert second.mask is None
    assert batch.erase is None


def test_validation_draws_by_seed_and_row_alone(data, with_views):
    cfg = _config(data)
    specs = _specs(cfg)
    first, later = (list(with_views(cfg, "val", specs).epoch(epoch)) for epoch in (0, 5))
    rows = []
    for batch, other in zip(first, later, strict=True):
        for kind, same in zip(batch.views, other.views, strict=True):
            assert kind.clips.equal(same.clips)
        rows += batch.index[::2].tolist()
    assert rows == list(range(6))
    training = with_views(cfg, "train", specs).dataset
    validation = with_views(cfg, "val", specs).dataset
    key = SampleKey(0, 3)
    assert training[key].further[0].clips.equal(validation[key].further[0].clips)


def test_tests_and_features_have_the_views_of_evaluation(data, with_views):
    cfg = _config(data, PRETRAINING)
    for split, build in (("test", build_loader), ("train", build_feature_loader)):
        loader = with_views(cfg, split, _specs(cfg), (_mask,) * 2, build)
        (batch, *_) = loader.epoch(0)
        assert not batch.has_several_views
        assert batch.mask is None


def test_one_kind_with_one_view_is_the_loader_without_specs(data, with_views):
    cfg = _config(data, {"AUG.ENABLE": True, "AUG.AA_TYPE": "", "AUG.RE_PROB": 1.0})
    transform, frames = build_train_transform(cfg), build_random_frames(cfg)
    spec = ViewSpec(augmentation=transform, crop_size=32, num_frames=4, temporal=frames)
    plain = list(build_loader(cfg, "train").epoch(1))
    for batch, expected in zip(with_views(cfg, "train", [spec]).epoch(1), plain, strict=True):
        assert batch.clips.equal(expected.clips)
        assert batch.erase.equal(expected.erase)
        assert batch.labels.equal(expected.labels)


def test_the_device_crops_all_kinds_of_the_training_alone(data, with_views):
    """By the plans and kernels of each kind; batches of a validation are cropped by workers."""
    cfg = _config(data, {"AUG.ON_DEVICE": True}, {"DATA.REVERSE_INPUT_CHANNEL": True})
    specs = _specs(cfg)
    (batch, *_) = with_views(cfg, "train", specs).epoch(0)
    crops = build_device_crops(cfg)
    assert [(crop.crop_size, crop.interpolation) for crop in crops] == [
        (32, "bilinear"),
        (16, "lanczos"),
    ]
    assert all(crop.reverse_channels for crop in crops)
    assert all(kind.plans is not None for kind in batch.views)
    cropped = build_batch_transform(cfg)(batch, torch.device("cpu"), epoch=0, step=0)
    plain = with_views(_config(data, {"DATA.REVERSE_INPUT_CHANNEL": True}), "train", specs)
    for kind, expected in zip(cropped.views, next(plain.epoch(0)).views, strict=True):
        assert (kind.clips.int() - expected.clips.int()).abs().max() <= 2
    for kind in next(with_views(cfg, "val", specs).epoch(0)).views:
        assert kind.plans is None
