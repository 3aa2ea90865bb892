"""Whole runs with every augmentation: resuming, parts, processes, workers."""

from __future__ import annotations

import pytest
from helpers.tiny_run import (
    PRETRAINING,
    events,
    kill_and_resume,
    losses,
    make_videos,
    run,
    run_two_processes,
)

# All draws are strong and frequent, so that a run that lost one would show it.
AUGMENTED = {
    "TASK": "augmented",
    "MODEL.LOSS_FUNC": "soft_cross_entropy",
    "MODEL.DROPOUT_RATE": 0.0,
    "MVIT.DROPPATH_RATE": 0.0,
    "AUG.ENABLE": True,
    "AUG.AA_TYPE": "rand-m9-n4-mstd0.5-inc1",
    "DATA.SSL_COLOR_JITTER": True,
    "DATA.SSL_MOCOV2_AUG": True,
    "AUG.RE_PROB": 0.7,
    "AUG.RE_COUNT": 2,
    "AUG.NUM_SAMPLE": 2,
    "MIXUP.ENABLE": True,
    "TEST.ENABLE": False,
    "TRAIN.EVAL_PERIOD": 2,
}
ON_DEVICE = {"AUG.ON_DEVICE": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Two epochs of three steps that nothing interrupts."""
    output = tmp_path_factory.mktemp("whole")
    done = run(data, output, AUGMENTED)
    assert done.returncode == 0, done.stderr
    return output


def _assert_close(output, whole):
    first, second = events(whole, "train"), events(output, "train")
    for name in ("loss", "gradient_norm", "top1"):
        # The first step starts from the same weights; the later ones add up the rounding.
        assert second[0][name] == pytest.approx(first[0][name], rel=1e-5)
        assert [e[name] for e in second] == pytest.approx([e[name] for e in first], rel=1e-3)


def test_a_run_with_everything_on_trains_and_validates(whole):
    assert sorted(losses(whole)) == [1, 2, 3, 4, 5, 6]
    for event in events(whole, "train"):
        assert 0 <= event["top1"] <= 100
    (validation,) = events(whole, "validation")
    assert validation["num_videos_scored"] == 12


def test_augmenting_on_the_device_changes_rounding_alone(data, whole, tmp_path):
    done = run(data, tmp_path, AUGMENTED, ON_DEVICE, {"TRAIN.ACCUMULATION_STEPS": 2})
    assert done.returncode == 0, done.stderr
    ours, workers = losses(tmp_path), losses(whole)
    assert ours != workers
    assert list(ours.values()) == pytest.approx(list(workers.values()), rel=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "where"), [(0, {}), (2, {}), (2, ON_DEVICE)])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(data, whole, tmp_path, workers, where):
    options = {"DATA_LOADER.NUM_WORKERS": workers, **where}
    kill_and_resume(data, tmp_path, AUGMENTED, options, step=2)
    if where:
        whole = tmp_path / "whole"
        assert run(data, whole, AUGMENTED, where).returncode == 0
    assert losses(tmp_path) == losses(whole)


@pytest.mark.slow
def test_parts_of_a_batch_equal_the_batch(data, whole, tmp_path):
    done = run(data, tmp_path, AUGMENTED, {"TRAIN.ACCUMULATION_STEPS": 2})
    assert done.returncode == 0, done.stderr
    _assert_close(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("where", [{}, ON_DEVICE], ids=["workers", "device"])
def test_two_processes_equal_one(data, whole, tmp_path, where):
    done = run_two_processes(data, tmp_path, AUGMENTED, where)
    assert done.returncode == 0, done.stderr
    if where:
        whole = tmp_path / "whole"
        assert run(data, whole, AUGMENTED, where).returncode == 0
    _assert_close(tmp_path, whole)


@pytest.mark.slow
def test_pre_training_with_augmented_and_repeated_clips_runs(data, tmp_path):
    options = {key: AUGMENTED[key] for key in AUGMENTED if key.startswith("AUG.")}
    for where in ({}, ON_DEVICE):
        folder = tmp_path / str(len(where))
        done = run(data, folder, PRETRAINING, options, where, {"SOLVER.MAX_EPOCH": 1})
        assert done.returncode == 0, done.stderr
        assert sorted(losses(folder)) == [1, 2, 3]
        assert (folder / "predictions.png").exists()


def test_mixing_single_clips_is_one_line_and_exit_code_2(data, tmp_path):
    options = {"TRAIN.BATCH_SIZE": 1, "AUG.NUM_SAMPLE": 1}
    done = run(data, tmp_path, AUGMENTED, options)
    assert done.returncode == 2
    assert "TRAIN.BATCH_SIZE must give each process at least 2 clips" in done.stderr
    assert "Traceback" not in done.stderr
