"""The trackers of a run: what they receive, TensorBoard's files, and one that fails."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_run import (
    FINETUNING,
    PRETRAINING,
    events,
    make_videos,
    run,
    run_two_processes,
)
from PIL import Image

from slowfast_maskfeat.builders.trackers import tracker_names
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.trackers import TRACKERS, TrackedRun, Tracker, Trackers

ONE_EPOCH = {"SOLVER.MAX_EPOCH": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


class Recorder(Tracker):
    """Keeps what it receives; fails at a step if told to."""

    name = "recorder"
    module = "json"
    opened: list[Recorder]
    fails_at = math.inf

    def __init__(self, run: TrackedRun) -> None:
        self.folder = run.folder / "recorded"
        self.run = run
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[tuple[int, Path]] = []
        self.ends: list[bool] = []
        type(self).opened.append(self)

    def scalars(self, step, values):
        if step >= self.fails_at:
            raise ConnectionError("the server is gone\nand more lines")
        self.rows.append((step, dict(values)))

    def picture(self, step, path):
        Image.open(path).verify()
        self.pictures.append((step, path))

    def close(self, *, failed):
        self.ends.append(failed)

    def values(self, name):
        return [(step, row[name]) for step, row in self.rows if name in row]


@pytest.fixture
def recorder(monkeypatch):
    """A kind of tracker; `opened` has those of the runs."""

    class Mine(Recorder):
        opened: list[Recorder] = []  # noqa: RUF012 - of this class alone

    monkeypatch.setitem(TRACKERS, Mine.name, Mine)
    return Mine


def test_a_training_and_its_test_are_tracked(data, tmp_path, recorder):
    done = run(data, tmp_path, FINETUNING, {"LOG.TRACKERS": ["recorder"]})
    assert done.returncode == 0, done.stderr
    (tracked,) = recorder.opened
    trained, validated = events(tmp_path, "train"), events(tmp_path, "validation")
    for name in ("loss", "top1", "lr", "clips_per_second"):
        assert tracked.values(f"train/{name}") == [(e["step"], e[name]) for e in trained]
    for name in ("loss", "top1", "top5"):
        expected = [(3 * e["epoch"], e[name]) for e in validated]
        assert tracked.values(f"validation/{name}") == expected
        (test,) = events(tmp_path, "test")
        assert tracked.values(f"test/{name}") == [(6, test[name])]
    groups = {name.split("/")[0] for _, row in tracked.rows for name in row}
    assert groups == {"train", "validation", "test"}
    assert not any("num_videos" in name for _, row in tracked.rows for name in row)
    assert tracked.pictures == [(6, tmp_path / "curves.png")]
    assert tracked.ends == [False]
    assert tracked.run.config["MODEL.NUM_CLASSES"] == 3
    assert tracked.run.config["LOG.TRACKERS"] == ["recorder"]
    assert not tracked.run.is_resumed
    assert f"wrote {tracked.folder}" in done.stdout


def test_a_pre_training_has_its_monitor_and_predictions(data, tmp_path, recorder):
    done = run(data, tmp_path, PRETRAINING, ONE_EPOCH, {"LOG.TRACKERS": "recorder"})
    assert done.returncode == 0, done.stderr
    (tracked,) = recorder.opened
    measured = events(tmp_path, "monitor")
    assert tracked.values("monitor/rank") == [(3 * e["epoch"], e["rank"]) for e in measured]
    names = [(step, path.name) for step, path in tracked.pictures]
    assert names == [(3, "curves.png"), (3, "predictions.png")]


def test_several_tests_have_names_of_their_own(data, tmp_path, recorder):
    several = {"LOG.TRACKERS": "recorder", "TEST.NUM_TEMPORAL_CLIPS": [1, 2]}
    done = run(data, tmp_path, FINETUNING, ONE_EPOCH, several)
    assert done.returncode == 0, done.stderr
    (tracked,) = recorder.opened
    for test in events(tmp_path, "test"):
        name = f"test_{test['num_views']}/top1"
        assert tracked.values(name) == [(3, test["top1"])]


def test_a_tracker_that_fails_warns_once_and_the_others_go_on(data, tmp_path, recorder):
    class Failing(recorder):
        name = "failing"
        opened: list[Recorder] = []  # noqa: RUF012
        fails_at = 2

    TRACKERS["failing"] = Failing
    try:
        done = run(data, tmp_path, FINETUNING, {"LOG.TRACKERS": ["failing", "recorder"]})
    finally:
        del TRACKERS["failing"]
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "failing" in line and "warn" in line]
    assert lines == [
        "warning: failing tracks this run no longer: ConnectionError: the server is gone"
    ]
    (failed,), (tracked,) = Failing.opened, recorder.opened
    assert [step for step, _ in failed.rows] == [1]
    assert len(tracked.values("train/loss")) == 6
    assert tracked.ends == [False]
    assert (failed.pictures, failed.ends) == ([], [])


def test_a_run_that_fails_closes_its_trackers_as_failed(data, tmp_path, recorder):
    broken = {"LOG.TRACKERS": "recorder", "TRAIN.MAX_NONFINITE": 1, "SOLVER.BASE_LR": 1e30}
    done = run(data, tmp_path, FINETUNING, broken)
    assert done.returncode == 2, done.stderr
    (tracked,) = recorder.opened
    assert tracked.ends == [True]


def test_a_resumed_run_knows_that_it_is_one(data, tmp_path, recorder):
    options = (FINETUNING, {"LOG.TRACKERS": "recorder", "TEST.ENABLE": False})
    for epochs in (1, 2):
        done = run(data, tmp_path, *options, {"SOLVER.MAX_EPOCH": epochs})
        assert done.returncode == 0, done.stderr
    assert [tracked.run.is_resumed for tracked in recorder.opened] == [False, True]
    assert [step for step, _ in recorder.opened[1].values("train/loss")] == [4, 5, 6]


def test_a_test_alone_is_not_tracked(data, tmp_path, recorder):
    done = run(data, tmp_path, FINETUNING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    done = run(data, tmp_path, FINETUNING, {"LOG.TRACKERS": "recorder", "TRAIN.ENABLE": False})
    assert done.returncode == 0, done.stderr
    assert recorder.opened == []


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_named_before_any_work(
    name, data, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, TRACKERS[name].module, None)
    done = run(data, tmp_path / "run", FINETUNING, {"LOG.TRACKERS": name})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: LOG.TRACKERS {name} requires a package that is not installed: "
        f"pip install 'slowfast_maskfeat[{name}]'"
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_with_the_name_of_a_tracker_is_no_installation(tmp_path, monkeypatch):
    """Wandb makes such a folder where a script runs."""

    class Mine(Recorder):
        module = "a_tracker_of_nobody"

    (tmp_path / Mine.module).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"LOG\.TRACKERS recorder requires .* is not installed"):
        Mine.check()
    (tmp_path / "broken_tracker.py").write_text("raise ImportError('no libx\\nmore')\n")
    Mine.module = "broken_tracker"
    with pytest.raises(ValueError, match=r"can't be imported \(no libx\): pip install"):
        Mine.check()


def test_the_published_key_of_tensorboard_is_a_tracker():
    def chosen(*pairs):
        return tracker_names(load_config([], list(pairs)))

    assert chosen() == []
    assert chosen("TENSORBOARD.ENABLE", "True") == ["tensorboard"]
    both = ["LOG.TRACKERS", "[wandb, tensorboard]", "TENSORBOARD.ENABLE", "True"]
    assert chosen(*both) == ["tensorboard", "wandb"]
    assert chosen("LOG.TRACKERS", "[wandb]") == chosen("LOG.TRACKERS", "wandb") == ["wandb"]
    message = r"LOG\.TRACKERS must be a list of 'tensorboard', 'wandb', or empty, got \['tensorbo\w"
    with pytest.raises(ValueError, match=message):
        chosen("LOG.TRACKERS", "[tensorbord]")


def test_tensors_are_numbers_and_steps_are_kept(tmp_path, recorder):
    with Trackers() as trackers:
        trackers.scalars({"train/loss": torch.tensor(0.5)}, step=3)  # nobody listens
        trackers.add(recorder(_facts(tmp_path)))
        trackers.scalars({"train/loss": torch.tensor(0.5)}, step=4)
        trackers.scalars({"test/top1": np.float32(1.0)})
    (tracked,) = recorder.opened
    assert tracked.rows == [(4, {"train/loss": 0.5}), (4, {"test/top1": 1.0})]
    assert all(type(value) is float for _, row in tracked.rows for value in row.values())


def _facts(folder: Path) -> TrackedRun:
    config = {"SOLVER.BASE_LR": 0.1, "TRAIN.MONITOR": ["knn", "rank"]}
    return TrackedRun(folder, "ssl", config, is_resumed=False, event_folder=folder / "runs")


def test_the_events_of_tensorboard_read_back(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    picture = tmp_path / "curves.png"
    Image.new("RGBA", (7, 5), (255, 0, 0, 255)).save(picture)
    with Trackers() as trackers:
        trackers.add(TRACKERS["tensorboard"](_facts(tmp_path)))
        trackers.scalars({"train/loss": 1.5, "train/lr": 0.25}, step=3)
        trackers.picture(picture)
    read = accumulator.EventAccumulator(str(tmp_path / "runs"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("train/loss")] == [(3, 1.5)]
    assert [(e.step, e.value) for e in read.Scalars("train/lr")] == [(3, 0.25)]
    (image,) = read.Images("curves")
    assert (image.step, image.width, image.height) == (3, 7, 5)
    (tag,) = read.Tags()["tensors"]
    (text,) = read.Tensors(tag)[0].tensor_proto.string_val
    assert text.decode().splitlines() == [
        "    SOLVER.BASE_LR: 0.1",
        "    TRAIN.MONITOR: ['knn', 'rank']",
    ]


@pytest.mark.slow
def test_only_the_first_of_two_processes_tracks(data, tmp_path):
    pytest.importorskip("tensorboard")
    tracked = {"LOG.TRACKERS": "tensorboard", "TENSORBOARD.LOG_DIR": "board"}
    done = run_two_processes(data, tmp_path, PRETRAINING, ONE_EPOCH, tracked)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "board").iterdir())) == 1
