"""Figures of a run: which clips and steps they show, and that a run ends well without them."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_run import FINETUNING, MODEL, PRETRAINING, events, make_videos, pairs, run

from slowfast_maskfeat.builders import build_loader, build_model, build_optimizer, build_task
from slowfast_maskfeat.builders.optimizer import build_schedule
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.ema import WeightAverage
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.runs.figures import (
    draw_predictions,
    predictions_title,
    read_events,
    select_steps,
    spread_rows,
)

ONE_EPOCH = {"SOLVER.MAX_EPOCH": 1, "LOG_PERIOD": 100, "TEST.NUM_ENSEMBLE_VIEWS": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve videos in folders with the same file names, sorted by class as in many lists."""
    folder = make_videos(tmp_path_factory.mktemp("data"))
    rows = []
    for number in range(12):
        path = folder / f"kind_{number // 4}" / f"clip_{number % 4}.mp4"
        path.parent.mkdir(exist_ok=True)
        (folder / f"{number}.mp4").rename(path)
        rows.append(f"{path} {number // 4}\n")
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("".join(rows))
    return folder


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("pretrained")
    done = run(data, output, PRETRAINING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    return output, done


@pytest.fixture(scope="module")
def finetuned(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("finetuned")
    done = run(data, output, FINETUNING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    return output, done


def test_a_run_ends_with_a_line_for_each_file(pretrained, finetuned):
    output, done = pretrained
    checkpoint = output / "checkpoints" / "ssl_checkpoint_epoch_00001.pyth"
    files = [output / "stats.jsonl", checkpoint, output / "curves.png", output / "predictions.png"]
    assert done.stdout.splitlines() == [f"wrote {path}" for path in files]
    output, done = finetuned
    checkpoint = output / "checkpoints" / "ssl_eval_checkpoint_epoch_00001.pyth"
    files = [output / "stats.jsonl", checkpoint, output / "curves.png"]
    names = ("test_scores_1x1.npz", "report.html", "report.json")
    files += [output / name for name in names]
    assert done.stdout.splitlines() == [f"wrote {path}" for path in files]
    assert all(path.is_file() for path in files)


def test_only_checkpoints_that_remain_are_listed(data, tmp_path):
    step = {"TRAIN.CHECKPOINT_STEP_PERIOD": 1, "TRAIN.KEEP_CHECKPOINTS": 2}
    done = run(data, tmp_path, PRETRAINING, ONE_EPOCH, step)
    listed = [line for line in done.stdout.splitlines() if line.endswith(".pyth")]
    kept = sorted((tmp_path / "checkpoints").iterdir())
    assert listed == [f"wrote {path}" for path in kept]
    assert len(kept) == 2


def test_the_learning_rate_is_logged_for_epochs_shorter_than_a_log_period(pretrained):
    output, _ = pretrained
    assert events(output, "train") == []
    (epoch,) = events(output, "epoch")
    schedule = build_schedule(load_config([], pairs(MODEL, PRETRAINING, ONE_EPOCH)))
    assert epoch["lr"] == schedule(2 / 3)  # of the last of three steps


def test_a_finished_run_of_which_only_checkpoints_are_kept_is_tested(data, finetuned, tmp_path):
    again = shutil.copytree(finetuned[0], tmp_path / "again")
    for path in again.iterdir():
        if path.name != "checkpoints":
            path.unlink()
    done = run(data, again, FINETUNING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert events(again, "validation")  # its result was lost with the log
    assert events(again, "test")


def test_a_finished_run_is_tested_although_its_curves_cannot_be_drawn(data, finetuned, tmp_path):
    again = shutil.copytree(finetuned[0], tmp_path / "again")
    (again / "curves.png").unlink()
    (again / "curves.png").mkdir()
    done = run(data, again, FINETUNING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == [f"warning: {again / 'curves.png'} is not drawn: Is a directory"]
    assert events(again, "test")
    assert f"wrote {again / 'curves.png'}" not in done.stdout


@pytest.mark.parametrize("library", ["matplotlib", "matplotlib.figure"])
def test_a_run_needs_no_matplotlib(data, pretrained, tmp_path, library, monkeypatch):
    again = shutil.copytree(pretrained[0], tmp_path / "again")
    monkeypatch.setitem(sys.modules, library, None)  # imports of it fail
    done = run(data, again, PRETRAINING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.split(" is not drawn: ")[0] for line in warnings] == [
        f"warning: {again / name}" for name in ("curves.png", "predictions.png")
    ]
    assert all("matplotlib" in line for line in warnings)


def test_damaged_lines_of_a_log_are_left_out(data, pretrained, tmp_path):
    again = shutil.copytree(pretrained[0], tmp_path / "again")
    (again / "curves.png").unlink()
    with open(again / "stats.jsonl", "ab") as file:
        file.write(b'{"event": "train", "epo\n\x00\xff\x00\n[1, 2]\n{"epoch": 3}\n')
        file.write(b'{"event": "epoch", "epoch": "one", "loss": [1], "lr": true}\n{"event": "x')
    done = run(data, again, PRETRAINING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    log = again / "stats.jsonl"
    number = len((pretrained[0] / "stats.jsonl").read_bytes().splitlines()) + 1
    assert f"warning: {log}: 5 lines are left out, which are no events in JSON" in done.stderr
    assert f"such as line {number}\n" in done.stderr
    assert (again / "curves.png").is_file()


def test_events_of_a_log(tmp_path, capsys):
    log = tmp_path / "stats.jsonl"
    log.write_text('{"event": "epoch", "epoch": 1}\n\n{"event": "epoch", "epoch": 2}')
    assert [event["epoch"] for event in read_events(log)] == [1, 2]
    assert capsys.readouterr().err == ""
    log.write_text('{"event": "epoch"}\n' + "[" * 100_000)
    assert len(read_events(log)) == 1
    assert (
        "1 line is left out, which is no event in JSON, such as line 2" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("num_rows", "count", "labels", "expected"),
    [
        (12, 4, None, [1, 4, 7, 10]),
        (4, 4, None, [0, 1, 2, 3]),
        (1, 1, None, [0]),
        (12, 4, [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3, [1, 4, 7, 10]),
        # Evenly spaced rows would all be of class 1.
        (12, 3, [1, 0, 1, 2] * 3, [2, 5, 11]),
        (8, 4, [0] * 8, [1, 3, 5, 7]),
        (8, 4, [0] * 7 + [1], [1, 5, 6, 7]),
    ],
)
def test_rows_are_spread_over_list_and_classes(num_rows, count, labels, expected):
    found = spread_rows(num_rows, count, None if labels is None else np.array(labels))
    assert found.tolist() == expected


def test_rows_of_many_classes_are_all_of_different_ones():
    labels = np.repeat(np.arange(400), 600)
    rows = spread_rows(len(labels), 4, labels)
    assert len(set(labels[rows].tolist())) == 4
    assert np.diff(rows).min() > len(labels) / 5
    shuffled = np.random.default_rng(0).permutation(np.array([0] * 997 + [1, 2, 3]))
    assert sorted(shuffled[spread_rows(1000, 4, shuffled)].tolist()) == [0, 1, 2, 3]


def test_steps_with_a_visible_and_a_masked_part_come_first():
    assert select_steps([0.0, 0.2, 1.0, 0.95]) == [1, 3]
    assert select_steps([0.0, 1.0, 0.0, 1.0]) == [1, 3]
    assert select_steps([0.0, 0.0]) == [0, 1]


def _draw_clips(data: Path, path: Path, *options: dict, averaged: bool = False) -> Path:
    """Draw the predictions of random weights, which may be an average beside others."""
    cfg = load_config([], pairs(MODEL, {"DATA.PATH_TO_DATA_DIR": data}, PRETRAINING, *options))
    torch.manual_seed(0)
    model = build_model(cfg)
    stepper = GradientStep(build_optimizer(cfg, model))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = TrainState(model, build_task(cfg, model), stepper, scaler)
    loader = build_loader(cfg, "val")
    if averaged:
        state.average = WeightAverage(model, 0.9)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
    assert draw_predictions(cfg, state, loader, torch.device("cpu"), path, "after epoch 3")
    return path


def _texts(path: Path) -> list[str]:
    """Texts of an SVG file, in order; matplotlib writes each as a comment before its outlines."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))


def test_the_averaged_weights_are_drawn(data, tmp_path):
    """They are what a validation measures."""
    alone = _draw_clips(data, tmp_path / "a.png")
    assert _draw_clips(data, tmp_path / "b.png", averaged=True).read_bytes() == alone.read_bytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_drawn_clips_are_named(data, tmp_path, workers):
    texts = _texts(_draw_clips(data, tmp_path / "x.svg", {"DATA_LOADER.NUM_WORKERS": workers}))
    assert [text for text in texts if ".mp4" in text] == [
        f"kind_{number // 4}/clip_{number % 4}.mp4" for number in (1, 4, 8, 10)
    ]
    assert "after epoch 3" in texts
    assert not any("clip 1" in text for text in texts)


def test_only_drawn_clips_are_decoded(data):
    cfg = load_config([], pairs(MODEL, {"DATA.PATH_TO_DATA_DIR": data}, PRETRAINING))
    loader, decoded = build_loader(cfg, "val"), []

    def watching(row: int) -> contextlib.AbstractContextManager[None]:
        decoded.append(row)
        return contextlib.nullcontext()

    loader.dataset.watching = watching
    (batch,) = loader.of_rows(np.array([2, 7, 11])).epoch(0)
    assert batch.index.tolist() == decoded == [2, 7, 11]
    whole = {
        int(row): clip for b in loader.epoch(0) for row, clip in zip(b.index, b.clips, strict=True)
    }
    assert len(whole) == 12  # the loader itself still has all
    assert all(
        torch.equal(clip, whole[row]) for row, clip in zip(decoded[:3], batch.clips, strict=True)
    )


def test_a_frame_with_masked_tokens_is_drawn(data, tmp_path):
    """Frame masks hide one of the two time steps: the one that is drawn."""
    frames = {"AUG.MASK_FRAMES": True, "AUG.MASK_RATIO": 0.5}
    cfg = load_config([], pairs(MODEL, {"DATA.PATH_TO_DATA_DIR": data}, PRETRAINING, frames))
    (batch,) = build_loader(cfg, "val").of_rows(spread_rows(12, 4, None)).epoch(0)
    masked = batch.mask.flatten(2).any(2).int().argmax(1)
    expected = [f"frame {2 * step + 1} of 4" for step in masked.tolist()]
    texts = _texts(_draw_clips(data, tmp_path / "x.svg", frames))
    assert [text for text in texts if text.startswith("frame ")] == expected
    assert len(set(expected)) == 2


def test_the_title_has_epoch_and_loss(pretrained, data, tmp_path):
    """The same picture comes from the weights of the run with this title."""
    output, _ = pretrained
    (validation,) = events(output, "validation")
    title = "predictions of masked tokens after epoch 1, validation loss"
    again = shutil.copytree(output, tmp_path / "again")
    drawn = (again / "predictions.png").read_bytes()
    (again / "predictions.png").unlink()
    assert run(data, again, PRETRAINING, ONE_EPOCH).returncode == 0
    assert (again / "predictions.png").read_bytes() == drawn
    log = read_events(output / "stats.jsonl")
    assert predictions_title(log, 1) == f"{title} {validation['loss']:.4g}"
    assert predictions_title([], 7) == "predictions of masked tokens after epoch 7"


def test_no_clip_can_be_decoded(pretrained, data, tmp_path):
    """The finished run has nothing to decode but the drawn clips."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "val"):
        rows = [f"{folder / f'{number}.mp4'} 0\n" for number in range(12)]
        (folder / f"{split}.csv").write_text("".join(rows))
    for number in range(12):
        (folder / f"{number}.mp4").write_text("no video")
    shutil.copy(data / "classes.txt", folder)
    with pytest.raises(ValueError, match=r"no drawn clip can be decoded, such as .*1\.mp4: "):
        _draw_clips(folder, tmp_path / "x.svg")
