"""Probes and extraction: images as videos, several processes as one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_run
from helpers.load_tool import run_tool, tool_command
from PIL import Image

from slowfast_maskfeat import distributed
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.features import load_features
from slowfast_maskfeat.runs.features import build_frozen_model, extract_features
from slowfast_maskfeat.runs.run import run

CPU = torch.device("cpu")
IMAGES = {
    "MODEL.ARCH": "mvit",
    "MODEL.MODEL_NAME": "MViT",
    "MODEL.NUM_CLASSES": 2,
    "TRAIN.DATASET": "imagenet",
    "TEST.DATASET": "imagenet",
    "DATA.NUM_FRAMES": 1,
    "DATA.TRAIN_CROP_SIZE": 32,
    "DATA.TEST_CROP_SIZE": 32,
    "MVIT.PATCH_2D": True,
    "MVIT.PATCH_KERNEL": [8, 8],
    "MVIT.PATCH_STRIDE": [8, 8],
    "MVIT.PATCH_PADDING": [0, 0],
    "MVIT.POOL_Q_STRIDE": [],
    "MVIT.POOL_KVQ_KERNEL": None,
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": None,
    "MVIT.CLS_EMBED_ON": False,
    "MVIT.USE_MEAN_POOLING": True,
    "MVIT.REL_POS_TEMPORAL": False,
    "PROBE.NUM_NEIGHBORS": 5,
    "PROBE.EPOCHS": 10,
    "PROBE.LEARNING_RATES": [0.1],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Two classes that differ in brightness; 12 training and 4 validation images of each."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, number in (("train", 12), ("val", 4)):
        for dark, name in ((0, "n01440764"), (128, "n01443537")):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = dark + generator.integers(0, 128, (40, 44, 3))
                path = folder / split / name / f"{name}_{index}.JPEG"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def _words(images: Path, output: Path, *options: dict) -> list[str]:
    folders = {"DATA.PATH_TO_DATA_DIR": images, "OUTPUT_DIR": output}
    return tiny_run.pairs(tiny_run.MODEL, IMAGES, folders, *options)


def _cfg(images: Path, output: Path, *options: dict):
    return load_config([], _words(images, output, *options))


@pytest.mark.parametrize("kind", ["linear", "attentive", "knn"])
def test_images_are_probed_by_the_same_command(images, tmp_path, kind):
    done = tiny_run.run(images, tmp_path, IMAGES, {"PROBE.KIND": kind})
    assert done.returncode == 0, done.stderr
    (event,) = tiny_run.events(tmp_path, "probe")
    assert event["num_videos"] == event["num_videos_scored"] == event["num_clips"] == 8
    assert event["num_train_decoded"] == 24
    # Brightness is in the features of any weights.
    assert event["top1"] == 100.0
    shape = "24 x 16 x 8 of float16" if kind == "attentive" else "24 x 8 of float32"
    assert f"features of train: {shape} take " in done.stderr


def _in_each_process(images: Path, output: Path) -> None:
    torch.set_num_threads(1)
    apart = _cfg(images, output / f"of_{distributed.rank()}")
    (output / "said").mkdir(exist_ok=True)
    try:
        extract_features(apart, "test", build_frozen_model(apart, "", CPU), device=CPU)
    except ValueError as error:
        (output / "said" / str(distributed.rank())).write_text(str(error))
    for kind in ("linear", "attentive", "knn"):
        run(_cfg(images, output, {"PROBE.KIND": kind}))


@pytest.mark.slow
def test_two_processes_equal_one(images, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    launch(_in_each_process, 2, (images, two))
    # Each had a folder of its own, as two machines may.
    said = [(two / "said" / str(rank)).read_text() for rank in range(2)]
    assert said[1] == said[0].replace("of_0", "of_1")
    assert f"OUTPUT_DIR must be a folder that all machines share, got {two / 'of_0'}" in said[0]
    assert "not the same folder for process 1" in said[0]
    for kind in ("linear", "attentive", "knn"):
        run(_cfg(images, one, {"PROBE.KIND": kind}))
    alone, together = (tiny_run.events(folder, "probe") for folder in (one, two))
    assert [event["kind"] for event in together] == ["linear", "attentive", "knn"]
    for first, second in zip(alone, together, strict=True):
        assert first == second
    for kept in (two / "features").iterdir():
        assert sorted(path.name for path in kept.glob("*.rows")) == [
            "part_0000.rows",
            "part_0001.rows",
        ]
        assert {path.name for path in (one / "features").iterdir()} >= {kept.name}


def test_the_tool_works_under_torchrun(images, tmp_path):
    cfg = _cfg(images, tmp_path / "one")
    torch.manual_seed(0)
    weights = tmp_path / "weights.pyth"
    frozen = build_frozen_model(cfg, "", CPU)
    torch.save({"model_state": frozen.model.state_dict(), "cfg": cfg.dump()}, weights)
    tool = "tools/extract_features.py"
    words = ["--checkpoint", str(weights), "--split", "train", "--device", "cpu"]
    files = [tmp_path / "one.npz", tmp_path / "two.npz"]
    done = run_tool(tool, *words, "--output", str(files[0]))
    assert done.returncode == 0, done.stderr
    words += ["--output", str(files[1]), "OUTPUT_DIR", str(tmp_path / "two")]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    python, *words = tool_command(tool, *words)
    done = subprocess.run([python, *torchrun, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("24x8, 24 of 24 samples") == 1
    one, two = map(load_features, files)
    assert torch.allclose(one.features, two.features, atol=1e-6)
    for name in ("rows", "views", "times", "labels"):
        assert getattr(one, name).equal(getattr(two, name))
    assert one.facts["key"] == two.facts["key"]
    (kept,) = (tmp_path / "two" / "features").iterdir()
    assert len(list(kept.glob("*.rows"))) == 2
