"""What a list's videos are like, in numbers and as a picture."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from helpers import dataset_scripts
from helpers.broken_videos import write_list
from helpers.videos_on_disk import numbered_frames, write_video
from PIL import Image

from slowfast_maskfeat.figures import histograms


def test_numbers_and_a_picture_are_written(tmp_path):
    write_video(tmp_path / "a.mp4", numbered_frames(30, 48, 64), fps=30)
    write_video(tmp_path / "b.mp4", numbered_frames(50, 48, 64), fps=25)
    write_video(tmp_path / "c.mp4", numbered_frames(30, 64, 48), fps=10)
    (tmp_path / "d.mp4").write_bytes(b"no video")
    labels = {"a": 0, "b": 1, "c": 1, "d": 1}
    rows = [(str(tmp_path / f"{name}.mp4"), labels[name]) for name in "abcda"]
    path = write_list(tmp_path / "train.csv", rows)
    output = tmp_path / "out"
    done = dataset_scripts.run("summary.py", path, "--output", output, "--processes", 1)
    summary = json.loads((output / "train_summary.json").read_text())
    assert (summary["num_rows"], summary["num_videos"], summary["num_unreadable"]) == (5, 4, 1)
    assert summary["duration"] == pytest.approx({"min": 1, "median": 2, "mean": 2, "max": 3})
    assert summary["fps"] == pytest.approx({"min": 10, "median": 25, "mean": 65 / 3, "max": 30})
    assert summary["hours"] * 3600 == pytest.approx(6)
    assert summary["resolutions"] == {"64x48": 2, "48x64": 1}
    assert summary["rows_per_class"] == {"min": 2, "median": 2.5, "mean": 2.5, "max": 3}
    assert list(summary["unreadable"]) == [str(tmp_path / "d.mp4")]
    assert "5 rows, 4 videos, 1 unreadable, 0:06 in all" in done.stdout
    assert "64x48 (2), 48x64 (1)" in done.stdout
    with Image.open(output / "train_summary.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert not list(output.glob(".*"))
    files = [output / f"train_summary.{suffix}" for suffix in ("json", "png")]
    assert done.stdout.splitlines()[-2:] == [f"wrote {path}" for path in files]


def test_numbers_are_written_without_matplotlib(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", numbered_frames(30, 48, 64), fps=30)
    path = write_list(tmp_path / "train.csv", [(str(tmp_path / "a.mp4"), 0)])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = dataset_scripts.run("summary.py", path, "--output", tmp_path / "out", "--processes", 1)
    assert f"warning: {tmp_path / 'out' / 'train_summary.png'} is not drawn: " in done.stderr
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'out' / 'train_summary.json'}"


def test_bad_input_is_one_error(tmp_path):
    done = dataset_scripts.run("summary.py", "none.csv", "--output", tmp_path / "out", code=2)
    assert "none.csv does not exist" in done.stderr
    with pytest.raises(ValueError, match="duration"):
        histograms(tmp_path / "x.png", {"duration (s)": []})
