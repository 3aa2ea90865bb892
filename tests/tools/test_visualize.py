"""tools/visualize.py: panels and films of what networks predict."""

from __future__ import annotations

import re
import shutil

import av
import numpy as np
import pytest
import torch
from helpers import tiny_run
from helpers.golden_rule import fill_with_golden_weights
from helpers.load_tool import Done, run_tool
from PIL import Image

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import last_attention
from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.figures import fill_masked, hide_masked
from slowfast_maskfeat.runs.feature_pictures import draw_features, load_feature_network
from slowfast_maskfeat.runs.figures import frame_of_step
from slowfast_maskfeat.tasks.drawings import predicted_drawings

HOG = {**tiny_run.PRETRAINING, "MVIT.DROPPATH_RATE": 0.0}
PIXELS = {**HOG, "MASK.PRED_HOG": False, "MASK.TARGET": "pixels"}


def _checkpoint(path, *options):
    cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, *options))
    torch.manual_seed(0)
    model = build_model(cfg)
    save_checkpoint(path, {"model_state": model.state_dict(), "cfg": cfg.dump()})
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tiny_run.make_videos(tmp_path_factory.mktemp("visualize"), num_videos=2)
    _checkpoint(folder / "hog.pyth", HOG)
    _checkpoint(folder / "pixels.pyth", PIXELS)
    return folder


def _visualize(*words: object, code: int = 0) -> Done:
    done = run_tool("tools/visualize.py", *words)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("options", [HOG, PIXELS], ids=["hog", "pixels"])
def test_predicted_where_masked_and_original_elsewhere(options):
    cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, options))
    torch.manual_seed(0)
    model = build_model(cfg)
    task = build_task(cfg, model)
    clips = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    mask = torch.rand(2, 2, 4, 4) < 0.5
    drawings = predicted_drawings(model, task, ClipBatch(clips, mask=mask), "mine")
    for clip, steps in enumerate(drawings):
        assert len(steps) == model.prediction_grids((4, 32, 32))[-1].t == 2
        for step, drawing in enumerate(steps):
            frame = clips[clip, :, 2 * step].permute(1, 2, 0)
            assert torch.equal(frame_of_step(clips[clip], step, 2), frame)
            assert drawing.name == "mine"
            assert torch.equal(drawing.mask, mask[clip, step])
            if options is HOG:
                hidden = mask[clip, step]  # cells of 8 pixels are the tokens
                same = (drawing.target == drawing.prediction).flatten(0, 1).all(0)
                assert torch.equal(same, ~hidden)
                continue
            assert torch.equal(drawing.target, frame)  # brought back exactly
            hidden = mask[clip, step].repeat_interleave(8, 0).repeat_interleave(8, 1).numpy()
            filled = fill_masked(frame, drawing.mask, drawing.prediction)
            assert np.array_equal(filled[~hidden], frame.numpy()[~hidden])
            assert np.array_equal(filled[hidden], drawing.prediction.numpy()[hidden])
            assert not np.array_equal(filled[hidden], frame.numpy()[hidden])
            seen = hide_masked(frame, drawing.mask)
            assert np.array_equal(seen[~hidden], frame.numpy()[~hidden])
            assert len(np.unique(seen[hidden], axis=0)) == 1


def test_a_mask_finer_than_what_is_predicted_is_not_drawn():
    cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, HOG))
    model = build_model(cfg)
    task = build_task(cfg, model)
    clips = torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8)
    batch = ClipBatch(clips, mask=torch.rand(1, 2, 8, 8) < 0.5)
    with pytest.raises(ValueError, match=r"must divide the 2x4x4 grid .* got 2x8x8"):
        predicted_drawings(model, task, batch, "mine")


def test_two_networks_side_by_side_and_a_film(folder, tmp_path):
    one, both = tmp_path / "one.png", tmp_path / "new" / "both.png"
    videos = [folder / "0.mp4", folder / "1.mp4"]
    words = ["--checkpoint", folder / "hog.pyth"]
    done = _visualize(*words, "--input", *videos, "--output", one)
    assert done.stdout.splitlines() == [f"wrote {one}", f"wrote {one.with_suffix('.gif')}"]
    words = [*words, folder / "pixels.pyth", "--name", "HOG", "pixels"]
    done = _visualize(*words, "--input", *videos, "--output", both)
    assert done.stdout.splitlines() == [f"wrote {both}", f"wrote {both.with_suffix('.gif')}"]
    narrow, wide = Image.open(one), Image.open(both)
    assert narrow.height == wide.height
    assert 1.35 < wide.width / narrow.width < 1.5  # six columns instead of four
    film = Image.open(both.with_suffix(".gif"))
    assert film.n_frames == 2  # time steps


def test_a_film_as_mp4(folder, tmp_path):
    output = tmp_path / "x.png"
    words = ["--checkpoint", folder / "hog.pyth", "--input", folder / "0.mp4", "--output", output]
    _visualize(*words, "--film", ".mp4")
    with av.open(str(output.with_suffix(".mp4"))) as film:
        assert sum(1 for _ in film.decode(video=0)) == 2


