"""What a user can put right is told in one line, and before the features are made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_run
import torch
from load_tool import load_tool

from slowfast_maskfeat.build.features import build_frozen_model
from slowfast_maskfeat.config import load_config

CLASSIFIER = {
    "TASK": "ssl_eval",
    "MODEL.ARCH": "mvit",
    "MODEL.MODEL_NAME": "MViT",
    "MODEL.NUM_CLASSES": 3,
    "MVIT.CLS_EMBED_ON": False,
    "MVIT.USE_MEAN_POOLING": True,
    "PROBE.KIND": "linear",
    "PROBE.EPOCHS": 1,
    "PROBE.NUM_NEIGHBOURS": 1,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    return tiny_run.make_videos(tmp_path_factory.mktemp("videos"), num_videos=10)


@pytest.fixture
def lists(videos, tmp_path) -> Path:
    """Lists that a test may change."""
    folder = tmp_path / "lists"
    folder.mkdir()
    for path in (*videos.glob("*.csv"), *videos.glob("*.txt")):
        shutil.copy(path, folder)
    return folder


def _words(data: Path, output: Path, *options: dict) -> list[str]:
    folders = {"DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output}
    return tiny_run.pairs(tiny_run.MODEL, CLASSIFIER, folders, *options)


def _checkpoint(data: Path, folder: Path, name: str = "w.pyth", seed: int = 5) -> Path:
    """Random weights with their configuration."""
    cfg = load_config([], _words(data, folder, {"RNG_SEED": seed}))
    model = build_frozen_model(cfg, "", torch.device("cpu")).model
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state": model.state_dict(), "cfg": cfg.dump()}, folder / name)
    return folder / name


def _probe(data: Path, output: Path, *options: dict) -> int:
    return load_tool("tools/run_net.py").main(["--cfg", *_words(data, output, *options)])


def _extract(checkpoint: Path, *words: str) -> int:
    tool = load_tool("tools/extract_features.py")
    return tool.main(["--checkpoint", str(checkpoint), "--device", "cpu", *words])


def _error(capsys) -> str:
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"PROBE.KIND": "attentive", "PROBE.NUM_HEADS": 3}, "PROBE.NUM_HEADS: 3 heads"),
        ({"PROBE.LEARNING_RATES": [-1]}, "PROBE.LEARNING_RATES: -1 is wanted above 0"),
    ],
)
def test_wrong_values_are_told_before_the_work(videos, tmp_path, capsys, options, message):
    assert _probe(videos, tmp_path, options) == 2
    assert message in _error(capsys)
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("text", [None, ""])
@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_a_list_that_is_not_there_or_empty_is_told_before_the_work(
    lists, tmp_path, capsys, name, text
):
    if text is None:
        (lists / name).unlink()
    else:
        (lists / name).write_text(text)
    assert _probe(lists, tmp_path / "out") == 2
    assert name in _error(capsys)
    assert not (tmp_path / "out" / "features").exists()


@pytest.mark.parametrize("place", ["file/f.npz", "folder.npz"])
def test_an_output_that_cannot_be_written_is_told_before_the_work(videos, tmp_path, capsys, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.npz").mkdir()
    checkpoint = _checkpoint(videos, tmp_path / "out")
    assert _extract(checkpoint, "--output", str(tmp_path / place)) == 2
    assert str(tmp_path / place) in _error(capsys)
    assert not (tmp_path / "out" / "features").exists()


def test_a_learning_rate_that_diverges_is_named(videos, tmp_path, capsys):
    options = {"PROBE.KIND": "attentive", "PROBE.LEARNING_RATES": [0.001, 1e30]}
    assert _probe(videos, tmp_path, options) == 0
    assert "learning rate 1e+30: the head diverged" in capsys.readouterr().err
    (event,) = tiny_run.events(tmp_path, "probe")
    assert event["diverged"] == [1e30]
    assert event["learning_rate"] == 0.001
