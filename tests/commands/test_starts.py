"""Starts of runs: one that fails leaves no folder, and a folder of a run is a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import tiny_run
from helpers.load_tool import run_command

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.checkpoints import load_checkpoint, save_checkpoint
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.videos import decode


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make_videos(tmp_path_factory.mktemp("data"), num_videos=4)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as of a run, with one checkpoint, and its configuration beside it."""
    folder = tmp_path_factory.mktemp("run")
    cfg = load_config([], tiny_run.pairs(tiny_run.MODEL, tiny_run.FINETUNING))
    torch.manual_seed(0)
    content = {"model_state": build_model(cfg).state_dict(), "cfg": cfg.dump()}
    path = folder / "checkpoints" / "ssl_eval_checkpoint_epoch_00001.pyth"
    save_checkpoint(path, {**content, "class_names": ["class 0", "class 1", "class 2"]})
    (folder / "model.yaml").write_text(cfg.dump())
    return folder


def _refused(*words: object) -> str:
    done = run_command(*words)
    assert done.returncode == 2, done
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["train", "test", "probe"])
@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_a_run_without_its_data_creates_nothing(
    run_folder: Path, tmp_path: Path, command: str, folder: str
) -> None:
    (tmp_path / "empty").mkdir()
    words = [command, "--cfg", run_folder / "model.yaml", "--output", tmp_path / "out"]
    said = _refused(*words, "DATA.PATH_TO_DATA_DIR", tmp_path / folder)
    assert str(tmp_path / folder) in said
    assert "does not exist" in said
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_comparison_without_its_data_creates_nothing(tmp_path: Path) -> None:
    words = ["--data", tmp_path / "missing", "--output", tmp_path / "cmp"]
    assert "missing" in _refused("compare", "--recipe", "shapes", *words)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_torchcodec(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(decode._BACKENDS, "torchcodec", "slowfast_maskfeat.no_such_module")
    decode._load.cache_clear()
    yield
    decode._load.cache_clear()


@pytest.mark.usefixtures("no_torchcodec")
def test_a_run_without_its_decoder_creates_nothing(
    data: Path, run_folder: Path, tmp_path: Path
) -> None:
    words = ["train", "--cfg", run_folder / "model.yaml", "--output", tmp_path / "out"]
    keys = ["DATA.PATH_TO_DATA_DIR", data, "DATA.DECODING_BACKEND", "torchcodec"]
    said = _refused(*words, *keys)
    assert "pip install 'slowfast_maskfeat[torchcodec]' (INSTALL.md" in said
    assert list(tmp_path.iterdir()) == []


def test_a_test_of_pre_training_is_an_error(tmp_path: Path) -> None:
    words = ["--checkpoint", "none.pyth", "--output", tmp_path / "out"]
    said = _refused("test", "--cfg", "demo/pretrain", *words)
    assert said.startswith("error: TEST.ENABLE must be False for pre-training, which has no test")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_run_can_be_tested(data: Path, run_folder: Path, tmp_path: Path) -> None:
    words = ["test", "--cfg", run_folder / "model.yaml", "--checkpoint", run_folder]
    done = run_command(*words, "--output", tmp_path / "out", "DATA.PATH_TO_DATA_DIR", data)
    assert done.returncode == 0, done.stderr
    events = map(json.loads, (tmp_path / "out" / "stats.jsonl").read_text().splitlines())
    (test,) = (event for event in events if event["event"] == "test")
    assert test["checkpoint"].endswith("ssl_eval_checkpoint_epoch_00001.pyth")


@pytest.mark.parametrize("command", ["convert", "rewrite"])
def test_the_folder_of_a_run_is_its_newest_checkpoint(
    run_folder: Path, tmp_path: Path, command: str
) -> None:
    more = ["--cfg", run_folder / "model.yaml"] if command == "convert" else []
    words = [command, "--checkpoint", run_folder, *more, "--output", tmp_path / "new.pyth"]
    done = run_command(*words)
    assert done.returncode == 0, done.stderr
    (path,) = (run_folder / "checkpoints").iterdir()
    expected = load_checkpoint(path)["model_state"]
    found = load_checkpoint(tmp_path / "new.pyth")["model_state"]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (tmp_path / "empty").mkdir()
    words[2] = tmp_path / "empty"
    assert "must contain model.safetensors or checkpoints" in _refused(*words, "--force")
