"""Damaged and hostile checkpoints, in the commands that read them."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import tiny_run
from helpers.load_tool import Done, run_tool

from slowfast_maskfeat.engine import train
from slowfast_maskfeat.engine.state import TrainState

OPTIONS = {"SOLVER.MAX_EPOCH": 2, "TEST.ENABLE": False, "TRAIN.EVAL_PERIOD": 9}
NAME = "ssl_eval_checkpoint_epoch_{:05d}.pyth"
ESCAPE = "\x1b]0;owned\x07\x1b[2J"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder of the videos, and of a training of two epochs."""
    data = tiny_run.make_videos(tmp_path_factory.mktemp("data"), 6)
    output = tmp_path_factory.mktemp("run") / "output"
    done = tiny_run.run(data, output, tiny_run.FINETUNING, OPTIONS)
    assert done.returncode == 0, done.stderr
    return data, output


@pytest.fixture
def content(finished: tuple[Path, Path]) -> dict[str, Any]:
    """The checkpoint of the first epoch."""
    return torch.load(finished[1] / "checkpoints" / NAME.format(1), weights_only=True)


def resume(finished: tuple[Path, Path], output: Path, content: dict[str, Any]) -> Done:
    """Resume from a checkpoint."""
    (output / "checkpoints").mkdir(parents=True)
    torch.save(content, output / "checkpoints" / NAME.format(1))
    return tiny_run.run(finished[0], output, tiny_run.FINETUNING, OPTIONS)


def predict(finished: tuple[Path, Path], path: Path) -> Done:
    """Classify a video."""
    video = finished[0] / "0.mp4"
    return run_tool("tools/predict.py", "--checkpoint", path, "--video", video, "--device", "cpu")


