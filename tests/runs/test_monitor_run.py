"""Figures of the features during a pre-training, from end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.tiny_run import MODEL as TINY
from helpers.tiny_run import (
    PRETRAINING,
    events,
    last_checkpoint,
    losses,
    make_videos,
    pairs,
    run,
    run_two_processes,
)
from PIL import Image

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint, save_checkpoint
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.figures import LOSS_PANEL, MONITOR_PANELS, training_curves
from slowfast_maskfeat.log import read_events
from slowfast_maskfeat.metrics.representation import effective_rank, mean_deviation
from slowfast_maskfeat.probes import neighbor_scores
from slowfast_maskfeat.runs.features import build_frozen_model, extract_features
from slowfast_maskfeat.runs.monitor import CollapseWatch

EVERY_EPOCH = {**PRETRAINING, "TRAIN.MONITOR_PERIOD": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"), num_videos=8, num_classes=2)


@pytest.fixture(scope="module")
def monitored(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("monitored")
    keep = {"TRAIN.KEEP_BEST": "std", "TRAIN.KEEP_CHECKPOINTS": 1}
    done = run(data, output, EVERY_EPOCH, keep, {"TENSORBOARD.ENABLE": True})
    assert done.returncode == 0, done.stderr
    return output, done.stderr


def _best(output):
    return output / "checkpoints" / "ssl_checkpoint_best.pyth"


def _figures(output):
    names = ("epoch", "checkpoint", "num_clips", "knn", "knn_chance", "rank", "std")
    return [{name: event.get(name) for name in names} for event in events(output, "monitor")]


def _features(data, checkpoint, tmp_path):
    """The features that a probe of a checkpoint extracts, and their labels."""
    options = {"DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": tmp_path}
    cfg = load_config([], pairs(TINY, PRETRAINING, options))
    device, source = torch.device("cpu"), DataSource(cfg)
    frozen = build_frozen_model(cfg, str(checkpoint), device, data=source)
    found = extract_features(cfg, "train", frozen, device=device, data=source)
    return found.features[:], found.labels


def test_the_figures_are_those_of_a_probe_of_the_checkpoint(data, monitored, tmp_path):
    output, _ = monitored
    features, labels = _features(data, last_checkpoint(output), tmp_path)
    event = events(output, "monitor")[-1]
    assert event["checkpoint"] == last_checkpoint(output).name
    assert event["num_clips"] == 8
    # Stored features are rounded to half precision.
    assert event["rank"] == pytest.approx(effective_rank(features.float()), rel=1e-2)
    assert event["std"] == pytest.approx(mean_deviation(features.float()), rel=1e-2)
    scores = neighbor_scores(
        features, labels, features, num_classes=2, k=7, leave_one_out=True,
        device=torch.device("cpu"),
    )  # fmt: skip
    assert event["knn"] == pytest.approx(100 * float((scores.argmax(1) == labels).float().mean()))
    assert event["knn_chance"] == 50


def test_measuring_changes_no_loss_and_no_weight(data, monitored, tmp_path):
    output, _ = monitored
    done = run(data, tmp_path, PRETRAINING, {"TRAIN.MONITOR_PERIOD": 0})
    assert done.returncode == 0, done.stderr
    assert not events(tmp_path, "monitor")
    assert losses(tmp_path) == losses(output)
    first, second = (load_checkpoint(last_checkpoint(folder)) for folder in (tmp_path, output))
    assert all(w.equal(second["model_state"][name]) for name, w in first["model_state"].items())
    state, other = (content["random_states"][0]["cpu"] for content in (first, second))
    assert state.equal(other)


def test_a_training_begins_with_the_figures_of_its_first_weights(data, monitored, tmp_path):
    """Those of the untrained network: to compare with, never the best, and no collapse."""
    output, stderr = monitored
    first, *later = events(output, "monitor")
    assert (first["epoch"], first["checkpoint"], first["is_best"]) == (0, None, False)
    assert [event["epoch"] for event in later] == [1, 2]
    assert stderr.count("features before the first epoch: kNN top-1 ") == 1
    cfg = load_config([], pairs(TINY, PRETRAINING, {"DATA.PATH_TO_DATA_DIR": data}))
    torch.manual_seed(cfg.RNG_SEED)
    weights = {"model_state": build_model(cfg, data=DataSource(cfg)).state_dict()}
    features, _ = _features(data, save_checkpoint(tmp_path / "first.pyth", weights), tmp_path)
    assert first["rank"] == pytest.approx(effective_rank(features.float()), rel=1e-2)
    assert first["std"] == pytest.approx(mean_deviation(features.float()), rel=1e-2)


def test_the_best_checkpoint_stays(monitored):
    output, _ = monitored
    _, *measured = events(output, "monitor")
    best = max(measured, key=lambda event: event["std"])
    assert len(measured) == 2
    assert [path.name for path in find_checkpoints(output / "checkpoints", "ssl")] == [
        "ssl_checkpoint_epoch_00002.pyth"
    ]
    content = load_checkpoint(_best(output))
    assert content["epoch"] == best["epoch"] - 1
    assert content["best"] == {"figure": "std", "value": best["std"]}
    expected, largest = [], -np.inf
    for event in measured:
        expected.append(event["std"] > largest)
        largest = max(largest, event["std"])
    assert [event["is_best"] for event in measured] == expected


def test_a_run_that_was_killed_before_a_measurement_makes_it_first(data, monitored, tmp_path):
    whole, _ = monitored
    options = {"TRAIN.KEEP_BEST": "std"}
    assert run(data, tmp_path, EVERY_EPOCH, options).returncode == 0
    log = tmp_path / "stats.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    number = max(n for n, line in enumerate(lines) if json.loads(line)["event"] == "monitor")
    log.write_text("".join(lines[:number]))
    before = _best(tmp_path).read_bytes()
    done = run(data, tmp_path, EVERY_EPOCH, options)
    assert done.returncode == 0, done.stderr
    assert _figures(tmp_path) == _figures(whole)  # the first one is not repeated
    assert _best(tmp_path).read_bytes() == before
    done = run(data, tmp_path, EVERY_EPOCH, options)
    assert len(events(tmp_path, "monitor")) == 3  # nothing is owed any more


@pytest.mark.parametrize("kind", ["monitor", "validation"])
def test_what_was_measured_before_a_checkpoint_is_not_repeated(data, tmp_path, kind):
    """A signal at the end of a measurement saves a checkpoint after its event, not before."""
    rare = {"TRAIN.CHECKPOINT_PERIOD": 5, "SOLVER.MAX_EPOCH": 1}
    assert run(data, tmp_path, EVERY_EPOCH, rare).returncode == 0
    number = len(events(tmp_path, kind))
    path = last_checkpoint(tmp_path)
    content = load_checkpoint(path)
    log = tmp_path / "stats.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    saved = next(event for event in lines if event["event"] == "checkpoint")
    # As it would be logged: the event has no checkpoint, which follows it.
    moved = [event | {"checkpoint": None} for event in lines if event["event"] == kind]
    rest = [event for event in lines if event["event"] != kind and event is not saved]
    log.write_text("".join(json.dumps(event) + "\n" for event in (*rest, *moved, saved)))
    assert content["loop_state"]["measured"] == {"monitor": 0}  # that of the first weights
    content["loop_state"]["measured"] = {kind: 1}
    save_checkpoint(path, content)
    done = run(data, tmp_path, EVERY_EPOCH, rare)
    assert done.returncode == 0, done.stderr
    assert len(events(tmp_path, kind)) == number


def test_a_collapse_is_one_loud_warning(data, tmp_path):
    # Weights that decay to nothing in a step; the floor is above what 8 clips can reach.
    decay = {"SOLVER.BASE_LR": 1.0, "SOLVER.WEIGHT_DECAY": 1.0, "SOLVER.WARMUP_EPOCHS": 0.0}
    done = run(data, tmp_path, EVERY_EPOCH, decay, {"TRAIN.MONITOR_MIN_RANK": 100})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WARNING: THE FEATURES HAVE COLLAPSED") == 1
    before, warned, *_ = (line for line in done.stderr.splitlines() if "features" in line.lower())
    assert before.startswith("features before the first epoch")
    assert warned.startswith("features: ")
    assert "TRAIN.MONITOR_MIN_RANK 100" in done.stderr


NAN = float("nan")


@pytest.mark.parametrize(
    ("first_rank", "max_rank", "ranks", "warnings"),
    [
        (12.0, 96, [8.0, 1.9, 1.2, 3.0, 1.5], [0, 1, 0, 0, 1]),  # once until it has recovered
        (1.8, 96, [1.75, 1.8, 1.1], [0, 0, 1]),  # random weights had few directions, too
        (1.9, 2, [1.8, 1.7, 1.0], [0, 0, 0]),  # two clips can't show it
        (12.0, 96, [NAN, NAN, 5.0], [1, 0, 0]),  # all features are zero, or one is not finite
        (NAN, 96, [3.0, 1.9], [0, 1]),  # that of the first weights is not known
    ],
)
def test_a_collapse_is_noticed_once(first_rank, max_rank, ranks, warnings):
    watch = CollapseWatch(floor=2.0, first_rank=first_rank)
    assert [watch.notices(rank, max_rank=max_rank) for rank in ranks] == list(map(bool, warnings))


def test_the_figures_are_printed_and_no_warning_is(monitored):
    _, stderr = monitored
    assert stderr.count("features: kNN top-1 ") == 2  # and one before the first epoch
    assert "COLLAPSED" not in stderr
    assert stderr.count(" of 8, standard deviation ") == 3  # 8 clips span no more directions
    assert "not measured" not in stderr


def test_the_figures_are_in_tensorboard_and_in_the_curves(monitored):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    output, _ = monitored
    scalars = accumulator.EventAccumulator(str(output / "runs"))
    scalars.Reload()
    measured = events(output, "monitor")
    for name in ("knn", "rank", "std"):
        values = [event.value for event in scalars.Scalars(f"monitor/{name}")]
        assert values == pytest.approx([event[name] for event in measured])
    log = read_events(output / "stats.jsonl")
    panels = (LOSS_PANEL, *MONITOR_PANELS)
    training_curves(output / "with.png", log, panels)
    without = [event for event in log if event["event"] != "monitor"]
    training_curves(output / "without.png", without, panels)
    heights = [Image.open(output / f"{name}.png").height for name in ("with", "without")]
    assert heights[0] > 2 * heights[1]  # five panels instead of two


def test_clips_without_labels_have_no_neighbors(data, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    paths = [line.split(" ")[0] for line in (data / "train.csv").read_text().splitlines()]
    (lists / "train.csv").write_text("".join(f"{path}\n" for path in paths))
    output = tmp_path / "output"
    done = run(lists, output, PRETRAINING, {"SOLVER.MAX_EPOCH": 1})
    assert done.returncode == 0, done.stderr
    measured = events(output, "monitor")
    assert [event["epoch"] for event in measured] == [0, 1]
    assert all("knn" not in event and event["rank"] > 1 for event in measured)
    assert done.stderr.count("TRAIN.MONITOR: knn is not measured: the rows of ") == 1
    done = run(lists, tmp_path / "again", PRETRAINING, {"TRAIN.KEEP_BEST": "knn"})
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "TRAIN.KEEP_BEST must be one of the figures that are measured" in line
    assert "no labels" in line


@pytest.mark.slow
def test_two_processes_measure_what_one_does(data, tmp_path):
    still = {**EVERY_EPOCH, "MVIT.DROPPATH_RATE": 0.0, "TRAIN.KEEP_BEST": "rank"}
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(data, one, still).returncode == 0
    done = run_two_processes(data, two, still)
    assert done.returncode == 0, done.stderr
    for mine, theirs in zip(_figures(one), _figures(two), strict=True):
        assert mine.pop("checkpoint") == theirs.pop("checkpoint")
        assert mine == pytest.approx(theirs, rel=1e-4)
    assert load_checkpoint(_best(two))["best"]["figure"] == "rank"
