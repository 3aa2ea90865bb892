"""tools/demo.py from end to end, on fewer clips and a tenth of its epochs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.dataset_scripts import run
from helpers.load_tool import run_tool
from helpers.tiny_run import events

COUNTS = ["--num-pretrain", "320", "--num-train", "160", "--num-val", "80", "--num-test", "80"]


def test_without_clips_it_says_how_to_make_them(tmp_path):
    done = run_tool("tools/demo.py", "--output", tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"make_motion_clips.py --output {tmp_path / 'data'}" in line


@pytest.mark.slow
def test_a_tenth_of_the_demo(tmp_path):
    run("make_motion_clips.py", "--output", tmp_path / "data", *COUNTS)
    done = run_tool("tools/demo.py", "--output", tmp_path, "--budget", "0.1")
    assert done.returncode == 0, done.stderr
    _assert_a_table(done.stdout, tmp_path)
    _assert_that_all_is_written(done.stdout)
    losses = [event["loss"] for event in events(tmp_path / "pretrain", "epoch")]
    assert losses[-1] < losses[0]
    for name in ("finetune", "scratch"):
        (test,) = events(tmp_path / name, "test")
        assert test["num_videos"] == test["num_videos_scored"] == 80
    # Fine-tuning starts from the last checkpoint of the pre-training, scratch from none.
    starts = [
        events(tmp_path / name, "start")[0]["started_from"] for name in ("finetune", "scratch")
    ]
    assert Path(starts[0]).parent == tmp_path / "pretrain" / "checkpoints"
    assert starts[1] == ""


def _assert_a_table(printed: str, folder: Path) -> None:
    """The table has the figures of the logs."""
    for title, name in (("MaskFeat, then fine-tuned", "finetune"), ("from scratch", "scratch")):
        row = next(line for line in printed.splitlines() if line.startswith(title))
        top1, top5, loss, seconds = map(float, row.removeprefix(title).split())
        (test,) = events(folder / name, "test")
        assert top1 == pytest.approx(test["top1"], abs=0.06)
        assert top5 == pytest.approx(test["top5"], abs=0.06)
        assert loss == pytest.approx(test["loss"], abs=0.0006)
        assert seconds > 0


def _assert_that_all_is_written(printed: str) -> None:
    """Every path at the end exists, and the picture of the comparison is among them."""
    paths = re.findall(r"^wrote (/\S+?)(?: \([\d,]+ files\))?$", printed, re.MULTILINE)
    assert "accuracy.png" in {Path(path).name for path in paths}, printed
    for path in map(Path, paths):
        assert path.exists(), path
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
