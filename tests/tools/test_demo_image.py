"""tools/demo_image.py from end to end, on few images and a fraction of its epochs."""

from __future__ import annotations

import pytest
from helpers.dataset_scripts import run
from helpers.load_tool import run_tool
from helpers.tiny_run import events

COUNTS = ["--num-pretrain", "64", "--num-train", "36", "--num-val", "12", "--num-test", "12"]
TITLES = {
    "HOG (MaskFeat)": "image_hog",
    "pixels (mask tokens)": "image_pixels",
    "pixels (MAE)": "image_mae",
    "from scratch": "image_scratch",
}


def test_without_images_it_says_how_to_make_them(tmp_path):
    done = run_tool("tools/demo_image.py", "--output", tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"make_shape_images.py --output {tmp_path / 'images'}" in line


@pytest.mark.slow
def test_a_fraction_of_the_demo(tmp_path):
    run("make_shape_images.py", "--output", tmp_path / "images", *COUNTS)
    done = run_tool("tools/demo_image.py", "--output", tmp_path, "--budget", "0.05")
    assert done.returncode == 0, done.stderr
    for title, name in TITLES.items():
        row = next(line for line in done.stdout.splitlines() if line.startswith(title))
        finetuned, linear, knn = map(float, row.removeprefix(title).split())
        (test,) = events(tmp_path / "image" / f"{name}_finetune", "test")
        probes = events(tmp_path / "image" / f"{name}_probe", "probe")
        of_kind = {probe["kind"]: probe for probe in probes}
        assert finetuned == pytest.approx(test["top1"], abs=0.06)
        assert linear == pytest.approx(of_kind["linear"]["top1"], abs=0.06)
        assert knn == pytest.approx(of_kind["knn"]["top1"], abs=0.06)
        # Each starts from its own pre-training, scratch from none.
        started = events(tmp_path / "image" / f"{name}_finetune", "start")[0]["started_from"]
        expected = "" if name == "image_scratch" else str(tmp_path / "image" / name)
        assert started.startswith(expected)
        assert bool(started) == bool(expected)
        assert of_kind["linear"]["checkpoint"] == of_kind["knn"]["checkpoint"] == started
    for picture in ("image/predictions.png", "accuracy_image.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    budgets = {
        events(tmp_path / "image" / name, "epoch")[-1]["epoch"]
        for name in TITLES.values()
        if name != "image_scratch"
    }
    assert len(budgets) == 1
