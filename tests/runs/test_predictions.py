"""Networks side by side: the same frames and masks where they can be, and what is drawn of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from helpers import tiny_run
from helpers.videos_on_disk import numbered_frames, write_video
from PIL import Image

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.figures import (
    HOGDrawing,
    PixelDrawing,
    fill_masked,
    hide_masked,
    panel_columns,
)
from slowfast_maskfeat.runs.predictions import compare, load_networks

HOG = {**tiny_run.PRETRAINING, "MVIT.DROPPATH_RATE": 0.0}  # predicts 2x4x4 tokens


def mae(*patch: int, **changes: object) -> dict[str, object]:
    """MAE whose tokens are patches of (frames, rows, columns)."""
    return {
        **HOG,
        "MASK.PRED_HOG": False,
        "MASK.TARGET": "pixels",
        "MASK.MAE_ON": True,
        "MASK.MAE_RND_MASK": True,
        "MASK.HEAD_TYPE": "separate_xformer",
        "MASK.DECODER_DEPTH": 1,
        "MASK.DECODER_EMBED_DIM": 8,
        "MASK.DECODER_NUM_HEADS": 1,
        "AUG.MASK_RATIO": 0.5,
        "MVIT.PATCH_KERNEL": list(patch),
        "MVIT.PATCH_STRIDE": list(patch),
        "MVIT.PATCH_PADDING": [0, 0, 0],
        "MVIT.POOL_Q_STRIDE": [],
        "MVIT.POOL_KVQ_KERNEL": None,
        "MVIT.POOL_KV_STRIDE_ADAPTIVE": None,
        "MVIT.USE_ABS_POS": True,
        "MVIT.SEP_POS_EMBED": True,
        "MVIT.REL_POS_SPATIAL": False,
        "MVIT.REL_POS_TEMPORAL": False,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }


OF_IMAGES = {"DATA__NUM_FRAMES": 1, "MVIT__PATCH_2D": True, "MVIT__SEP_POS_EMBED": False}
IMAGE_MAE = {
    **mae(1, 8, 8, **OF_IMAGES),
    "MVIT.PATCH_KERNEL": [8, 8],
    "MVIT.PATCH_STRIDE": [8, 8],
    "MVIT.PATCH_PADDING": [0, 0],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("side_by_side")
    write_video(folder / "x.mp4", numbered_frames(40), fps=30)
    colors = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(colors).resize((64, 48), Image.Resampling.BICUBIC)
    picture.save(folder / "x.jpg", quality=95)
    picture.convert("L").save(folder / "gray.jpg")
    picture.putalpha(128)
    picture.save(folder / "alpha.png")
    return folder


@pytest.fixture
def load(tmp_path):
    """Networks of options, initialized with a seed."""

    def call(*of_networks, silent: bool = False, pairs=(), names=()):
        paths = []
        for number, options in enumerate(of_networks):
            cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, options))
            torch.manual_seed(number)
            model = build_model(cfg)
            if silent:  # answers 0
                for weight in model.pred_head.projections.parameters():
                    torch.nn.init.zeros_(weight)
            path = tmp_path / f"{number}.pyth"
            save_checkpoint(path, {"model_state": model.state_dict(), "cfg": cfg.dump()})
            paths.append(str(path))
        return load_networks(paths, names, device="cpu", config_file=None, pairs=pairs)

    return call


def _pixels(mask, size: int = 32) -> np.ndarray:
    """(h, w) -> (H, W)."""
    cells = np.asarray(mask)
    return cells.repeat(size // cells.shape[0], 0).repeat(size // cells.shape[1], 1)


def _kinds(rows) -> list[tuple[str, int]]:
    return [(column.kind, column.network) for column in panel_columns(rows)]


ONE_INPUT = [("frame", 0), ("masked", 0), ("target", 0), ("predicted", 0)]
SAME_INPUT = [*ONE_INPUT, ("target", 1), ("predicted", 1)]
OWN_INPUTS = [*ONE_INPUT, ("masked", 1), ("target", 1), ("predicted", 1)]


@pytest.mark.parametrize("patch", [(2, 4, 4), (2, 8, 8), (1, 8, 8)], ids=str)
@pytest.mark.parametrize("hog_first", [True, False])
def test_finer_tokens_take_the_mask_of_the_coarser(folder, load, patch, hog_first):
    options = [HOG, mae(*patch)]
    networks = load(*(options if hog_first else options[::-1]))
    rows = compare(networks, str(folder / "x.mp4"), (0,))
    # Moments that both predict: the steps of the MViT, though the MAE may have twice as many.
    first, second = (float(row.name.split("\n")[1].removesuffix(" s")) for row in rows)
    assert second - first == pytest.approx(4 / 30, abs=0.011)  # two frames, which are two apart
    assert not torch.equal(rows[0].frame, rows[1].frame)
    for row in rows:
        kinds = [type(drawing) for drawing in row.drawings]
        assert kinds == ([HOGDrawing, PixelDrawing] if hog_first else [PixelDrawing, HOGDrawing])
        one, other = (_pixels(drawing.mask) for drawing in row.drawings)
        assert np.array_equal(one, other)
        pixels = row.drawings[int(hog_first)]
        assert torch.equal(pixels.target, row.frame)  # the target is of the frame beside it
    assert _kinds(rows) == SAME_INPUT


def test_fewer_time_steps_make_the_mask_and_the_moments(folder, load):
    rows = compare(load(HOG, mae(4, 8, 8)), str(folder / "x.mp4"), (0,))
    assert len(rows) == 1
    (row,) = rows
    assert np.array_equal(*(_pixels(drawing.mask) for drawing in row.drawings))
    assert torch.equal(row.drawings[1].target, row.frame)


def test_grids_that_do_not_divide_have_masks_of_their_own(folder, load):
    networks = load(HOG, mae(1, 16, 16))
    rows = compare(networks, str(folder / "x.mp4"), (0,))
    assert len(rows) == 2
    assert _kinds(rows) == OWN_INPUTS
    titles = [column.title for column in panel_columns(rows)]
    assert titles[1] == "masked input of HOG"
    assert titles[4] == "masked input of pixels"
    assert [row.drawings[0].mask.shape for row in rows] == [(4, 4)] * 2
    masks = torch.stack([row.drawings[1].mask for row in rows])
    assert masks.shape == (2, 2, 2)
    for row in rows:
        assert torch.equal(row.drawings[1].target, row.frame)


def test_clips_of_other_lengths_meet_at_the_same_frames(folder, load):
    longer = mae(2, 8, 8, DATA__NUM_FRAMES=8, DATA__SAMPLING_RATE=1)
    rows = compare(load(HOG, longer), str(folder / "x.mp4"), (0,))
    assert rows
    assert _kinds(rows) == OWN_INPUTS
    for row in rows:
        assert torch.equal(row.drawings[1].target, row.frame)


def test_what_has_no_frame_in_common_is_told(folder, load):
    other = mae(2, 8, 8, DATA__SAMPLING_RATE=3)
    message = r"no frame that all networks predict: .* DATA\.SAMPLING_RATE \(2, 3\)"
    with pytest.raises(ValueError, match=message):
        compare(load(HOG, other), str(folder / "x.mp4"), (0,))


def test_other_crops_are_told_and_a_key_makes_them_equal(folder, load):
    larger = {**HOG, "DATA.TRAIN_CROP_SIZE": 48, "DATA.TRAIN_JITTER_SCALES": [48, 48]}
    message = r"DATA\.TRAIN_CROP_SIZE must .* got 32 \(.*0\.pyth\) and 48 \(.*1\.pyth\)"
    with pytest.raises(ValueError, match=message):
        load(HOG, larger)
    networks = load(HOG, larger, pairs=["DATA.TRAIN_CROP_SIZE", "32"])
    assert [network.name for network in networks] == ["HOG 1", "HOG 2"]
    rows = compare(networks, str(folder / "x.mp4"), (0,))
    # The zoom is the first one's; what both have to predict stands there once.
    assert _kinds(rows) == [*ONE_INPUT, ("predicted", 1)]


@pytest.mark.parametrize("name", ["x.jpg", "gray.jpg", "alpha.png"])
def test_images_of_a_mae(folder, load, name):
    """A prediction of 0 is the mean of the patch itself, of all its colors."""
    (row,) = compare(load(IMAGE_MAE, silent=True), str(folder / name), (0,))
    assert row.name == name
    (drawing,) = row.drawings
    hidden = _pixels(drawing.mask)
    assert 0 < hidden.mean() < 1
    frame = row.frame.numpy()
    patches = frame.astype(float).reshape(4, 8, 4, 8, 3).mean((1, 3, 4))
    difference = drawing.prediction.numpy() - _pixels(patches)[..., None]
    assert np.abs(difference[hidden]).max() <= 0.51
    assert np.array_equal(drawing.target, frame)
    # What is drawn: gray where masked; the prediction there, and the frame elsewhere.
    seen = hide_masked(frame, drawing.mask)
    assert len(np.unique(seen[hidden], axis=0)) == 1
    assert np.array_equal(seen[~hidden], frame[~hidden])
    predicted = fill_masked(frame, drawing.mask, drawing.prediction)
    assert np.array_equal(predicted[~hidden], frame[~hidden])
    assert np.array_equal(predicted[hidden], drawing.prediction.numpy()[hidden])


def test_the_time_steps_of_an_image_are_told_apart(folder, load):
    rows = compare(load(HOG), str(folder / "x.jpg"), (0,))
    assert [row.name for row in rows] == ["x.jpg\nstep 1 of 2", "x.jpg\nstep 2 of 2"]
    rows = compare(load(HOG), str(folder / "x.mp4"), (0,), name="mine")
    assert all(re.fullmatch(r"mine\n\d\.\d\d s", row.name) for row in rows)


def test_a_network_of_videos_beside_one_of_images(folder, load):
    video = load(HOG, IMAGE_MAE)
    (row,) = compare(video, str(folder / "x.jpg"), (0,))
    assert row.name == "x.jpg\nstep 1 of 2"
    assert torch.equal(row.drawings[1].target, row.frame)
    assert row.drawings[0].mask.shape == row.drawings[1].mask.shape == (4, 4)


def test_blue_first_is_drawn_red_first(folder, load):
    turned = {**IMAGE_MAE, "DATA.REVERSE_INPUT_CHANNEL": True}
    (straight,) = compare(load(IMAGE_MAE), str(folder / "x.jpg"), (0,))
    (row,) = compare(load(turned), str(folder / "x.jpg"), (0,))
    assert torch.equal(row.frame, straight.frame)
    assert torch.equal(row.drawings[0].target, row.frame)
    # The network itself sees blue first, so it predicts something else.
    assert not torch.equal(row.drawings[0].prediction, straight.drawings[0].prediction)


def test_what_is_no_pre_training_and_names_that_are_too_many(load):
    with pytest.raises(ValueError, match=r"0\.pyth must be a checkpoint of masked pre-training"):
        load({"MODEL.NUM_CLASSES": 3})
    with pytest.raises(ValueError, match=r"--name must have 1 names, got 2"):
        load(HOG, names=("a", "b"))
