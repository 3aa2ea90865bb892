"""Images and video go one way: a picture and a video of that one frame give the same.

What the published recipes of images and of videos do otherwise hangs on DATA.NUM_FRAMES, not on
what kind of file a clip comes from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_run
from helpers.videos_on_disk import write_video
from PIL import Image

from slowfast_maskfeat.builders import build_loader, build_model
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.videos import open_video

NUM_FILES = 8
ONE_FRAME = {
    "DATA.NUM_FRAMES": 1,
    "MVIT.PATCH_2D": True,
    "MVIT.PATCH_KERNEL": [7, 7],
    "MVIT.PATCH_STRIDE": [4, 4],
    "MVIT.PATCH_PADDING": [3, 3],
    "MVIT.POOL_KVQ_KERNEL": [1, 3, 3],
    "MVIT.REL_POS_TEMPORAL": False,
    "TEST.NUM_ENSEMBLE_VIEWS": 1,
    "SOLVER.MAX_EPOCH": 1,
}
AUGMENTED = {
    **tiny_run.FINETUNING,
    "AUG.ENABLE": True,
    "AUG.AA_TYPE": "rand-m9-mstd0.5-inc1",
    "AUG.RE_PROB": 0.5,
}
PIXELS = {**tiny_run.PRETRAINING, "MASK.PRED_HOG": False, "MASK.TARGET": "pixels"}
METHODS = {"hog": tiny_run.PRETRAINING, "pixels": PIXELS, "classes": AUGMENTED}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """The same pixels as pictures and as videos of one frame, with lists of the same labels."""
    pictures, videos = (tmp_path_factory.mktemp(name) for name in ("pictures", "videos"))
    generator = np.random.default_rng(0)
    for number in range(NUM_FILES):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        picture = coarse.resize((48, 40), Image.Resampling.BICUBIC)
        picture.save(pictures / f"{number}.png")
        frames = np.asarray(picture)[None]
        write_video(videos / f"{number}.mkv", frames, codec="ffv1", pixel_format="bgr0")
    for folder, ending in ((pictures, "png"), (videos, "mkv")):
        rows = "".join(f"{folder / f'{n}.{ending}'} {n % 3}\n" for n in range(NUM_FILES))
        for split in ("train", "val", "test"):
            (folder / f"{split}.csv").write_text(rows)
    return pictures, videos


def test_both_kinds_of_files_show_the_same(folders):
    pictures, videos = folders
    for number in range(NUM_FILES):
        with (
            open_video(pictures / f"{number}.png") as picture,
            open_video(videos / f"{number}.mkv") as video,
        ):
            assert picture.num_frames == video.num_frames == 1
            assert np.array_equal(picture.frames([0]), video.frames([0]))


@pytest.mark.parametrize(
    ("method", "split"),
    [*((method, split) for method in METHODS for split in ("train", "val")), ("classes", "test")],
)
def test_both_make_the_same_batches(folders, method, split):
    batches = []
    for folder in folders:
        options = {"DATA.PATH_TO_DATA_DIR": folder, "OUTPUT_DIR": folder}
        words = tiny_run.pairs(tiny_run.MODEL, ONE_FRAME, METHODS[method], options)
        batches.append(list(build_loader(load_config([], words), split).epoch(0)))
    first, second = batches
    assert len(first) == len(second) == 2
    for one, other in zip(first, second, strict=True):
        assert one.clips.shape[2] == 1
        assert one.clips.dtype == torch.uint8
        assert one.clips.equal(other.clips)
        assert one.labels.equal(other.labels)
        assert one.index.equal(other.index)
        assert (one.mask is None) == (other.mask is None) == (method == "classes")
        assert one.mask is None or one.mask.equal(other.mask)


@pytest.mark.parametrize("method", METHODS)
def test_both_train_and_test_to_the_same_figures(folders, method, tmp_path):
    found = []
    for folder in folders:
        output = tmp_path / folder.name
        done = tiny_run.run(folder, output, ONE_FRAME, METHODS[method])
        assert done.returncode == 0, done.stderr
        tests = tiny_run.events(output, "test")
        found.append((tiny_run.losses(output), [test["loss"] for test in tests]))
    assert found[0] == found[1]
    losses, tests = found[0]
    assert len(losses) == 2
    assert len(tests) == (method == "classes")


def test_patches_of_a_picture_are_those_of_one_time_step():
    """A kernel over rows and columns, and one over one step in time, rows and columns."""
    flat = tiny_run.pairs(tiny_run.MODEL, ONE_FRAME)
    deep = {
        "MVIT.PATCH_2D": False,
        "MVIT.PATCH_KERNEL": [1, 7, 7],
        "MVIT.PATCH_STRIDE": [1, 4, 4],
        "MVIT.PATCH_PADDING": [0, 3, 3],
    }
    of_pictures = build_model(load_config([], flat)).eval()
    of_clips = build_model(load_config([], [*flat, *tiny_run.pairs(deep)])).eval()
    state = of_pictures.state_dict()
    kernel = state["patch_embed.proj.weight"]
    of_clips.load_state_dict({**state, "patch_embed.proj.weight": kernel[:, :, None]})
    clips = torch.randn(2, 3, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(of_clips(clips), of_pictures(clips))
