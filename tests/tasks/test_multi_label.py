"""Clips with any number of labels: loss, targets, evaluation and the whole way of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.load_tool import run_tool
from helpers.report_page import numbers, read_report
from helpers.tiny_run import (
    FINETUNING,
    MODEL,
    events,
    last_checkpoint,
    make_videos,
    pairs,
    run,
    run_two_processes,
)
from torch import nn

from slowfast_maskfeat.augment.mixing import Mix, MixDraw
from slowfast_maskfeat.builders import build_task
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.metrics.multi_label import average_precisions
from slowfast_maskfeat.metrics.saved_scores import read_scores
from slowfast_maskfeat.tasks import MultiLabelClassification

SIGMOID = {"MODEL.LOSS_FUNC": "bce_logit", "MODEL.HEAD_ACT": "sigmoid"}
LABELS = ("0", "1,2", "0,2", "", "2", "0,1,2", "1", "0,1")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight videos with labels of three classes, of which the validation has half."""
    folder = make_videos(tmp_path_factory.mktemp("data"), num_videos=8)
    rows = [f'{folder / f"{n}.mp4"},"{labels}"\n' for n, labels in enumerate(LABELS)]
    for split, count in (("train", 8), ("val", 4), ("test", 8)):
        (folder / f"{split}.csv").write_text("".join(rows[:count]))
    return folder


MULTI = {**FINETUNING, **SIGMOID, "DATA.PATH_LABEL_SEPARATOR": ",", "DATA.ENSEMBLE_METHOD": "max"}
SHORT = {"SOLVER.MAX_EPOCH": 1, "TEST.REPORT_VIDEOS": 2}


