"""Pre-training on pseudo-labels from stored label maps, from end to end."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.load_tool import run_tool, tool_command
from helpers.tiny_run import events, losses, pairs, wait_for
from PIL import Image

from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint
from slowfast_maskfeat.config import load_config

NUM_IMAGES, NUM_CLASSES = 16, 8
COLORS = np.random.default_rng(0).integers(0, 256, (NUM_CLASSES, 3))
OPTIONS = {
    "TRAIN.DATASET": "folder",
    "TEST.DATASET": "folder",
    "DATA.TRAIN_CROP_SIZE": 64,
    "DATA.TEST_CROP_SIZE": 64,
    "MODEL.NUM_CLASSES": NUM_CLASSES,
    "MVIT.DEPTH": 2,
    "MVIT.EMBED_DIM": 32,
    "MVIT.PATCH_KERNEL": [8, 8],
    "MVIT.PATCH_STRIDE": [8, 8],
    "MVIT.PATCH_PADDING": [0, 0],
    "MVIT.NUM_HEADS": 1,
    "MVIT.DROPPATH_RATE": 0.3,
    "MASK.PRETRAIN_DEPTH": [1],
    "MASK.TARGET": "pseudo_labels",
    "MASK.PRED_HOG": False,
    "TRAIN.BATCH_SIZE": 4,
    "TEST.BATCH_SIZE": 4,
    "SOLVER.BASE_LR": 0.003,
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS": False,
    "SOLVER.MAX_EPOCH": 1,
    "SOLVER.WARMUP_EPOCHS": 0,
    "TRAIN.CHECKPOINT_PERIOD": 1,
    "DATA_LOADER.NUM_WORKERS": 0,
    "LOG_PERIOD": 1,
    "LOG_MODEL_INFO": False,
    "NUM_GPUS": 0,
}

pytestmark = pytest.mark.filterwarnings("ignore")  # fewer GPUs than the file asks for


def make_image(image: Path, stored: Path, seed: int) -> None:
    """Write an image of two halves, left and right, of three colors, and the map of its classes."""
    classes = np.random.default_rng(seed).integers(3, size=2)
    halves = COLORS[classes].astype(np.uint8)  # (2, 3)
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.tile(np.repeat(halves, 40, axis=0), (80, 1, 1))).save(image)
    numbers = (np.repeat(classes, 5)[None, None] + np.arange(5)[:, None, None]) % NUM_CLASSES
    numbers = np.tile(numbers, (1, 10, 1))  # (5, 10, 10)
    scores = np.zeros_like(numbers)
    scores[0] = 8
    stored.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.from_numpy(np.stack([scores, numbers])).half(), stored)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in class folders of train and val, which have equal names, and their maps."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(NUM_IMAGES):
        for place, split in enumerate(("train", "val")):
            name = f"{split}/{'ab'[number % 2]}/{number}"
            make_image(folder / f"{name}.png", folder / f"maps/{name}.pt", 2 * number + place)
    (folder / "classes.txt").write_text("\n".join("abcdefgh"))
    return folder


def words(data: Path, output: Path, *options: dict) -> list[str]:
    folders = {
        "DATA.PATH_TO_DATA_DIR": data,
        "MASK.LABEL_MAPS": data / "maps",
        "OUTPUT_DIR": output,
    }
    config = "configs/masked_ssl/in1k_VIT_B_MaskFeat_PT.yaml"
    return ["--cfg", config, *pairs(OPTIONS, folders, *options)]


def run(data: Path, output: Path, *options: dict):
    return run_tool("tools/run_net.py", *words(data, output, *options))


def last_weights(output: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(find_checkpoints(output / "checkpoints", "ssl")[-1])["model_state"]


@pytest.mark.parametrize(
    "options", [{}, {"MASK.PSEUDO_LABELS": "hard", "AUG.ON_DEVICE": True, "AUG.NUM_SAMPLE": 2}]
)
def test_a_run_learns_the_labels(images: Path, tmp_path: Path, options: dict) -> None:
    longer = {"SOLVER.MAX_EPOCH": 30, "LOG_PERIOD": 100, "MVIT.DROPPATH_RATE": 0.0}
    done = run(images, tmp_path, longer, options)
    assert done.returncode == 0, done.stderr
    validation = events(tmp_path, "validation")[-1]
    assert validation["num_decoded"] == NUM_IMAGES
    assert 0 < validation["loss"] < 0.9 * validation["baseline"]
    assert (tmp_path / "predictions.png").exists()
    shapes = [tuple(value.shape) for value in last_weights(tmp_path).values()]
    assert shapes.count((NUM_CLASSES,)) == 1  # the bias of the prediction
    checkpoint = find_checkpoints(tmp_path / "checkpoints", "ssl")[-1]
    words = ["--checkpoint", checkpoint, "--output", tmp_path / "figure.png", "--input"]
    place = ["--opts", "DATA.PATH_PREFIX", images]
    done = run_tool("tools/visualize.py", *words, images / "val/a/2.png", *place)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure.png").exists()
    shutil.copy(images / "val/a/2.png", tmp_path / "other.png")
    done = run_tool("tools/visualize.py", *words, tmp_path / "other.png", *place, "--force")
    assert done.returncode == 2
    assert "has no label map, since it is not inside" in done.stderr


def test_figures_have_the_class_names_of_the_data_set(images: Path, tmp_path: Path) -> None:
    _, file, *rest = words(images, tmp_path)
    for changes, names in (([], tuple("abcdefgh")), (["MODEL.NUM_CLASSES", "9"], ())):
        cfg = load_config([file], [*rest, *changes])
        task = build_task(cfg, build_model(cfg))
        assert [target.class_names for target in task.targets] == [names]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(images: Path, tmp_path: Path) -> None:
    options = {"TRAIN.CHECKPOINT_STEP_PERIOD": 1, "SOLVER.MAX_EPOCH": 2}
    whole, output = tmp_path / "whole", tmp_path / "killed"
    assert run(images, whole, options).returncode == 0
    command = tool_command("tools/run_net.py", *words(images, output, options))
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    first_step = output / "checkpoints" / "ssl_checkpoint_epoch_00000_step_0000001.pyth"
    wait_for(first_step.exists)
    process.kill()
    process.wait()
    done = run(images, output, options)
    assert done.returncode == 0, done.stderr
    assert losses(output) == losses(whole)
    second = last_weights(whole)
    assert all(value.equal(second[name]) for name, value in last_weights(output).items())


def test_training_without_maps_of_the_validation_split(images: Path, tmp_path: Path) -> None:
    """Published maps are of the training images alone."""
    maps = tmp_path / "maps"
    shutil.copytree(images / "maps" / "train", maps / "train")
    (maps / "train/a/0.pt").unlink()
    (maps / "train/b/1.pt").write_bytes(b"cut off")
    output = tmp_path / "output"
    done = run(images, output, {"MASK.LABEL_MAPS": maps, "DATA.MAX_BAD_FRACTION": 0.5})
    assert done.returncode == 0, done.stderr
    assert "pre-training without validation" in done.stdout + done.stderr
    assert not events(output, "validation")
    assert events(output, "epoch")[-1]["num_lost"] == 2


def fails(data: Path, output: Path, *options: dict) -> str:
    """Return the message of a run that fails before its first step."""
    done = run(data, output, *options)
    assert done.returncode == 2, done.stdout
    assert not list(output.glob("checkpoints/*"))
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"MASK.LABEL_MAPS": "no_folder"}, "must be a folder, got 'no_folder', which does not"),
        ({"MODEL.NUM_CLASSES": 6}, "must have class numbers in [0, 6) (MODEL.NUM_CLASSES), got 6"),
        ({"MASK.TARGET": "hog"}, "must be '' unless MASK.TARGET is 'pseudo_labels'"),
        ({"MASK.TEACHER_CHECKPOINT": "a.pyth"}, "or MASK.TEACHER_CHECKPOINT must be ''"),
        ({"DATA.NUM_FRAMES": 4}, "must be '' for videos"),
        ({"DATA.PATH_PREFIX": "."}, "another image set?"),
    ],
)
def test_settings_that_do_not_fit(
    images: Path, tmp_path: Path, options: dict, message: str
) -> None:
    if "DATA.PATH_PREFIX" in options:  # the images are inside, but under other names
        options = {"DATA.PATH_PREFIX": images / "train"}
    last = fails(images, tmp_path, options)
    assert "MASK.LABEL_MAPS" in last
    assert message in last


def test_maps_of_other_images_shapes_and_kinds(images: Path, tmp_path: Path) -> None:
    other, shape = tmp_path / "other", tmp_path / "shape"
    for number in range(3):
        make_image(tmp_path / "x.png", other / f"train/a/other_{number}.pt", number)
    assert "another image set?" in fails(images, tmp_path / "1", {"MASK.LABEL_MAPS": other})
    shutil.copytree(images / "maps", shape)
    torch.save(torch.zeros(2, 5, 7, 10).half(), shape / "train/b/3.pt")
    last = fails(images, tmp_path / "2", {"MASK.LABEL_MAPS": shape})
    assert "3.pt must have the shape (2, 5, 10, 10), got (2, 5, 7, 10)" in last
    torch.save(torch.zeros(5, 10, 10).half(), shape / "train/a/0.pt")
    last = fails(images, tmp_path / "3", {"MASK.LABEL_MAPS": shape})
    assert "0.pt must have the shape (2, 5, h, w), got (5, 10, 10)" in last


def test_clips_of_one_frame_of_a_video_have_no_maps(images: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.mp4").write_bytes(b"not decoded")
    options = {"MASK.LABEL_MAPS": images / "maps", "TRAIN.BATCH_SIZE": 1}
    assert "must be '' for videos" in fails(tmp_path, tmp_path / "output", options)