def one_line(done: Done) -> str:
    """The last line of an error, which has no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    return line


def test_a_damaged_newest_checkpoint_is_named_with_the_one_before(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    shutil.copytree(finished[1], output)
    older, newest = (output / "checkpoints" / NAME.format(epoch) for epoch in (1, 2))
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    newest.write_bytes(damaged)
    line = one_line(tiny_run.run(finished[0], output, tiny_run.FINETUNING, OPTIONS))
    assert f"{newest} is damaged" in line
    assert f"checkpoint before it is {older}" in line
    assert newest.read_bytes() == damaged  # nothing was removed or replaced
    assert str(older) in one_line(predict(finished, newest))
    newest.rename(tmp_path / "damaged.pyth")  # as the error says
    done = tiny_run.run(finished[0], output, tiny_run.FINETUNING, OPTIONS)
    assert done.returncode == 0
    assert f"resuming from {older}" in done.stderr
    assert newest.exists()


def _with(**changed: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {**content, **changed}


def _without_moments(content: dict[str, Any]) -> dict[str, Any]:
    del content["optimizer_state"]["state"][0]["exp_avg"]
    return content


def _other_moments(content: dict[str, Any]) -> dict[str, Any]:
    content["optimizer_state"]["state"][0]["exp_avg"] = torch.zeros(7)
    return content


def _not_finite(content: dict[str, Any]) -> dict[str, Any]:
    next(iter(content["model_state"].values())).fill_(float("nan"))
    return content


def _sparse(content: dict[str, Any]) -> dict[str, Any]:
    name, value = next(iter(content["model_state"].items()))
    content["model_state"][name] = value.to_sparse()
    return content


RESUMED = {
    "random_states": (_with(random_states=3), "'random_states' must be"),
    "random_states of another size": (
        _with(random_states=[{"cpu": torch.zeros(9, dtype=torch.uint8)}]),
        "'random_states' can't be restored",
    ),
    "loop_state": (_with(loop_state=[1]), "'loop_state' must be"),
    "lost videos": (_with(loop_state={"lost": {"known": 3}}), "state of lost videos"),
    "data": (_with(data=[1]), "'data' must be"),
    "step": (_with(step="x"), "'step' must be"),
    "epoch": (_with(epoch=1.5), "'epoch' must be"),
    "meta tensors": (_with(task_state={"w": torch.ones(1, device="meta")}), "without data"),
    "class_names": (_with(class_names=5), "'class_names' must be"),
    "moments": (_without_moments, "no usable exp_avg"),
    "moments of another size": (_other_moments, "no usable exp_avg"),
    "weights that are not finite": (_not_finite, "not finite"),
    "sparse weights": (_sparse, "sparse"),
}


@pytest.mark.parametrize(("change", "message"), RESUMED.values(), ids=RESUMED)
def test_parts_of_other_types_end_a_resume_in_one_line(
    finished: tuple[Path, Path],
    content: dict[str, Any],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    message: str,
) -> None:
    line = one_line(resume(finished, tmp_path / "output", change(content)))
    assert message in line


def test_weights_that_are_not_finite_end_a_training_and_leave_its_checkpoints(
    finished: tuple[Path, Path],
    content: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverging(state: TrainState, *arguments: Any, **named: Any) -> Any:
        result = step(state, *arguments, **named)
        next(state.bare.parameters()).detach().fill_(float("inf"))
        return result

    step = train.train_step
    monkeypatch.setattr(train, "train_step", diverging)
    line = one_line(resume(finished, tmp_path, content))
    assert "weights must be finite to be saved, got infinity or NaN in patch_embed" in line
    assert f"{NAME.format(2)} was not written, and older files are unchanged" in line
    assert os.listdir(tmp_path / "checkpoints") == [NAME.format(1)]
    monkeypatch.undo()
    done = tiny_run.run(finished[0], tmp_path, tiny_run.FINETUNING, OPTIONS)
    assert done.returncode == 0
    assert "1 epochs" in done.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MVIT.EMBED_DIM", 4_800_000),
        ("MVIT.MLP_RATIO", 1e9),
        ("MVIT.DIM_MUL", [[1, 100_000.0]]),
        ("MVIT.DEPTH", 10**9),
        ("MVIT.PATCH_KERNEL", [10**6, 10**6, 10**6]),
        ("DATA.NUM_FRAMES", 10**12),
        ("DATA.TEST_CROP_SIZE", 10**9),
        ("DATA.TRAIN_CROP_SIZE", 8000),
        ("TEST.NUM_ENSEMBLE_VIEWS", 10**9),
        ("MVIT.POOL_Q_STRIDE", [["a"]]),
    ],
)
def test_a_configuration_of_another_size_is_refused_before_memory_is_allocated(
    finished: tuple[Path, Path], content: dict[str, Any], tmp_path: Path, key: str, value: object
) -> None:
    cfg = yaml.safe_load(content["cfg"])
    section, _, name = key.partition(".")
    cfg[section][name] = value
    path = tmp_path / "c.pyth"
    torch.save({**content, "cfg": yaml.safe_dump(cfg)}, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = one_line(predict(finished, path))
    assert "c.pyth" in line or key in line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000  # kB


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cfg": "A: &a [*a]"}, "an alias"),
        ({"cfg": 3, "optimizer_state": None}, "has no configuration"),
        ({"class_names": [1]}, "'class_names' must be"),
        ({"token_grid": [torch.ones(2)] * 3}, "token_grid must be three integers"),
        ({"token_grid": torch.ones(3)}, "token_grid must be three integers"),
        ({"average_state": {"decay": 1}}, "'average_state' must be"),
        ({"model_state": {}}, "is empty"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_parts_of_other_types_end_a_prediction_in_one_line(
    finished: tuple[Path, Path],
    content: dict[str, Any],
    tmp_path: Path,
    changed: dict[str, Any],
    message: str,
) -> None:
    path = tmp_path / "c.pyth"
    content = {**content, **changed}
    if changed.get("optimizer_state", 1) is None:
        del content["optimizer_state"]
    torch.save(content, path)
    assert message in one_line(predict(finished, path))


def test_class_names_with_escape_sequences_are_printed_escaped(
    finished: tuple[Path, Path], content: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "c.pyth"
    torch.save({**content, "class_names": [f"{ESCAPE}{number}" for number in range(3)]}, path)
    done = predict(finished, path)
    assert done.returncode == 0, done.stderr
    assert r"\x1b]0;owned\x07\x1b[2J0" in done.stdout
    assert ESCAPE[0] not in done.stdout + done.stderr
    names = "".join(f"{ESCAPE}{number}\n" for number in range(3))
    data = tmp_path / "data"
    shutil.copytree(finished[0], data)
    (data / "classes.txt").write_text(names)
    done = tiny_run.run(
        data,
        tmp_path / "output",
        tiny_run.FINETUNING,
        OPTIONS | {"TRAIN.CHECKPOINT_FILE_PATH": path, "TRAIN.CHECKPOINT_EPOCH_RESET": True},
    )
    assert done.returncode == 0, done.stderr
    other = {**content, "class_names": [f"{ESCAPE}x{number}" for number in range(3)]}
    torch.save(other, path)
    done_other = resume((data, finished[1]), tmp_path / "other", other)
    assert ESCAPE[0] not in done.stdout + done.stderr + done_other.stdout + done_other.stderr
    assert r"\x1b]0;owned" in one_line(done_other)


def test_a_class_name_of_several_lines_is_printed_in_one(
    finished: tuple[Path, Path], content: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "c.pyth"
    torch.save({**content, "class_names": ["a\n1.0000  forged", "b", "c"]}, path)
    done = predict(finished, path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert r"a\n1.0000  forged" in done.stdout


@pytest.mark.parametrize("command", ["resume", "predict"])
def test_a_fifo_is_refused_without_waiting(
    finished: tuple[Path, Path], tmp_path: Path, command: str
) -> None:
    path = tmp_path / "checkpoints" / NAME.format(1)
    path.parent.mkdir()
    os.mkfifo(path)
    if command == "predict":
        done = predict(finished, path)
    else:
        done = tiny_run.run(finished[0], tmp_path, tiny_run.FINETUNING, OPTIONS)
    assert "is a FIFO" in one_line(done)