def test_a_list_names_inputs_and_the_seed_the_masks(folder, tmp_path):
    """A list is read as in training, with its keys: paths may hold blanks, folders stand before."""
    (folder / "some.csv").write_text(f"{folder / '0.mp4'} 0\n")
    shutil.copy(folder / "0.mp4", folder / "with blanks.mp4")
    (folder / "blanks.csv").write_text("path,label\nwith blanks.mp4,0\n")
    keys = ["--opts", "DATA.PATH_LABEL_SEPARATOR", ",", "DATA.PATH_PREFIX", folder]
    base = ["--checkpoint", folder / "hog.pyth", "--input"]
    for name, given, words in (
        ("a", "0.mp4", []),
        ("b", "some.csv", []),
        ("c", "0.mp4", ["--seed", 1]),
        ("d", "with blanks.mp4", []),
        ("e", "blanks.csv", keys),
    ):
        output = tmp_path / f"{name}.png"
        _visualize(*base, folder / given, "--output", output, *words)
    pictures = {name: np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abcde"}
    assert np.array_equal(pictures["a"], pictures["b"])
    assert not np.array_equal(pictures["a"], pictures["c"])
    assert np.array_equal(pictures["d"], pictures["e"])


def test_a_film_keeps_its_form_whatever_the_masks_of_a_moment(folder, tmp_path):
    """Networks with masks of their own see the same where both hide all, or nothing."""
    longer = {**HOG, "DATA.NUM_FRAMES": 8, "DATA.SAMPLING_RATE": 1}
    _checkpoint(tmp_path / "longer.pyth", longer)
    words = ["--checkpoint", folder / "hog.pyth", tmp_path / "longer.pyth"]
    output = tmp_path / "x.png"
    words += ["--input", folder / "0.mp4", "--output", output, "--film", ".mp4"]
    for seed in range(3):
        _visualize(*words, "--seed", seed, "--force")


def test_time_steps_with_masked_tokens_are_drawn_and_named(folder, tmp_path):
    """Of six time steps, frame masks hide three, a small cube one, tubes all."""
    long = {"DATA.NUM_FRAMES": 12, "DATA.SAMPLING_RATE": 1, "MVIT.REL_POS_TEMPORAL": False}
    _checkpoint(tmp_path / "long.pyth", HOG, long)
    words = ["--checkpoint", tmp_path / "long.pyth", "--input", folder / "0.mp4"]
    heights = {}
    for mask, num_masked, num_drawn in (
        (["AUG.MASK_FRAMES", True, "AUG.MASK_RATIO", 0.5], 3, 3),
        (["AUG.MASK_TUBE", True], 6, 4),
        (["AUG.MASK_RATIO", 0.02], 1, 1),
    ):
        output = tmp_path / f"{num_masked}.png"
        done = _visualize(*words, "--output", output, "--opts", *mask)
        (line,) = done.stderr.splitlines()
        times, _, share = line.partition("; ")
        assert share == f"tokens are masked in {num_masked} of 6 time steps"
        assert re.fullmatch(rf"0.mp4: drawn at (\d\.\d\d s(, |$)){{{num_drawn}}}", times)
        heights[num_drawn] = Image.open(output).height
    assert heights[4] - heights[3] == pytest.approx((heights[3] - heights[1]) / 2, abs=2)


def test_a_list_longer_than_a_panel_is_told_at_its_first(folder, tmp_path):
    (tmp_path / "long.csv").write_text(f"{folder / '0.mp4'} 0\n" * 91)
    words = ["--checkpoint", folder / "hog.pyth", "--input", tmp_path / "long.csv"]
    done = _visualize(*words, "--output", tmp_path / "x.png", code=2)
    assert "about 182 for 91 inputs" in done.stderr
    assert not (tmp_path / "x.png").exists()


def test_what_is_wrong_is_one_line(folder, tmp_path):
    classifier = _checkpoint(tmp_path / "c.pyth", {"MODEL.NUM_CLASSES": 3})
    video, png, broken = folder / "0.mp4", tmp_path / "x.png", tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, part in (
        (
            ["--checkpoint", classifier, "--input", video, "--output", png],
            "c.pyth must be a checkpoint of masked pre-training",
        ),
        (["--checkpoint", folder / "hog.pyth", "--input", video, "--output", "x.jpg"], ".png"),
        (
            [
                "--checkpoint",
                folder / "hog.pyth",
                "--name",
                "a",
                "b",
                "--input",
                video,
                "--output",
                png,
            ],
            "--name must have 1 names, got 2",
        ),
        (["--checkpoint", folder / "hog.pyth", "--input", "no.mp4", "--output", png], "no.mp4"),
        (["--checkpoint", folder / "hog.pyth", "--input", "no.csv", "--output", png], "no.csv"),
        (["--checkpoint", folder / "hog.pyth", "--input", broken, "--output", png], "broken.jpg"),
        (["--checkpoint", folder / "hog.pyth", "--input", video, "--output", "x.gif"], "--film"),
        (["--checkpoint", folder / "hog.pyth", "--input", empty, "--output", png], "no videos or"),
        (["--checkpoint", folder / "hog.pyth", "--input", classifier, "--output", png], "binary"),
    ):
        (line,) = _visualize(*words, code=2).stderr.splitlines()
        assert line.startswith("error: ")
        assert part in line


IMAGE_VIT = {
    "DATA.NUM_FRAMES": 1,
    "MVIT.PATCH_2D": True,
    "MVIT.PATCH_KERNEL": [8, 8],
    "MVIT.PATCH_STRIDE": [8, 8],
    "MVIT.PATCH_PADDING": [0, 0],
    "MVIT.POOL_Q_STRIDE": [],
    "MVIT.POOL_KVQ_KERNEL": None,
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": None,
    "MVIT.RESIDUAL_POOLING": False,
    "MVIT.REL_POS_SPATIAL": False,
    "MVIT.REL_POS_TEMPORAL": False,
    "MVIT.USE_ABS_POS": True,
    "MVIT.NUM_HEADS": 2,
    "MODEL.NUM_CLASSES": 3,
}


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, IMAGE_VIT))
    model = fill_with_golden_weights(build_model(cfg))
    save_checkpoint(folder / "vit.pyth", {"model_state": model.state_dict(), "cfg": cfg.dump()})
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[12:28, 12:28] = (250, 60, 20)
    Image.fromarray(pixels).save(folder / "square.png")
    return folder


