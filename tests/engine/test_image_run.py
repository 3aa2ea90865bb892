"""Images through the whole path, and weights across to video and back, by the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import PRETRAINING, events, make_videos, run

from slowfast_maskfeat.checkpoints import find_checkpoints

IMAGES = {
    "TRAIN.DATASET": "imagenet",
    "TEST.DATASET": "imagenet",
    "DATA.NUM_FRAMES": 1,
    "MVIT.PATCH_2D": True,
    "MVIT.PATCH_KERNEL": [7, 7],
    "MVIT.PATCH_STRIDE": [4, 4],
    "MVIT.PATCH_PADDING": [3, 3],
    "MVIT.POOL_KVQ_KERNEL": [1, 3, 3],
    "MVIT.REL_POS_TEMPORAL": False,
    "SOLVER.MAX_EPOCH": 1,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twelve images of two classes, as ImageNet has them."""
    folder = tmp_path_factory.mktemp("imagenet")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(12):
            place = folder / split / f"n{number % 2:08d}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (9, 11, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((44, 40)).save(place / f"{number}.JPEG")
    return folder


@pytest.fixture(scope="module")
def pretrained(images, tmp_path_factory):
    output = tmp_path_factory.mktemp("pretrained")
    done = run(images, output, PRETRAINING, IMAGES)
    assert done.returncode == 0, done.stderr
    return output


def _start(output: Path, task: str) -> dict[str, object]:
    found = find_checkpoints(output / "checkpoints", task)[-1]
    return {"TRAIN.CHECKPOINT_FILE_PATH": found, "TRAIN.CHECKPOINT_EPOCH_RESET": True}


def test_images_are_pre_trained_fine_tuned_and_tested(images, pretrained, tmp_path):
    (validation,) = events(pretrained, "validation")
    assert validation["num_decoded"] == 12
    assert (pretrained / "predictions.png").read_bytes().startswith(b"\x89PNG")
    done = run(images, tmp_path, IMAGES, _start(pretrained, "ssl"))
    assert done.returncode == 0, done.stderr
    assert "of the backbone" in done.stderr
    (test,) = events(tmp_path, "test")
    assert (test["num_videos_scored"], test["num_videos"]) == (12, 12)
    assert test["num_views"] == test["num_crops"] == 1


@pytest.mark.slow
def test_weights_go_from_images_to_video_and_back(images, pretrained, tmp_path):
    (tmp_path / "videos").mkdir()
    videos = make_videos(tmp_path / "videos")
    short = {"SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": False, "TASK": "video"}
    done = run(videos, tmp_path / "video", short, _start(pretrained, "ssl"))
    assert done.returncode == 0, done.stderr
    assert "patch_embed.proj.weight" in done.stderr  # reshaped, as the report says
    (event,) = events(tmp_path / "video", "epoch")
    assert np.isfinite(event["loss"])
    back = {**IMAGES, "TEST.ENABLE": False}
    done = run(images, tmp_path / "image", back, _start(tmp_path / "video", "video"))
    assert done.returncode == 0, done.stderr
    assert "patch_embed.proj.weight" in done.stderr
    (event,) = events(tmp_path / "image", "epoch")
    assert np.isfinite(event["loss"])
