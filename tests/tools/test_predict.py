"""tools/predict.py: the answer, its JSON, and what it says of wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.load_tool import Done, run_tool
from helpers.tiny_run import PRETRAINING, make_videos, pairs, run

from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.builders.data import build_test_views
from slowfast_maskfeat.checkpoints import load_checkpoint, load_weights
from slowfast_maskfeat.config import parse_config
from slowfast_maskfeat.videos import open_video


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


def _train(data: Path, output: Path, *options: dict) -> Path:
    done = run(data, output, {"SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": False}, *options)
    assert done.returncode == 0, done.stderr
    (path,) = (output / "checkpoints").glob("*.pyth")
    return path


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    return _train(data, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def predict():
    """Calls the tool in this process: (checkpoint, video, words) -> code, output, errors."""

    def call(checkpoint: Path, video: Path | None, *words: str) -> Done:
        source = ["--video", video] if video else []
        begin = ["--checkpoint", checkpoint, *source, "--device", "cpu"]
        return run_tool("tools/predict.py", *begin, *words)

    return call


def _scores(checkpoint: Path, video: Path) -> torch.Tensor:
    """Mean of the softmax over the views, by the rooms themselves."""
    cfg = parse_config(load_checkpoint(checkpoint)["cfg"], "checkpoint")
    model = build_model(cfg).eval()
    load_weights(model, checkpoint, complete=True)
    with open_video(str(video)) as opened, torch.no_grad():
        clips = build_test_views(cfg)(opened).permute(0, 4, 1, 2, 3)
        return build_task(cfg, model).logits(model, clips).softmax(1).mean(0)


def test_the_classes_come_by_name_with_the_mean_score_of_the_views(data, checkpoint, predict):
    code, printed, errors = predict(checkpoint, data / "3.mp4", "--json")
    assert code == 0, errors
    answer = json.loads(printed)
    expected = _scores(checkpoint, data / "3.mp4")
    assert answer["num_views"] == 2
    assert [row["class"] for row in answer["top"]] == expected.argsort(descending=True).tolist()
    for row in answer["top"]:
        assert row["score"] == pytest.approx(float(expected[row["class"]]), abs=1e-5)
        assert row["name"] == f"class {row['class']}"


def test_people_get_a_line_for_each_class(data, checkpoint, predict):
    moved = data / "with a blank.mp4"
    moved.write_bytes((data / "3.mp4").read_bytes())
    code, printed, errors = predict(checkpoint, moved, "--top", "2")
    assert code == 0, errors
    best = _scores(checkpoint, moved).topk(2)
    lines = [
        f"{value:.4f}  class {number}"
        for value, number in zip(best.values, best.indices, strict=True)
    ]
    assert printed.splitlines() == lines


def test_pairs_win_over_the_configuration_of_the_checkpoint(data, checkpoint, predict):
    words = ["--json", *pairs({"TEST.NUM_ENSEMBLE_VIEWS": 3, "TEST.NUM_SPATIAL_CROPS": 3})]
    code, printed, errors = predict(checkpoint, data / "3.mp4", *words)
    assert code == 0, errors
    assert json.loads(printed)["num_views"] == 9


@pytest.fixture(scope="module")
def wrong_files(data, tmp_path_factory):
    """Checkpoints that no video can be classified with, and a file that is no video."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "text.mp4").write_text("this is no video")
    torch.save({"model_state": {"weight": torch.zeros(1)}}, folder / "bare.pyth")
    pretrained = _train(data, folder / "ssl", PRETRAINING)
    return folder, pretrained


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("absent checkpoint", "there is no checkpoint at"),
        ("absent video", "no such file"),
        ("text as video", "text.mp4"),
        ("bare weights", "has no configuration"),
        ("pre-training", "the model must be a clip classifier"),
        ("unknown key", "unknown key 'TEST.NO'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    data, checkpoint, wrong_files, predict, which, message
):
    folder, pretrained = wrong_files
    cases = {
        "absent checkpoint": (folder / "no.pyth", data / "3.mp4"),
        "absent video": (checkpoint, folder / "no.mp4"),
        "text as video": (checkpoint, folder / "text.mp4"),
        "bare weights": (folder / "bare.pyth", data / "3.mp4"),
        "pre-training": (pretrained, data / "3.mp4"),
        "unknown key": (checkpoint, data / "3.mp4", "TEST.NO", "1"),
    }
    code, printed, errors = predict(*cases[which])
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert printed == ""


