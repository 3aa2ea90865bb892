"""BYOL, DINO and iBOT from end to end, and what becomes of their checkpoints."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from helpers.load_tool import ROOT, run_tool
from helpers.tiny_run import (
    FINETUNING,
    MODEL,
    assert_same_state,
    assert_same_training,
    events,
    kill_and_resume,
    last_checkpoint,
    losses,
    make_videos,
    pairs,
    run,
    run_two_processes,
)
from helpers.tiny_views import HEADS, KINDS
from PIL import Image

from slowfast_maskfeat import from_pretrained, load_weights, save_pretrained
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.model import build_classifier
from slowfast_maskfeat.checkpoints import load_checkpoint
from slowfast_maskfeat.config import load_config

VIEWS = {
    "TASK": "ssl",
    "SOLVER.MAX_EPOCH": 1,
    "MODEL.ARCH": "mvit",
    "MODEL.MODEL_NAME": "ContrastiveModel",
    "MODEL.LOSS_FUNC": "contrastive_loss",
    "MVIT.CLS_EMBED_ON": False,
    "MVIT.DROPPATH_RATE": 0.3,  # so that a resumed run needs its random state back
    "DATA.TRAIN_CROP_NUM_TEMPORAL": 2,
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": [0.4, 1.0],
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": [0.75, 1.3333],
    "DATA.SSL_COLOR_JITTER": True,
    "DATA.SSL_MOCOV2_AUG": True,
}
LOCAL = {"DATA.SSL_LOCAL_VIEWS": 2, "DATA.SSL_LOCAL_CROP_SIZE": 16}
OF_KIND = {
    "byol": {},
    "dino": {**LOCAL, "CONTRASTIVE.FREEZE_LAST_LAYER_EPOCHS": 1},
    "ibot": {**LOCAL, "AUG.MASK_KIND": "ibot", "AUG.MASK_WINDOW_SIZE": [2, 2, 2]},
}


def _options(kind):
    heads = {f"CONTRASTIVE.{key}": value for key, value in HEADS[kind].items()}
    return {**VIEWS, "CONTRASTIVE.TYPE": kind, **heads, **OF_KIND[kind]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"), num_videos=8)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of a run of each kind."""
    folders = {}
    for kind in KINDS:
        folders[kind] = tmp_path_factory.mktemp(kind)
        done = run(data, folders[kind], _options(kind), {"LOG_MODEL_INFO": kind == "ibot"})
        assert done.returncode == 0, done.stderr
        assert "could not count" not in done.stderr
    return folders


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(data, trained, tmp_path, kind):
    kill_and_resume(data, tmp_path, _options(kind))
    assert_same_training(tmp_path, trained[kind])
    validations = [events(folder, "validation")[-1]["loss"] for folder in (tmp_path, trained[kind])]
    assert validations[0] == validations[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(data, tmp_path, kind):
    still = {**_options(kind), "MVIT.DROPPATH_RATE": 0.0}
    if kind != "byol":  # Adam would scale up the rounding of gradients that are 0, as of key biases
        still["SOLVER.OPTIMIZING_METHOD"] = "sgd"
    assert run(data, tmp_path / "one", still).returncode == 0
    done = run_two_processes(data, tmp_path / "two", still)
    assert done.returncode == 0, done.stderr
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert two[1] == pytest.approx(one[1], rel=1e-5)
    if kind == "byol":  # batch norm of nearly equal features enlarges rounding errors of a step
        assert two == pytest.approx(one, rel=1e-2)
        return
    assert two == pytest.approx(one, rel=1e-5)
    mine, expected = (
        load_checkpoint(last_checkpoint(tmp_path / name))["task_state"] for name in ("two", "one")
    )
    assert "center.center" in expected
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_views_cropped_on_the_device_train_alike(data, trained, tmp_path):
    """The same draws: only the rounding of the resize differs. Validation crops in workers."""
    done = run(data, tmp_path, _options("ibot"), {"AUG.ON_DEVICE": True})
    assert done.returncode == 0, done.stderr
    ours, theirs = (losses(folder) for folder in (tmp_path, trained["ibot"]))
    assert ours == pytest.approx(theirs, rel=5e-3)
    ours, theirs = (
        events(folder, "validation")[-1]["loss"] for folder in (tmp_path, trained["ibot"])
    )
    assert ours == pytest.approx(theirs, rel=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_backbone_of_the_teacher_is_fine_tuned(data, trained, tmp_path, kind):
    cfg = load_config([], pairs(MODEL, FINETUNING))
    content = load_checkpoint(last_checkpoint(trained[kind]))
    for teacher in (True, False):
        model = build_classifier(cfg, DataSource(cfg))
        report = load_weights(model, last_checkpoint(trained[kind]), teacher=teacher)
        assert report.coverage == 1.0
        assert all(name.startswith("head.") for name in report.missing)
        prefix = "teacher.network.backbone." if teacher else "backbone."
        state = content["task_state" if teacher else "model_state"]
        expected = state[f"{prefix}blocks.1.attn.qkv.weight"]
        assert model.state_dict()["blocks.1.attn.qkv.weight"].equal(expected)
    start = {"TRAIN.CHECKPOINT_FILE_PATH": last_checkpoint(trained[kind]), "TEST.ENABLE": False}
    once = {"SOLVER.MAX_EPOCH": 1, "TRAIN.CHECKPOINT_EPOCH_RESET": True}
    done = run(data, tmp_path, FINETUNING, start, once)
    assert done.returncode == 0, done.stderr
    assert "100.0% of the backbone" in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_loaded_by_the_path_of_its_run(trained, tmp_path, kind):
    model = from_pretrained(trained[kind])
    saved = save_pretrained(model, tmp_path)
    again = from_pretrained(saved)
    expected = model.state_dict()
    assert all(value.equal(expected[name]) for name, value in again.state_dict().items())
    features = model.pooled(torch.zeros(1, 3, 4, 32, 32))
    assert features.shape == (1, model.backbone.width)


SMALL = {
    "DATA.TRAIN_CROP_SIZE": 64,
    "DATA.TEST_CROP_SIZE": 64,
    "DATA.SSL_LOCAL_CROP_SIZE": 32,
    "MVIT.EMBED_DIM": 16,
    "MVIT.NUM_HEADS": 1,
    "MVIT.DEPTH": 2,
    "CONTRASTIVE.DIM": 24,
    "CONTRASTIVE.MLP_DIM": 16,
    "CONTRASTIVE.BOTTLENECK_DIM": 8,
    "TRAIN.BATCH_SIZE": 4,
    "TRAIN.EVAL_PERIOD": 1,
    "TEST.BATCH_SIZE": 4,
    "SOLVER.MAX_EPOCH": 1,
    "SOLVER.WARMUP_EPOCHS": 0,
    "DATA_LOADER.NUM_WORKERS": 0,
    "LOG_PERIOD": 1,
    "LOG_MODEL_INFO": False,
    "NUM_GPUS": 0,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes of four training images and one validation image."""
    folder = tmp_path_factory.mktemp("imagenet")
    generator = np.random.default_rng(0)
    for split, number in (("train", 4), ("val", 1)):
        for name in ("n01440764", "n01443537"):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
                picture = Image.fromarray(coarse).resize((84, 70), Image.Resampling.BICUBIC)
                picture.save(folder / split / name / f"{index}.JPEG")
    return folder


def _run_shipped(name, images, output, *options):
    folders = {"DATA.PATH_TO_DATA_DIR": images, "OUTPUT_DIR": output}
    file = ROOT / f"configs/masked_ssl/{name}.yaml"
    done = run_tool("tools/run_net.py", "--cfg", file, *pairs(SMALL, folders, *options))
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("name", ["in1k_VIT_S_DINO_PT", "in1k_VIT_S_iBOT_PT", "in1k_VIT_B_BYOL_PT"])
def test_the_shipped_configurations_train_on_images(images, tmp_path, name):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    _run_shipped(name, images, whole, {"TRAIN.CHECKPOINT_STEP_PERIOD": 1})
    (resumed / "checkpoints").mkdir(parents=True)
    first = whole / "checkpoints" / "ssl_checkpoint_epoch_00000_step_0000001.pyth"
    shutil.copy(first, resumed / "checkpoints")
    _run_shipped(name, images, resumed)
    assert losses(resumed)[2] == losses(whole)[2]
    assert_same_state(resumed, whole)
    (validation,) = events(whole, "validation")
    assert validation["loss"] > 0


def test_features_of_a_byol_network_are_a_target(images, tmp_path):
    _run_shipped("in1k_VIT_B_BYOL_PT", images, tmp_path / "byol")
    teacher = {
        "MASK.TEACHER_CHECKPOINT": last_checkpoint(tmp_path / "byol"),
        "MASK.PRETRAIN_DEPTH": [1],
    }
    _run_shipped("in1k_VIT_B_SaGe_features_PT", images, tmp_path / "sage", teacher)
    assert all(0 < loss < 2 for loss in losses(tmp_path / "sage").values())


def test_a_probe_of_frozen_features(data, trained, tmp_path):
    start = {"TRAIN.CHECKPOINT_FILE_PATH": last_checkpoint(trained["dino"])}
    probe = {"PROBE.KIND": "knn", "PROBE.NUM_NEIGHBORS": 3}
    done = run(data, tmp_path, _options("dino"), probe, start)
    assert done.returncode == 0, done.stderr
    assert "100.0% of the backbone" in done.stderr


def test_another_type_is_one_error_that_names_what_exists(data, tmp_path):
    done = run(data, tmp_path, _options("dino"), {"CONTRASTIVE.TYPE": "simclr"})
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "CONTRASTIVE.TYPE must be one of 'byol', 'dino', 'ibot'" in last
