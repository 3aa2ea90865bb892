"""How many views of a video a test has: what is cut, what is gathered and what is counted agree."""

from __future__ import annotations

import pytest
import tiny_run
from videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.build.complexity import measure_model
from slowfast_maskfeat.build.data import (
    build_test_views,
    num_clips_of_tests,
    num_clips_per_video,
)
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.videos import open_video


@pytest.mark.parametrize(
    ("options", "clips", "num_crops"),
    [
        ({}, (5,), 3),
        ({"TEST.NUM_SPATIAL_CROPS": 1}, (5,), 1),
        ({"TEST.NUM_TEMPORAL_CLIPS": [1, 4]}, (1, 4), 3),
        ({"DATA.NUM_FRAMES": 1}, (5,), 3),
        ({"DATA.NUM_FRAMES": 1, "TEST.DATASET": "imagenet"}, (1,), 1),
        ({"TEST.NUM_TEMPORAL_CLIPS": [1, 4], "DETECTION.ENABLE": True}, (1,), 1),
    ],
    ids=str,
)
def test_views_are_cut_gathered_and_counted_alike(options, clips, num_crops, tmp_path):
    default = {"TEST.NUM_ENSEMBLE_VIEWS": 5, "TEST.NUM_SPATIAL_CROPS": 3}
    cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, default, options))
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(20), fps=30)
    assert num_clips_of_tests(cfg) == clips
    assert [num_clips_per_video(cfg, "test", n) for n in clips] == [n * num_crops for n in clips]
    assert num_clips_per_video(cfg, "val") == 1
    cut = build_test_views(cfg)(open_video(str(path)))
    assert len(cut) == num_clips_per_video(cfg, "test")
    info = measure_model(cfg)
    assert (info.num_clips, info.num_crops) == (clips, num_crops)
