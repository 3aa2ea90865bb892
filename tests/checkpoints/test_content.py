"""Types of what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from slowfast_maskfeat.checkpoints import load_checkpoint


def training() -> dict[str, Any]:
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    return {
        "epoch": -1,
        "step": 3,
        "model_state": {"w": torch.ones(2)},
        "token_grid": [1, 2, 3],
        "optimizer_state": {
            "state": {0: moments},
            "param_groups": [{"params": [0], "names": ["w"], "lr": 0.1}],
        },
        "scaler_state": {},
        "average_state": {"decay": 0.9, "weights": {"w": torch.ones(2)}},
        "task_state": {"frozen._extra_state": {"sha256": "0"}},
        "teacher_prefix": "",
        "random_states": [{"cpu": torch.get_rng_state()}],
        "loop_state": {"lost": {"num_replaced": 0, "known": []}, "meter": None},
        "cfg": "TASK: ssl",
        "class_names": ["a", "b"],
        "data": {"list": "train.csv"},
    }


def loaded(folder: Path, content: object) -> dict[str, Any]:
    path = folder / "c.pyth"
    torch.save(content, path)
    return load_checkpoint(path)


def test_a_checkpoint_of_a_training_is_accepted(tmp_path: Path) -> None:
    assert set(loaded(tmp_path, training())) == set(training())
    optional = ("average_state", "task_state", "scaler_state", "class_names", "data", "cfg")
    loaded(tmp_path, {**training(), **dict.fromkeys(optional)})


WRONG = [
    ("epoch", "3"),
    ("epoch", True),
    ("epoch", -2),
    ("step", None),
    ("step", 1.5),
    ("step", 2**70),
    ("model_state", {"w": 1}),
    ("model_state", {1: torch.ones(2)}),
    ("optimizer_state", {"state": {}}),
    ("optimizer_state", {"state": {}, "param_groups": [3]}),
    ("optimizer_state", {"state": {}, "param_groups": [{"params": "ab"}]}),
    ("optimizer_state", {"state": {}, "param_groups": [{"params": [0], "names": []}]}),
    ("optimizer_state", {"state": {"a": {}}, "param_groups": []}),
    ("optimizer_state", {"state": {0: {"step": "1"}}, "param_groups": []}),
    ("scaler_state", {"scale": "x"}),
    ("average_state", {"decay": 0.9}),
    ("average_state", torch.ones(3)),
    ("task_state", {"a": 1}),
    ("teacher_prefix", 3),
    ("random_states", torch.get_rng_state()),
    ("random_states", [torch.get_rng_state()]),
    ("random_states", [{"cpu": torch.ones(3)}]),
    ("loop_state", [1]),
    ("loop_state", {"meter": 3}),
    ("cfg", {"TASK": "x"}),
    ("class_names", "abc"),
    ("class_names", [1, 2]),
    ("data", "train.csv"),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_an_entry_of_another_type_is_named(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"c\.pyth can't be used: its '{key}' must be ") as error:
        loaded(tmp_path, {**training(), key: value})
    assert len(str(error.value)) - len(str(tmp_path)) < 300


def test_other_files_may_use_the_names_for_something_else(tmp_path: Path) -> None:
    content = {"state_dict": {"w": torch.ones(2)}, "epoch": "3", "step": None, "data": [1]}
    assert loaded(tmp_path, content)["epoch"] == "3"


@pytest.mark.parametrize("key", ["model_state", "state_dict", "anything"])
def test_tensors_without_data_are_refused(tmp_path: Path, key: str) -> None:
    hollow = {key: {"w": [torch.ones(2, device="meta")]}}
    with pytest.raises(ValueError, match=rf"its '{key}'\['w'\]\[0\] is a tensor without data"):
        loaded(tmp_path, hollow)
    huge = {key: {"w": torch.ones(1).expand(10**6, 10**6)}}
    with pytest.raises(ValueError, match=rf"its '{key}'\['w'\] has 4000000000000 bytes"):
        loaded(tmp_path, huge)
    assert loaded(tmp_path, {key: {"w": torch.ones(1).expand(100)}})[key]["w"].shape == (100,)


def test_containers_that_repeat_each_other_are_visited_once(tmp_path: Path) -> None:
    bomb: list[Any] = [torch.ones(1)]
    for _ in range(60):
        bomb = [bomb, bomb]
    loop: list[Any] = []
    loop.append(loop)
    assert set(loaded(tmp_path, {"a": bomb, "b": loop})) == {"a", "b"}