@pytest.fixture(scope="module")
def tested(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("tested")
    done = run(data, output, MULTI, SHORT)
    assert done.returncode == 0, done.stderr
    return output, done.stderr


def _hot() -> np.ndarray:
    hot = np.zeros((8, 3), np.int64)
    for row, labels in enumerate(LABELS):
        hot[row, [int(label) for label in labels.split(",") if label]] = 1
    return hot


class _Fixed(nn.Module):
    """Gives the same logits for every batch."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, clips):
        return self.logits[: len(clips)]


def _task() -> MultiLabelClassification:
    cfg = load_config([], pairs(MODEL, FINETUNING, SIGMOID))
    task = build_task(cfg, nn.Linear(1, 1))
    assert isinstance(task, MultiLabelClassification)
    return task


def test_the_loss_is_the_mean_over_clips_and_classes():
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    model, clips = _Fixed(logits), torch.zeros(2, 3, 4, 32, 32, dtype=torch.uint8)
    output = _task().step(model, ClipBatch(clips, labels=targets))
    probability = logits.double().sigmoid()
    terms = -(targets * probability.log() + (1 - targets) * (1 - probability).log())
    assert float(output.loss.detach()) == pytest.approx(float(terms.mean()), rel=1e-6)
    assert float(output.weight) == 2
    assert output.scalars == {}
    output.loss.backward()
    expected = (probability - targets) / 6
    torch.testing.assert_close(model.logits.grad.double(), expected, rtol=1e-5, atol=1e-7)


def test_class_numbers_are_sets_of_one():
    clips = torch.zeros(2, 3, 4, 32, 32, dtype=torch.uint8)
    model = _Fixed(torch.randn(2, 3))
    one = _task().step(model, ClipBatch(clips, labels=torch.tensor([2, 0])))
    hot = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert one.loss.equal(_task().step(model, ClipBatch(clips, labels=hot)).loss)


def test_mixup_mixes_and_smooths_sets_of_labels():
    mix = Mix(num_classes=4, label_smoothing=0.1)
    single = torch.tensor([1, 3])
    draw = MixDraw(0.7)
    expected = mix.labels(single, draw)
    hot = torch.eye(4)[single]
    torch.testing.assert_close(mix.labels(hot, draw), expected)
    both = mix.labels(torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), MixDraw(1.0))
    torch.testing.assert_close(both, torch.tensor([[0.925, 0.925, 0.025, 0.025], [0.025] * 4]))


def test_a_test_reports_the_precision_of_each_class(data, tested):
    output, stderr = tested
    (event,) = events(output, "test")
    saved = read_scores(event["scores"])
    assert saved.labels.tolist() == _hot().tolist()
    assert ((saved.scores > 0) & (saved.scores < 1)).all()  # of a sigmoid
    assert not np.allclose(saved.scores.sum(1), 1)
    expected = average_precisions(saved.scores, _hot())
    assert event["mean_ap"] == pytest.approx(expected.mean())
    assert list(event["per_class_ap"].values()) == pytest.approx(expected.tolist())
    assert event["per_class_videos"] == {"class 0": 4, "class 1": 4, "class 2": 4}
    assert event["num_clips"] == event["num_clips_expected"] == 16
    assert f"mAP {100 * event['mean_ap']:.2f} over 3 of 3 classes" in stderr
    (validation,) = events(output, "validation")
    assert validation["num_videos"] == 4
    assert "top1" not in event


def test_the_report_has_precisions_instead_of_confusions(tested):
    output, _ = tested
    content, page = read_report(output)
    (event,) = events(output, "test")
    assert content["kind"] == "multi-label"
    assert content["mean_ap"] == float(page.tiles["mean_ap"]) == event["mean_ap"]
    table = page.tables["classes"]
    assert numbers(table, "ap") == [100 * ap for ap in event["per_class_ap"].values()]
    assert numbers(table, "num_videos") == list(event["per_class_videos"].values())
    assert page.matrix is None
    shown = content["worst"] + content["best"]
    assert page.pictures == [f"frames of {of['path']}" for of in shown]
    assert 0 < len(content["worst"]) <= 2
    hot, scores = _hot(), read_scores(event["scores"]).scores
    for of in content["worst"]:
        best = int(scores[of["row"]].argmax())
        assert not hot[of["row"], best]
        assert of["predicted"][0][0] == f"class {best}"
    for of in content["best"]:
        assert hot[of["row"], scores[of["row"]].argmax()]


def test_the_report_can_be_made_again_but_not_compared(tested, tmp_path):
    output, _ = tested
    scores = events(output, "test")[0]["scores"]
    command = "slowfast_maskfeat/commands/report.py"
    done = run_tool(command, "--scores", scores, "--output", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    again, first = (read_report(folder).content for folder in (tmp_path / "again", output))
    assert again["classes"] == first["classes"]
    done = run_tool(command, "--scores", scores, scores, "--output", tmp_path / "two")
    assert done.returncode == 2
    assert "must have one label for each video to compare tests, got several" in done.stderr


def test_a_prediction_has_the_scores_of_the_test(data, tested):
    output, _ = tested
    scores = read_scores(events(output, "test")[0]["scores"]).scores
    options = ["--checkpoint", last_checkpoint(output, "ssl_eval"), "--json", "--device", "cpu"]
    done = run_tool("tools/predict.py", "--video", data / "3.mp4", *options)
    assert done.returncode == 0, done.stderr
    found = {of["class"]: of["score"] for of in json.loads(done.stdout)["top"]}
    assert [found[n] for n in range(3)] == pytest.approx(scores[3].tolist(), abs=1e-5)


def test_single_labels_are_learned_one_by_one_too(data, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    rows = "".join(f"{data / f'{n}.mp4'},{n % 3}\n" for n in range(6))
    for split in ("train", "val", "test"):
        (lists / f"{split}.csv").write_text(rows)
    (lists / "classes.txt").write_text("a\nb\nc\n")
    done = run(lists, tmp_path / "out", MULTI, SHORT, {"MIXUP.ENABLE": True})
    assert done.returncode == 0, done.stderr
    (event,) = events(tmp_path / "out", "test")
    assert event["per_class_videos"] == {"a": 2, "b": 2, "c": 2}


@pytest.mark.slow
def test_two_processes_equal_one(data, tmp_path):
    still = {"MODEL.DROPOUT_RATE": 0.0, "MVIT.DROPPATH_RATE": 0.0}
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(data, one, MULTI, SHORT, still).returncode == 0
    done = run_two_processes(data, two, MULTI, SHORT, still)
    assert done.returncode == 0, done.stderr
    first, second = (events(folder, "test")[0] for folder in (one, two))
    assert second["mean_ap"] == pytest.approx(first["mean_ap"])
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)


def _error(data, output, *options) -> str:
    done = run(data, output, MULTI, SHORT, *options)
    assert done.returncode == 2
    assert not (output / "checkpoints").exists()
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("loss", ["cross_entropy", "soft_cross_entropy"])
def test_a_loss_of_single_labels_is_refused(data, tmp_path, loss):
    line = _error(data, tmp_path / "out", {"MODEL.LOSS_FUNC": loss, "MODEL.HEAD_ACT": "softmax"})
    assert f"MODEL.LOSS_FUNC must be 'bce_logit' for {data / 'train.csv'}" in line
    assert f"got '{loss}'; set MODEL.HEAD_ACT sigmoid with it" in line


@pytest.mark.parametrize("activation", ["softmax", "none"])
def test_scores_of_a_softmax_are_refused(data, tmp_path, activation):
    line = _error(data, tmp_path / "out", {"MODEL.HEAD_ACT": activation})
    assert "MODEL.HEAD_ACT must be 'sigmoid' with MODEL.LOSS_FUNC 'bce_logit'" in line
    assert line.endswith(f"got '{activation}'")


def test_a_label_outside_of_the_classes_is_refused(data, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    for split in ("train", "val", "test"):
        (lists / f"{split}.csv").write_text((data / f"{split}.csv").read_text())
    line = _error(lists, tmp_path / "out", {"MODEL.NUM_CLASSES": 2})
    assert f"{lists / 'train.csv'}: labels must be in [0, 2) (MODEL.NUM_CLASSES), got 2" in line
    assert line.endswith(f"for {data / '1.mp4'}")


def test_a_probe_needs_single_labels(data, tmp_path):
    line = _error(data, tmp_path / "out", {"PROBE.KIND": "knn", "PROBE.NUM_NEIGHBORS": 2})
    assert "must have one label in each row for a probe (PROBE.KIND), got several" in line