def _rows(checkpoint, path, what, **options):
    network = load_feature_network(
        str(checkpoint), device="cpu", config_file=None, pairs=tiny_run.pairs(options)
    )
    return network, draw_features(network, str(path), what=what, name="")


def test_attention_of_the_class_token_for_each_head(image_folder):
    network, (row,) = _rows(image_folder / "vit.pyth", image_folder / "square.png", "attention")
    assert [picture.name for picture in row.pictures] == [
        "class token, head 1",
        "class token, head 2",
    ]
    pixels = torch.tensor(np.asarray(row.frame)).permute(2, 0, 1)[None, :, None]
    clips = normalize(pixels, network.cfg.DATA.MEAN, network.cfg.DATA.STD)
    (heads,) = last_attention(network.model, clips, of_class_token=True)
    assert heads.shape == (2, 1, 4, 4)
    for picture, attention in zip(row.pictures, heads[:, 0], strict=True):
        drawn = np.asarray(picture.pixels, float).sum(axis=2).reshape(4, 8, 4, 8).mean(axis=(1, 3))
        assert np.corrcoef(drawn.ravel(), attention.flatten())[0, 1] > 0.8


def test_mean_attention_where_no_loss_reaches_the_class_token(folder):
    _, rows = _rows(folder / "hog.pyth", folder / "0.mp4", "attention")
    assert len(rows) == 2  # time steps
    assert [picture.name for picture in rows[0].pictures] == ["mean token, head 1"]
    assert rows[0].name != rows[1].name


def test_components_have_one_color_for_each_token(image_folder):
    _, (row,) = _rows(image_folder / "vit.pyth", image_folder / "square.png", "pca")
    (picture,) = row.pictures
    tokens = np.asarray(picture.pixels).reshape(4, 8, 4, 8, 3)
    assert (tokens == tokens[:, :1, :, :1]).all()
    colors = tokens[:, 0, :, 0].astype(int)
    # The corners show the same black; the square in the middle is another thing.
    assert np.abs(colors[1:3, 1:3].mean(axis=(0, 1)) - colors[0, 0]).sum() > 100


@pytest.mark.parametrize("what", ["attention", "pca"])
def test_panel_and_film_of_a_video(folder, tmp_path, what):
    output = tmp_path / "x.png"
    words = ["--what", what, "--checkpoint", folder / "hog.pyth", "--output", output, "--input"]
    done = _visualize(*words, folder / "0.mp4")
    assert done.stdout.splitlines() == [f"wrote {output}", f"wrote {output.with_suffix('.gif')}"]
    assert Image.open(output.with_suffix(".gif")).n_frames == 2
    assert "masked" not in done.stderr
    words = [*words[:4], folder / "pixels.pyth", *words[4:], folder / "0.mp4", "--force"]
    done = _visualize(*words, code=2)
    assert f"--checkpoint must be one with --what {what}" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("what", ["predictions", "attention", "pca"])
def test_time_steps_of_an_image_are_numbered(folder, image_folder, tmp_path, what):
    words = ["--what", what, "--checkpoint", folder / "hog.pyth", "--output", tmp_path / "x.png"]
    square = image_folder / "square.png"
    done = _visualize(*words, "--input", square)
    assert "square.png: drawn at step 1 of 2, step 2 of 2; " in done.stderr
    if what != "predictions":
        _, rows = _rows(folder / "hog.pyth", square, what)
        assert [row.name for row in rows] == ["square.png\nstep 1 of 2", "square.png\nstep 2 of 2"]
        (row,) = _rows(image_folder / "vit.pyth", square, what)[1]
        assert row.name == "square.png"
