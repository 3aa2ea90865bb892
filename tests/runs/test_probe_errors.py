"""What a user can put right is told in one line, and before the features are made."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
import torch
from helpers import tiny_run
from helpers.load_tool import Done, run_tool, tool_command

from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.runs.features import build_frozen_model

PROBING = {
    **tiny_run.FINETUNING,
    "PROBE.KIND": "linear",
    "PROBE.EPOCHS": 1,
    "PROBE.NUM_NEIGHBORS": 1,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    return tiny_run.make_videos(tmp_path_factory.mktemp("videos"), num_videos=10)


@pytest.fixture
def lists(videos, tmp_path) -> Path:
    """Lists that a test may change."""
    return tiny_run.copy_lists(videos, tmp_path / "lists")


def _words(data: Path, output: Path, *options: dict) -> list[str]:
    folders = {"DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output}
    return tiny_run.pairs(tiny_run.MODEL, PROBING, folders, *options)


def _checkpoint(data: Path, folder: Path, name: str = "w.pyth", seed: int = 5) -> Path:
    """Random weights with their configuration."""
    cfg = load_config([], _words(data, folder, {"RNG_SEED": seed}))
    model = build_frozen_model(cfg, "", torch.device("cpu")).model
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state": model.state_dict(), "cfg": cfg.dump()}, folder / name)
    return folder / name


def _probe(data: Path, output: Path, *options: dict, code: int = 0) -> Done:
    done = tiny_run.run(data, output, PROBING, *options)
    assert done.returncode == code, done.stderr
    return done


def _extract(checkpoint: Path, *words: str, code: int) -> Done:
    start = ["--checkpoint", str(checkpoint), "--device", "cpu"]
    done = run_tool("tools/extract_features.py", *start, *words)
    assert done.returncode == code, done.stderr
    return done


def _error(done: Done) -> str:
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return error


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ({"PROBE.KIND": "attentive", "PROBE.NUM_HEADS": 3}, "PROBE.NUM_HEADS", "3"),
        ({"PROBE.LEARNING_RATES": [-1]}, "PROBE.LEARNING_RATES", "-1"),
    ],
)
def test_wrong_values_are_told_before_the_work(videos, tmp_path, options, key, value):
    error = _error(_probe(videos, tmp_path, options, code=2))
    assert key in error
    assert value in error.split()
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("text", [None, ""])
@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_a_list_that_is_not_there_or_empty_is_told_before_the_work(lists, tmp_path, name, text):
    if text is None:
        (lists / name).unlink()
    else:
        (lists / name).write_text(text)
    assert name in _error(_probe(lists, tmp_path / "out", code=2))
    assert not (tmp_path / "out" / "features").exists()


@pytest.mark.parametrize("place", ["file/f.npz", "folder.npz"])
def test_an_output_that_cannot_be_written_is_told_before_the_work(videos, tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.npz").mkdir()
    checkpoint = _checkpoint(videos, tmp_path / "out")
    done = _extract(checkpoint, "--output", str(tmp_path / place), code=2)
    assert str(tmp_path / place) in _error(done)
    assert not (tmp_path / "out" / "features").exists()


def _files(folder: Path) -> dict[Path, int]:
    """All files of a folder and when they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("named", ["", "--output", "OUTPUT_DIR"])
def test_nothing_is_written_into_the_folder_of_the_training(videos, tmp_path, monkeypatch, named):
    theirs, here = tmp_path / "theirs", tmp_path / "here"
    here.mkdir()
    checkpoint = _checkpoint(videos, theirs / "checkpoints")
    before = _files(tmp_path)
    monkeypatch.chdir(here)
    words = {"": [], "--output": ["--output", "mine/f.npz"], "OUTPUT_DIR": ["OUTPUT_DIR", "mine"]}
    done = _extract(checkpoint, *words[named], code=0)
    kept = here / ("mine" if named else "output/extract_features") / "features"
    assert f"in {kept.relative_to(here)}/test_pooled_" in done.stderr
    written = set(_files(tmp_path)) - set(before)
    assert before.items() <= _files(tmp_path).items()
    assert {path for path in written if kept not in path.parents} == (
        {here / "mine" / "f.npz"} if named == "--output" else set()
    )
    # Nor by a prediction, whose configuration is the checkpoint's as well.
    words = ["--checkpoint", checkpoint, "--device", "cpu", "--video", videos / "0.mp4"]
    assert run_tool("tools/predict.py", *words).returncode == 0
    assert set(_files(tmp_path)) == written | set(before)


