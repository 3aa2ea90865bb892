"""tools/demo_ava.py from end to end, on fewer videos and a tenth of its epochs."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.dataset_scripts import run
from helpers.load_tool import run_tool
from helpers.tiny_run import events


def test_without_data_it_says_how_to_make_them(tmp_path):
    done = run_tool("tools/demo_ava.py", "--output", tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"make_motion_boxes.py --output {tmp_path / 'ava'}" in line


@pytest.mark.slow
def test_a_tenth_of_the_demo(tmp_path):
    few = ["--num-train", "8", "--num-val", "4"]
    run("make_motion_boxes.py", "--output", tmp_path / "ava", *few)
    done = run_tool("tools/demo_ava.py", "--output", tmp_path)
    assert done.returncode == 2  # there is neither a pre-training nor clips to make one with
    assert "make_motion_clips.py" in done.stderr
    counts = ["--num-pretrain", "64", "--num-train", "16", "--num-val", "16", "--num-test", "8"]
    run("make_motion_clips.py", "--output", tmp_path / "data", *counts)
    done = run_tool("tools/demo_ava.py", "--output", tmp_path, "--budget", "0.1")
    assert done.returncode == 0, done.stderr
    for title, name in (("MaskFeat, then detection", "ava_finetune"), ("from", "ava_scratch")):
        row = next(line for line in done.stdout.splitlines() if line.startswith(title))
        (test,) = events(tmp_path / name, "test")
        figure = float(row.split()[-2])
        assert figure == pytest.approx(100 * test["mean_ap"], abs=0.06)
        assert test["num_frames_expected"] == 16
    row = next(line for line in done.stdout.splitlines() if line.startswith("by label frequency"))
    assert 5 < float(row.split()[-1]) < 45
    started = [
        events(tmp_path / f"ava_{n}", "start")[0]["started_from"] for n in ("finetune", "scratch")
    ]
    assert Path(started[0]).parent == tmp_path / "pretrain" / "checkpoints"
    assert started[1] == ""
    for name in ("ava_map.png", "ava_boxes.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "ava_video" / "detections.mp4").stat().st_size > 10_000
