"""Weights & Biases, without a connection: the real package, and what it wrote."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.tiny_run import FINETUNING, events, make_videos, run
from helpers.wandb_files import read_offline_runs
from PIL import Image

from slowfast_maskfeat.trackers import TrackedRun, Trackers, WandbTracker

wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install -e '.[wandb]'")

BOTH = {"LOG.TRACKERS": ["tensorboard", "wandb"], "SOLVER.MAX_EPOCH": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    yield
    with suppress(ConnectionResetError):  # of a service that a test has killed
        wandb.teardown()  # it reads its environment once


def facts(folder: Path, *, is_resumed: bool = False, task: str = "ssl") -> TrackedRun:
    config = {"SOLVER.BASE_LR": 0.1, "TRAIN.MONITOR": ["knn", "rank"]}
    return TrackedRun(folder, task, config, is_resumed=is_resumed, event_folder=folder / "runs")


def test_wandb_has_what_tensorboard_has(data, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    output = tmp_path / "run 1"
    done = run(data, output, FINETUNING, BOTH)
    assert done.returncode == 0, done.stderr
    board = accumulator.EventAccumulator(str(output / "runs"))
    board.Reload()
    (tracked,) = read_offline_runs(output / "wandb")
    for name in board.Tags()["scalars"]:
        expected = [(event.step, pytest.approx(event.value)) for event in board.Scalars(name)]
        assert tracked.values(name) == expected, name
    (trained,) = events(output, "test")
    assert tracked.values("test/top1") == [(3, trained["top1"])]
    names = {name for row in tracked.history for name in row if not name.startswith("_")}
    assert names == {"step", *board.Tags()["scalars"], *board.Tags()["images"]}
    (picture,) = [path for path in tracked.files if path.name.startswith("curves_")]
    assert picture.read_bytes() == (output / "curves.png").read_bytes()
    assert (tracked.project, tracked.name) == ("slowfast_maskfeat", "run 1")
    assert (tracked.step_metric, tracked.exit_code) == ("step", 0)
    (text,) = board.Tensors("configuration/text_summary")[0].tensor_proto.string_val
    shown = {f"    {key}: {value}" for key, value in tracked.config.items() if key != "_wandb"}
    assert shown == set(text.decode().splitlines())


def test_a_resumed_training_continues_its_run_and_another_does_not(data, tmp_path):
    options = (FINETUNING, {"LOG.TRACKERS": "wandb", "TEST.ENABLE": False})
    other = {"TASK": "other", "SOLVER.MAX_EPOCH": 1, "TRAIN.CHECKPOINT_EPOCH_RESET": True}
    for pairs in ({"SOLVER.MAX_EPOCH": 1}, {"SOLVER.MAX_EPOCH": 2}, other):
        time.sleep(1)  # wandb names a run's folder by its id and the second of its start
        done = run(data, tmp_path, *options, pairs)
        assert done.returncode == 0, done.stderr
    first, second, third = read_offline_runs(tmp_path / "wandb")
    assert first.run_id == second.run_id != third.run_id
    assert [step for step, _ in first.values("train/loss")] == [1, 2, 3]
    assert [step for step, _ in second.values("train/loss")] == [4, 5, 6]


def test_its_environment_variables_name_project_and_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_NAME", "first")
    WandbTracker(facts(tmp_path)).close(failed=True)
    (tracked,) = read_offline_runs(tmp_path / "wandb")
    assert (tracked.project, tracked.name, tracked.exit_code) == ("mine", "first", 1)
    assert tracked.config["TRAIN.MONITOR"] == ["knn", "rank"]


def test_repeated_steps_are_kept(tmp_path):
    picture = tmp_path / "panel.png"
    Image.new("RGB", (4, 4)).save(picture)
    with Trackers() as trackers:
        trackers.add(WandbTracker(facts(tmp_path)))
        for step in (5, 6, 5, 6):
            trackers.scalars({"train/loss": 1 / step}, step=step)
        trackers.picture(picture)
    (tracked,) = read_offline_runs(tmp_path / "wandb")
    assert tracked.values("train/loss") == [(s, 1 / s) for s in (5, 6, 5, 6)]
    assert [step for step, _ in tracked.values("panel")] == [6]


def test_without_a_key_a_run_does_not_begin(data, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    done = run(data, tmp_path / "run", FINETUNING, {"LOG.TRACKERS": "wandb"})
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: LOG.TRACKERS wandb can't start: ")
    assert "WANDB_MODE=offline" in line
    assert "Traceback" not in done.stderr
    assert events(tmp_path / "run", "train") == []


def test_a_service_that_dies_ends_no_run(tmp_path, capfd):
    with Trackers() as trackers:
        trackers.add(WandbTracker(facts(tmp_path)))
        children = subprocess.run(
            ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="], capture_output=True, text=True
        )
        found = [line.split() for line in children.stdout.splitlines() if "wandb" in line]
        assert found
        for number, _ in found:
            os.kill(int(number), signal.SIGKILL)
        for step in range(50):
            trackers.scalars({"train/loss": 1.0}, step=step)
        assert trackers.step == 49
    assert capfd.readouterr().err.count("warning: wandb tracks this run no longer: ") == 1