def test_a_yaml_file_without_a_folder_leaves_it_to_the_tool(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = _checkpoint(videos, tmp_path / "theirs")
    text = load_config([], _words(videos, tmp_path)).dump()
    lines = [line for line in text.splitlines() if not line.startswith("OUTPUT_DIR")]
    for folder, line in (("output/extract_features", "OUTPUT_DIR: ."), ("own", "OUTPUT_DIR: own")):
        (tmp_path / "model.yaml").write_text("\n".join([*lines, line]))
        _extract(checkpoint, "--cfg", tmp_path / "model.yaml", code=0)
        assert list((tmp_path / folder / "features").iterdir())
    assert not (tmp_path / "features").exists()


def test_a_learning_rate_that_diverges_is_named(videos, tmp_path):
    options = {"PROBE.KIND": "attentive", "PROBE.LEARNING_RATES": [0.001, 1e30]}
    said = _probe(videos, tmp_path, options).stderr
    assert "learning rate 1e+30: the head diverged" in said
    (event,) = tiny_run.events(tmp_path, "probe")
    assert event["diverged"] == [1e30]
    assert event["learning_rate"] == 0.001


@pytest.mark.parametrize("is_tool", [True, False])
def test_ctrl_c_ends_with_one_line(videos, tmp_path, is_tool):
    views = {"TEST.NUM_ENSEMBLE_VIEWS": 2000, "PROBE.KIND": "knn"}
    words = ["--cfg", *_words(videos, tmp_path, views)]
    script = "tools/run_net.py"
    if is_tool:
        words = ["--checkpoint", str(_checkpoint(videos, tmp_path)), "--device", "cpu"]
        words += ["TEST.NUM_ENSEMBLE_VIEWS", "2000", "OUTPUT_DIR", str(tmp_path)]
        script = "tools/extract_features.py"
    command = tool_command(script, *words)
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            tiny_run.wait_for(
                lambda: any(path.stat().st_size for path in tmp_path.glob("features/test_*/*.rows"))
            )
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    kept = "'features of test' is not finished: run the same command again"
    assert last == f"stopped by signal 2; {kept}"


@pytest.mark.parametrize("is_probe", [True, False])
def test_a_list_of_files_that_are_elsewhere_is_named_before_the_work(lists, tmp_path, is_probe):
    rows = "".join(f"{number}.mp4 {number % 3}\n" for number in range(10))
    for name in ("train.csv", "test.csv"):
        (lists / name).write_text(rows)
    elsewhere = {"DATA.PATH_PREFIX": tmp_path / "elsewhere", "TEST.NUM_ENSEMBLE_VIEWS": 1}
    if is_probe:
        done = _probe(lists, tmp_path / "out", elsewhere, code=2)
    else:
        checkpoint = _checkpoint(lists, tmp_path)
        done = _extract(checkpoint, *tiny_run.pairs(elsewhere), code=2)
    error = _error(done)
    name = "train.csv" if is_probe else "test.csv"
    folder = tmp_path / "elsewhere"
    assert f"{lists / name}: none of the first 10 exists under {str(folder)!r}" in error
    assert f"such as {str(folder / '0.mp4')!r}; is DATA.PATH_PREFIX right?" in error
    assert not (tmp_path / "out" / "features").exists()


def test_a_probe_takes_the_weights_that_a_test_would(videos, tmp_path):
    output, knn = tmp_path / "out", {"PROBE.KIND": "knn"}
    said = _probe(videos, output, knn).stderr
    assert f"{output / 'checkpoints'} has no checkpoint of TASK 'ssl_eval'" in said
    assert "features of random weights" in said
    started_from = {"TRAIN.CHECKPOINT_FILE_PATH": _checkpoint(videos, tmp_path, seed=3)}
    own = _checkpoint(videos, output / "checkpoints", "ssl_eval_checkpoint_epoch_00001.pyth")
    _probe(videos, output, knn, started_from)
    given = {"TEST.CHECKPOINT_FILE_PATH": _checkpoint(videos, tmp_path, "given.pyth", seed=4)}
    _probe(videos, output, knn, started_from, given)
    own.unlink()
    _probe(videos, output, knn, started_from)
    assert [event["checkpoint"] for event in tiny_run.events(output, "probe")] == [
        "",
        str(own),
        str(given["TEST.CHECKPOINT_FILE_PATH"]),
        str(started_from["TRAIN.CHECKPOINT_FILE_PATH"]),
    ]


@pytest.mark.parametrize(
    ("change", "chosen_on", "reason"),
    [
        ("none", "every tenth training row", "there is no validation split"),
        ("bare", "every tenth training row", "the rows of {} have no labels"),
        ("same", "every tenth training row", "{} is also the test split"),
        ("other", "val", ""),
    ],
)
def test_the_run_says_which_rows_choose(lists, tmp_path, change, chosen_on, reason):
    val = lists / "val.csv"
    rows = val.read_text().splitlines()
    if change == "none":
        val.unlink()
    elif change == "bare":
        val.write_text("".join(f"{row.split()[0]}\n" for row in rows))
    elif change == "other":
        val.write_text(f"{rows[1]}\n{rows[2]}\n")
    said = _probe(lists, tmp_path / "out", {"PROBE.LEARNING_RATES": [0.1]}).stderr
    ending = f": {reason.format(val)}" if reason else ""
    assert f"the learning rate is selected on {chosen_on}{ending}\n" in said
    (event,) = tiny_run.events(tmp_path / "out", "probe")
    assert event["chosen_on"] == chosen_on


def test_too_few_rows_to_hold_some_out_are_told_before_the_work(lists, tmp_path):
    train = lists / "train.csv"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:9]))
    (lists / "val.csv").unlink()
    error = _error(_probe(lists, tmp_path / "out", code=2))
    assert f"{train} must have at least 10 rows, got 9: there is no validation split" in error
    assert not (tmp_path / "out" / "features").exists()


def test_damaged_features_are_told_with_what_helps(videos, tmp_path):
    _probe(videos, tmp_path, {"PROBE.KIND": "knn"})
    (rows,) = tmp_path.glob("features/train_*/part_0000.rows")
    rows.write_bytes(rows.read_bytes()[:-3])
    error = _error(_probe(videos, tmp_path, {"PROBE.KIND": "knn"}, code=2))
    assert f"{rows.parent}: part_0000.rows is damaged or missing" in error
