"""Number of views of a video in a test: the views that are made, gathered and counted agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import tiny_run
from helpers.videos_on_disk import numbered_frames, write_video
from PIL import Image

from slowfast_maskfeat.builders.data import (
    build_loader,
    build_test_views,
    num_clips_of_tests,
    num_clips_per_video,
)
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.runs.model_info import measure_model
from slowfast_maskfeat.videos import open_video


@pytest.mark.parametrize(
    ("options", "clips", "num_crops"),
    [
        ({}, (5,), 3),
        ({"TEST.NUM_SPATIAL_CROPS": 1}, (5,), 1),
        ({"TEST.NUM_TEMPORAL_CLIPS": [1, 4]}, (1, 4), 3),
        ({"DATA.NUM_FRAMES": 1}, (1,), 1),
        # Single frames of videos, where they are asked for.
        ({"DATA.NUM_FRAMES": 1, "TEST.NUM_TEMPORAL_CLIPS": [1, 4]}, (1, 4), 1),
        (
            {"DATA.NUM_FRAMES": 1, "TEST.DATASET": "imagenet", "TEST.NUM_TEMPORAL_CLIPS": [4]},
            (1,),
            1,
        ),
        ({"DATA.NUM_FRAMES": 1, "TEST.DATASET": "imagenet"}, (1,), 1),
        ({"TEST.NUM_TEMPORAL_CLIPS": [1, 4], "TEST.DATASET": "ava"}, (1,), 1),
    ],
    ids=str,
)
def test_views_are_cropped_gathered_and_counted_alike(options, clips, num_crops, tmp_path):
    default = {"TEST.NUM_ENSEMBLE_VIEWS": 5, "TEST.NUM_SPATIAL_CROPS": 3}
    cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, default, options))
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(20), fps=30)
    assert num_clips_of_tests(cfg) == clips
    assert [num_clips_per_video(cfg, "test", n) for n in clips] == [n * num_crops for n in clips]
    assert num_clips_per_video(cfg, "val") == 1
    pixels = build_test_views(cfg)(open_video(str(path)))
    assert len(pixels) == num_clips_per_video(cfg, "test") == clips[-1] * num_crops
    info = measure_model(cfg)
    assert (info.num_clips, info.num_crops) == (clips, num_crops)


@pytest.fixture
def pictures(tmp_path):
    """The same images as class folders, of which `imagenet` tests val, and in a list."""
    generator = np.random.default_rng(0)
    rows = []
    for label in range(2):
        coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((84, 70), Image.Resampling.BICUBIC)
        for split in ("train", "val", "test"):
            folder = tmp_path / "classes" / split / f"n0144076{label}"
            folder.mkdir(parents=True)
            picture.save(folder / "a.png")
        rows.append(f"{folder / 'a.png'} {label}\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/test.csv").write_text("".join(rows))
    return tmp_path


@pytest.mark.parametrize("views", [1, 10])
def test_images_are_tested_alike_whatever_reads_them(views, pictures):
    """One view each, the center of a short side of 32 / 0.875 pixels."""
    clips = []
    for name, folder in (("imagenet", "classes"), ("folder", "classes"), ("csv", "lists")):
        options = {
            "DATA.NUM_FRAMES": 1,
            "DATA.PATH_TO_DATA_DIR": pictures / folder,
            "TRAIN.DATASET": name,
            "TEST.DATASET": name,
            "TEST.NUM_ENSEMBLE_VIEWS": views,
            "TEST.NUM_SPATIAL_CROPS": 3,
        }
        cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, options))
        loader = build_loader(cfg, "test")
        clips.append(torch.cat([batch.clips for batch in loader.epoch(0)]))
        crops = build_test_views(cfg).transform
        assert (crops.short_side, crops.crop_size, crops.interpolation) == (36, 32, "bicubic")
    assert clips[0].shape == (2, 3, 1, 32, 32)
    assert torch.equal(clips[0], clips[1])
    assert torch.equal(clips[0], clips[2])


def test_images_above_the_limit_of_pixels_are_lost_and_counted(pictures):
    Image.new("RGB", (90, 80)).save(pictures / "large.png")
    rows = (pictures / "lists/test.csv").read_text() + f"{pictures / 'large.png'} 1\n"
    (pictures / "lists/test.csv").write_text(rows)
    lost = {}
    for limit in (90 * 80, 90 * 80 - 1):
        options = {
            "DATA.NUM_FRAMES": 1,
            "DATA.PATH_TO_DATA_DIR": pictures / "lists",
            "DATA.MAX_IMAGE_PIXELS": limit,
            "TEST.DATASET": "csv",
        }
        loader = build_loader(load_config([], tiny_run.pairs(tiny_run.MODEL, options)), "test")
        lost[limit] = [one for batch in loader.epoch(0) for one in batch.lost]
    assert lost[90 * 80] == []
    (large,) = lost[90 * 80 - 1]
    assert large.path == str(pictures / "large.png")
    assert "at most 7,199 pixels (DATA.MAX_IMAGE_PIXELS), got 90x80" in large.reason