def test_bare_weights_take_a_configuration_and_clips_of_another_program(
    data, checkpoint, predict, tmp_path
):
    """Weights without configuration, float clips in, raw scores out."""
    content = load_checkpoint(checkpoint)
    torch.save(content["model_state"], tmp_path / "bare.pyth")
    (tmp_path / "model.yaml").write_text(content["cfg"])
    clips = np.random.default_rng(0).standard_normal((3, 3, 4, 32, 32), dtype=np.float32)
    np.save(tmp_path / "clips.npy", clips)
    words = ["--cfg", str(tmp_path / "model.yaml"), "--clips", str(tmp_path / "clips.npy")]
    words += ["--logits", str(tmp_path / "logits.npy"), "MODEL.NUM_CLASSES", "3", "--json"]
    code, printed, errors = predict(tmp_path / "bare.pyth", None, *words)
    assert code == 0, errors
    model = build_model(parse_config(content["cfg"], "checkpoint")).eval()
    load_weights(model, checkpoint, complete=True)
    with torch.no_grad():
        expected = model(torch.from_numpy(clips))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-5)
    answer = json.loads(printed)
    best = expected.softmax(1).mean(0).argmax()
    assert (answer["num_views"], answer["top"][0]["class"]) == (3, int(best))


def test_weights_that_do_not_fit_are_told_by_a_table_and_a_line(
    data, checkpoint, predict, tmp_path
):
    content = load_checkpoint(checkpoint)
    torch.save(content["model_state"], tmp_path / "bare.pyth")
    (tmp_path / "model.yaml").write_text(content["cfg"])
    words = ["--cfg", str(tmp_path / "model.yaml"), "MODEL.NUM_CLASSES", "7"]
    code, printed, errors = predict(tmp_path / "bare.pyth", data / "3.mp4", *words)
    assert (code, printed) == (2, "")
    first, *_, classifier, line = errors.splitlines()
    assert first == f"weights from {tmp_path / 'bare.pyth'}"
    assert classifier.endswith("the file has 3 classes, the model 7")
    assert line.startswith(f"error: {tmp_path / 'bare.pyth'} does not fill the whole model")


def test_names_are_cleared_as_in_training(data, checkpoint, predict, tmp_path):
    content = load_checkpoint(checkpoint)
    content["model_state"] = {f"net.{k}": v for k, v in content["model_state"].items()}
    torch.save(content, tmp_path / "prefixed.pyth")
    code, _, errors = predict(tmp_path / "prefixed.pyth", data / "3.mp4", "--json")
    assert code == 2
    hint = errors.partition("CLEAR_NAME_PATTERN ")[2].partition(" removes")[0]
    words = ["TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN", hint.strip('"'), "--json"]
    answers = [
        predict(*case)
        for case in (
            (tmp_path / "prefixed.pyth", data / "3.mp4", *words),
            (checkpoint, data / "3.mp4", "--json"),
        )
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] == 0


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 32, 32), np.float32), "float32 of shape (3, 4, 32, 32)"),
        (np.zeros((1, 3, 4, 32, 32), np.int64), "int64 of shape (1, 3, 4, 32, 32)"),
        (np.zeros((1, 4, 32, 32, 3), np.uint8), "(clips, 3 channels, frames, height, width)"),
        (np.zeros((0, 3, 4, 32, 32), np.uint8), "uint8 of shape (0, 3, 4, 32, 32)"),
        (np.full((1, 3, 4, 32, 32), np.nan, np.float32), "--clips must be finite"),
        (None, "can't be read as a .npy array"),
    ],
)
def test_an_array_that_holds_no_clips_is_refused(checkpoint, predict, tmp_path, array, message):
    if array is not None:
        np.save(tmp_path / "clips.npy", array)
    code, printed, errors = predict(checkpoint, None, "--clips", str(tmp_path / "clips.npy"))
    assert (code, printed) == (2, "")
    assert message in errors


def test_channels_are_reversed_as_in_a_test_of_the_list(data, checkpoint, predict, tmp_path):
    words = ["--json", "--logits", str(tmp_path / "logits.npy")]
    code, _, errors = predict(
        checkpoint, data / "3.mp4", *words, "DATA.REVERSE_INPUT_CHANNEL", "True"
    )
    assert code == 0, errors
    cfg = parse_config(load_checkpoint(checkpoint)["cfg"], "checkpoint")
    model = build_model(cfg).eval()
    load_weights(model, checkpoint, complete=True)
    with open_video(str(data / "3.mp4")) as opened, torch.no_grad():
        clips = build_test_views(cfg)(opened).permute(0, 4, 1, 2, 3)
        expected = build_task(cfg, model).logits(model, clips.flip(1))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("number", ["0", "-1"])
def test_no_class_at_all_is_not_asked_for(data, checkpoint, predict, number):
    code, printed, errors = predict(checkpoint, data / "3.mp4", "--top", number)
    assert (code, printed) == (2, "")
    assert "--top" in errors.splitlines()[-1]
