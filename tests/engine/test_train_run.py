"""Whole runs of tools/run_net.py: resuming, stopping, sharing among processes, broken input."""

from __future__ import annotations

import shutil
import signal
import subprocess

import numpy as np
import pytest
import torch
from helpers.tiny_run import (
    MODEL,
    PRETRAINING,
    command,
    events,
    kill_and_resume,
    losses,
    make_videos,
    pairs,
    run,
    run_two_processes,
    wait_for,
)

from slowfast_maskfeat import Embedder
from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.runs import run as build_run
from slowfast_maskfeat.runs.features import build_frozen_model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A pre-training of two epochs of three steps that nothing interrupts."""
    output = tmp_path_factory.mktemp("whole")
    done = run(data, output, PRETRAINING, {"LOG_MODEL_INFO": True})
    assert done.returncode == 0, done.stderr
    return output


def _run_here(data, output, *options):
    """Run in this process, which takes less time to start."""
    folders = {"DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output}
    build_run.run(load_config([], pairs(MODEL, folders, *options)))


def _states(output):
    return load_checkpoint(find_checkpoints(output / "checkpoints", "ssl")[-1])


def _assert_equal_states(first, second):
    for name, value in first["model_state"].items():
        assert value.equal(second["model_state"][name]), name


def test_a_run_writes_what_it_promises(whole):
    assert sorted(losses(whole)) == [1, 2, 3, 4, 5, 6]
    assert len(events(whole, "epoch")) == 2
    (last,) = [event for event in events(whole, "validation") if event["epoch"] == 2]
    assert last["num_decoded"] == last["num_expected"] == 12
    assert last["lost"] == []
    start = events(whole, "start")[0]
    assert len(start["list_sha256"]) == 64
    assert 0 < start["num_parameters"] < start["multiply_adds"]
    assert start["decoders"]
    for picture in ("curves.png", "predictions.png"):
        assert (whole / picture).read_bytes().startswith(b"\x89PNG")
    state = _states(whole)
    assert state["epoch"] == 1
    assert state["class_names"] == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(data, whole, tmp_path, workers):
    options = {"DATA_LOADER.NUM_WORKERS": workers}
    kill_and_resume(data, tmp_path, PRETRAINING, options, step=2)
    assert losses(tmp_path) == losses(whole)
    _assert_equal_states(_states(tmp_path), _states(whole))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_finishes_the_step_and_writes_a_checkpoint(data, whole, tmp_path, number, code):
    long = {"SOLVER.MAX_EPOCH": 2}
    process = subprocess.Popen(
        command(data, tmp_path, PRETRAINING, long, {"DATA_LOADER.NUM_WORKERS": 1}),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: (tmp_path / "stats.jsonl").exists() and losses(tmp_path))
    process.send_signal(number)
    _, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    assert f"stopped by signal {int(number)}" in error
    assert "Traceback" not in error
    done = run(data, tmp_path, PRETRAINING, long)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path) == losses(whole)


def test_a_finished_run_has_nothing_left_to_train(data, whole, tmp_path):
    again = shutil.copytree(whole, tmp_path / "again")
    done = run(data, again, PRETRAINING)
    assert done.returncode == 0, done.stderr
    assert "nothing left to train" in done.stderr
    _assert_equal_states(_states(again), _states(whole))


def test_checkpoints_of_steps_count_those_of_the_run(data, tmp_path):
    """Epochs of three steps: after step 4, and at the ends of both epochs by the other period."""
    for period, names in (
        (4, {"epoch_00001_step_0000001", "epoch_00002"}),
        (3, {"epoch_00001", "epoch_00002"}),
    ):
        output = tmp_path / str(period)
        options = {"TRAIN.CHECKPOINT_STEP_PERIOD": period, "TRAIN.CHECKPOINT_PERIOD": 99}
        _run_here(data, output, PRETRAINING, options)
        found = find_checkpoints(output / "checkpoints", "ssl")
        assert {path.stem.removeprefix("ssl_checkpoint_") for path in found} == names
    # What is measured before a checkpoint is in it; the validation of the last epoch follows.
    measured = load_checkpoint(find_checkpoints(output / "checkpoints", "ssl")[-1])
    assert measured["loop_state"]["measured"] == {"monitor": 0, "validation": 1}


def test_two_processes_equal_one(data, tmp_path):
    still = {"MVIT.DROPPATH_RATE": 0.0, "TRAIN.EMA_DECAY": 0.5}
    one, two = tmp_path / "one", tmp_path / "two"
    _run_here(data, one, PRETRAINING, still)
    done = run_two_processes(data, two, PRETRAINING, still)
    assert done.returncode == 0, done.stderr
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    first, second = events(one, "train"), events(two, "train")
    norms = [event["gradient_norm"] for event in first]
    assert [event["gradient_norm"] for event in second] == pytest.approx(norms, rel=1e-5)
    for split in (one, two):
        assert events(split, "validation")[-1]["num_decoded"] == 12
    assert events(two, "validation")[-1]["loss"] == pytest.approx(
        events(one, "validation")[-1]["loss"], rel=1e-5
    )


def test_parts_of_a_batch_equal_the_batch(data, tmp_path):
    still = {"MVIT.DROPPATH_RATE": 0.0, "SOLVER.CLIP_GRAD_L2NORM": 0.02}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _run_here(data, whole, PRETRAINING, still)
    _run_here(data, parts, PRETRAINING, still, {"TRAIN.ACCUMULATION_STEPS": 2})
    first, second = events(whole, "train"), events(parts, "train")
    # The first step starts from the same weights; the later ones add up the rounding.
    for name in ("loss", "gradient_norm"):
        assert second[0][name] == pytest.approx(first[0][name], rel=1e-6)
        assert [e[name] for e in second] == pytest.approx([e[name] for e in first], rel=1e-4)


def test_fine_tuning_from_a_pre_training_tests_and_saves_scores(data, whole, tmp_path):
    start = find_checkpoints(whole / "checkpoints", "ssl")[-1]
    options = {
        "TRAIN.CHECKPOINT_FILE_PATH": start,
        "TRAIN.CHECKPOINT_EPOCH_RESET": True,
        "TEST.NUM_TEMPORAL_CLIPS": [1, 2],
        "TRAIN.EMA_DECAY": 0.5,
    }
    done = run(data, tmp_path, options)
    assert done.returncode == 0, done.stderr
    assert "loaded" in done.stderr
    tests = events(tmp_path, "test")
    assert [test["num_views"] for test in tests] == [1, 2]
    path = find_checkpoints(tmp_path / "checkpoints")[-1]
    averaged = load_checkpoint(path)["average_state"]["weights"]
    embedder = Embedder(path)  # features, too, are of the weights that are tested
    frozen = build_frozen_model(embedder.cfg, str(path), torch.device("cpu"))
    for model in (embedder.model, frozen.model):
        weights = model.state_dict()
        for name in ("blocks.0.mlp.fc1.weight", "patch_embed.proj.weight"):
            assert torch.equal(weights[name], averaged[name])
    for test in tests:
        assert test["num_videos"] == test["num_videos_scored"] == 12
        scores = np.load(test["scores"])
        assert scores["scores"].shape == (12, 3)
        np.testing.assert_allclose(scores["scores"].sum(1), 1, atol=1e-6)
        right = scores["scores"].argmax(1) == scores["labels"]
        assert test["top1"] == pytest.approx(100 * right.mean())
        assert scores["class_names"].tolist() == ["class 0", "class 1", "class 2"]


def test_undecodable_videos_are_replaced_in_training_and_listed_in_testing(data, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = (data / "train.csv").read_text().splitlines()
    broken = folder / "broken.mp4"
    broken.write_text("this is no video")
    rows[4] = f"{broken} 1"
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    output = tmp_path / "output"
    done = run(folder, output, {"DATA.MAX_BAD_FRACTION": 0.5})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"can't decode {broken}") == 1
    epochs = events(output, "epoch")
    assert [event["num_lost"] for event in epochs] == [1, 1]
    assert epochs[-1]["num_replaced"] >= 2
    assert [event["path"] for event in events(output, "lost")] == [str(broken)]
    (test,) = events(output, "test")
    assert (test["num_videos_scored"], test["num_videos"]) == (11, 12)
    assert [lost["path"] for lost in test["lost"]] == [str(broken)]
    stopped = run(folder, tmp_path / "strict", {"DATA.MAX_BAD_FRACTION": 0.05})
    assert stopped.returncode == 2
    assert "1 of 12 videos can't be decoded, more than DATA.MAX_BAD_FRACTION 0.05" in stopped.stderr
    assert "broken.mp4" in stopped.stderr.splitlines()[-1]


def test_losses_that_stay_infinite_stop_the_run_and_name_the_clips(data, tmp_path):
    # Float32 pixels divided by a deviation near zero overflow in the first layers.
    options = {"DATA.STD": [1e-38, 1e-38, 1e-38], "TRAIN.MAX_NONFINITE": 2, "LOG_PERIOD": 3}
    done = run(data, tmp_path, PRETRAINING, options)
    assert done.returncode == 2
    message = done.stderr.splitlines()[-1]
    assert "not finite in 3 steps in a row (TRAIN.MAX_NONFINITE 2)" in message
    assert str(data / "0.mp4") in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"DATA.PATH_TO_DATA_DIR": "/nowhere"},
            "DATA.PATH_TO_DATA_DIR must be a folder, got '/nowhere'",
        ),
        ({"TRAIN.BATCH_SIZ": 3}, "unknown key 'TRAIN.BATCH_SIZ'; did you mean TRAIN.BATCH_SIZE?"),
        ({"TRAIN.BATCH_SIZE": "x"}, "TRAIN.BATCH_SIZE must be an integer"),
        ({"TRAIN.ENABLE": False}, "TEST.CHECKPOINT_FILE_PATH must"),
        ({"TRAIN.CHECKPOINT_FILE_PATH": "no.pyth"}, "no.pyth"),
        ({"MODEL.MODEL_NAME": "ResNet"}, "MODEL.MODEL_NAME"),
        ({"TRAIN.BATCH_SIZE": 100}, "must have at least 100 videos"),
        (
            {**PRETRAINING, "AUG.MASK_WINDOW_SIZE": [2, 3, 3]},
            "AUG.MASK_WINDOW_SIZE must divide the 2x4x4",
        ),
        ({"DATA.PATH_LABEL_SEPARATOR": ","}, "train.csv"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_user_can_put_right_is_one_line_and_exit_code_2(data, tmp_path, options, message):
    done = run(data, tmp_path, options)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_a_checkpoint_of_other_classes_is_refused(data, tmp_path):
    output = tmp_path / "output"
    _run_here(data, output, {"TEST.ENABLE": False, "SOLVER.MAX_EPOCH": 1})
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text((data / f"{split}.csv").read_text())
    (folder / "classes.txt").write_text("class 1\nclass 0\nclass 2\n")
    with pytest.raises(ValueError, match=r"its class 0 is 'class 0'.* is 'class 1'"):
        _run_here(folder, output, {"TRAIN.ENABLE": False})


PLAIN = {
    "MVIT.PATCH_KERNEL": [2, 8, 8],
    "MVIT.PATCH_STRIDE": [2, 8, 8],
    "MVIT.PATCH_PADDING": [0, 0, 0],
    "MVIT.POOL_Q_STRIDE": [],
    "MVIT.POOL_KVQ_KERNEL": None,
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": None,
    "MVIT.USE_ABS_POS": True,
    "MVIT.SEP_POS_EMBED": True,
    "MVIT.REL_POS_SPATIAL": False,
    "MVIT.REL_POS_TEMPORAL": False,
    "MVIT.RESIDUAL_POOLING": False,
    "MVIT.USE_MEAN_POOLING": True,
}
AUTOENCODER = {
    **PRETRAINING,
    **PLAIN,
    "MVIT.DROPPATH_RATE": 0.0,
    "MASK.MAE_ON": True,
    "MASK.MAE_RND_MASK": True,
    "MASK.HEAD_TYPE": "separate_xformer",
    "MASK.DECODER_DEPTH": 1,
    "MASK.DECODER_EMBED_DIM": 16,
    "MASK.DECODER_NUM_HEADS": 2,
    "AUG.MASK_RATIO": 0.75,
}


@pytest.mark.slow
def test_a_masked_autoencoder_learns_and_its_encoder_is_fine_tuned(data, tmp_path):
    """HOG is what its pictures show; the classifier takes all of the encoder, the norm too."""
    folder, tuned = tmp_path / "pretrain", tmp_path / "finetune"
    done = run(data, folder, AUTOENCODER, {"SOLVER.MAX_EPOCH": 6})
    assert done.returncode == 0, done.stderr
    first, *_, last = events(folder, "validation")
    assert last["loss"] < last["baseline"] < first["loss"]
    assert (folder / "predictions.png").read_bytes().startswith(b"\x89PNG")
    start = {
        "TRAIN.CHECKPOINT_FILE_PATH": find_checkpoints(folder / "checkpoints", "ssl")[-1],
        "TRAIN.CHECKPOINT_EPOCH_RESET": True,
        "TRAIN.CHECKPOINT_MIN_COVERAGE": 1.0,
        "SOLVER.MAX_EPOCH": 1,
        "TEST.ENABLE": False,
    }
    done = run(data, tuned, PLAIN, start)
    assert done.returncode == 0, done.stderr
    assert "100.0% of the backbone" in done.stderr
    assert "unused (pre-training)" in done.stderr
    assert "not in the model" not in done.stderr


@pytest.mark.slow
def test_a_compiled_bf16_run_learns_like_a_plain_one(data, whole, tmp_path):
    options = {"TRAIN.PRECISION": "bf16", "TRAIN.COMPILE": True}
    done = run(data, tmp_path, PRETRAINING, options)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path) == pytest.approx(losses(whole), rel=0.1)


@pytest.mark.slow
def test_activation_checkpointing_changes_nothing(data, whole, tmp_path):
    done = run(data, tmp_path, PRETRAINING, {"MODEL.ACT_CHECKPOINT": True})
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path) == pytest.approx(losses(whole), rel=1e-5)
    assert torch.is_tensor(next(iter(_states(tmp_path)["model_state"].values())))
