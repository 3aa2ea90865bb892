"""tools/visualize.py: panels and films of what networks predict."""

from __future__ import annotations

import av
import numpy as np
import pytest
import tiny_run
import torch
from load_tool import load_tool
from PIL import Image

from slowfast_maskfeat.backbones import resize_mask
from slowfast_maskfeat.build import build_model, build_task
from slowfast_maskfeat.build.draw import panel_rows, predicted_drawings
from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.pictures import fill_masked, hide_masked

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


def _visualize(*words):
    return load_tool("tools/visualize.py").main([str(word) for word in words])


@pytest.mark.parametrize("options", [HOG, PIXELS], ids=["hog", "pixels"])
def test_predicted_where_masked_and_original_elsewhere(options):
    cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, options))
    torch.manual_seed(0)
    model, task = build_model(cfg), build_task(cfg)
    clips = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    mask = torch.rand(2, 2, 4, 4) < 0.5
    batch = ClipBatch(clips, mask=mask)
    drawings = predicted_drawings(model, task, batch, "mine")
    grid = model.prediction_grids((4, 32, 32))[-1]
    rows = panel_rows(clips, resize_mask(mask, grid), [drawings])
    for clip, steps in enumerate(rows):
        assert len(steps) == grid.t == 2
        for step, row in enumerate(steps):
            frame = clips[clip, :, 2 * step].permute(1, 2, 0)
            assert torch.equal(row.frame, frame)
            (drawing,) = row.drawings
            assert drawing.name == "mine"
            if options is HOG:
                hidden = mask[clip, step]  # cells of 8 pixels are the tokens
                same = (drawing.target == drawing.prediction).flatten(0, 1).all(0)
                assert torch.equal(same, ~hidden)
                continue
            assert torch.equal(drawing.target, frame)  # brought back exactly
            hidden = mask[clip, step].repeat_interleave(8, 0).repeat_interleave(8, 1).numpy()
            filled = fill_masked(row.frame, row.mask, drawing.prediction)
            assert np.array_equal(filled[~hidden], frame.numpy()[~hidden])
            assert np.array_equal(filled[hidden], drawing.prediction.numpy()[hidden])
            assert not np.array_equal(filled[hidden], frame.numpy()[hidden])
            seen = hide_masked(row.frame, row.mask)
            assert np.array_equal(seen[~hidden], frame.numpy()[~hidden])
            assert len(np.unique(seen[hidden], axis=0)) == 1


def test_two_networks_side_by_side_and_a_film(folder, tmp_path, capsys):
    one, both = tmp_path / "one.png", tmp_path / "new" / "both.png"
    videos = [folder / "0.mp4", folder / "1.mp4"]
    assert _visualize("--checkpoint", folder / "hog.pyth", "--input", *videos, "--output", one) == 0
    words = ["--checkpoint", folder / "hog.pyth", folder / "pixels.pyth", "--name", "HOG", "pixels"]
    assert _visualize(*words, "--input", *videos, "--output", both) == 0
    assert capsys.readouterr().out.split() == [
        *(str(one), str(one.with_suffix(".gif"))),
        *(str(both), str(both.with_suffix(".gif"))),
    ]
    narrow, wide = Image.open(one), Image.open(both)
    assert narrow.height == wide.height
    assert 1.35 < wide.width / narrow.width < 1.5  # six columns instead of four
    film = Image.open(both.with_suffix(".gif"))
    assert film.n_frames == 2  # time steps


def test_a_film_as_mp4(folder, tmp_path):
    output = tmp_path / "x.png"
    words = ["--checkpoint", folder / "hog.pyth", "--input", folder / "0.mp4", "--output", output]
    assert _visualize(*words, "--film", ".mp4") == 0
    with av.open(str(output.with_suffix(".mp4"))) as film:
        assert sum(1 for _ in film.decode(video=0)) == 2


def test_a_list_names_inputs_and_the_seed_the_masks(folder, tmp_path):
    (folder / "some.csv").write_text(f"{folder / '0.mp4'} 0\n")
    base = ["--checkpoint", folder / "hog.pyth", "--input"]
    for name, given, seed in (("a", "0.mp4", 0), ("b", "some.csv", 0), ("c", "0.mp4", 1)):
        output = tmp_path / f"{name}.png"
        assert _visualize(*base, folder / given, "--output", output, "--seed", seed) == 0
    pictures = {name: np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abc"}
    assert np.array_equal(pictures["a"], pictures["b"])
    assert not np.array_equal(pictures["a"], pictures["c"])


def test_what_is_wrong_is_one_line(folder, tmp_path, capsys):
    classifier = _checkpoint(tmp_path / "c.pyth", {"MODEL.NUM_CLASSES": 3})
    _hog, video, png = folder / "hog.pyth", folder / "0.mp4", tmp_path / "x.png"
    for words, part in (
        (["--checkpoint", classifier, "--input", video, "--output", png], "no pre-training"),
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
            "2 names for 1",
        ),
        (["--checkpoint", folder / "hog.pyth", "--input", "no.mp4", "--output", png], "no.mp4"),
    ):
        assert _visualize(*words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert part in line
