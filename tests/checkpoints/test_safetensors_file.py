"""Safetensors files: what is written comes back, what is broken is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from helpers.tiny_cases import tiny_options
from helpers.tiny_checkpoints import receiver, source_state
from safetensors.torch import save_file
from torch import Tensor

from slowfast_maskfeat.checkpoints import load_checkpoint, load_weights, save_safetensors


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return source_state(tiny_options("img_vit"))


def test_what_is_saved_comes_back(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = save_safetensors(
        tmp_path / "new" / "w.safetensors",
        {**weights, "turned": torch.arange(6.0).reshape(2, 3).T},
        class_names=["sauter", "läuft"],
        token_grid=(1, 4, 4),
        config="TASK: x\n",
    )
    assert os.listdir(path.parent) == [path.name]
    content = load_checkpoint(path)
    state = content.pop("model_state")
    assert torch.equal(state.pop("turned"), torch.tensor([[0.0, 3], [1, 4], [2, 5]]))
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    assert content == {
        "class_names": ["sauter", "läuft"],
        "token_grid": [1, 4, 4],
        "cfg": "TASK: x\n",
    }


def test_a_model_is_filled(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = save_safetensors(tmp_path / "w.safetensors", weights)
    model = receiver(tiny_options("img_vit"))
    report = load_weights(model, path, complete=True)
    assert len(report.loaded) == len(weights)
    assert torch.equal(model.state_dict()["pos_embed"], weights["pos_embed"])


def test_files_of_others(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    """Without a header of ours, with prefixes, in half precision."""
    path = tmp_path / "w.safetensors"
    save_file({f"module.{name}": value.half() for name, value in weights.items()}, path)
    assert load_checkpoint(path).keys() == {"model_state"}
    model = receiver(tiny_options("img_vit"))
    load_weights(model, path, complete=True)
    got = model.state_dict()["pos_embed"]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, weights["pos_embed"], rtol=1e-3, atol=1e-3)


def test_the_grid_in_the_header_is_that_of_the_tables(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    path = save_safetensors(tmp_path / "w.safetensors", weights, token_grid=(1, 2, 8))
    report = load_weights(receiver(tiny_options("img_vit")), path)
    assert report.reshaped["pos_embed"].endswith("(1, 2, 8) to (1, 4, 4)")


@pytest.mark.parametrize("kept", [0, 5, 300, -1], ids=["empty", "start", "header", "last byte"])
def test_a_broken_file_is_one_clear_error(
    tmp_path: Path, weights: dict[str, Tensor], kept: int
) -> None:
    path = save_safetensors(tmp_path / "w.safetensors", weights)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"w\.safetensors is not a complete safetensors file \("):
        load_checkpoint(path)


def test_another_kind_of_file_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    torch.save({"model_state": {}}, path)
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"class_names": "a, b"}, r"'class_names' .* JSON list of strings, got 'a, b'"),
        (
            {"class_names": json.dumps([1, 2])},
            r"'class_names' .* JSON list of strings, got '\[1, 2\]'",
        ),
        ({"token_grid": json.dumps("888")}, r"'token_grid' .* JSON list of integers"),
    ],
)
def test_a_header_that_cannot_be_meant(
    tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.zeros(1)}, path, metadata)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


def test_parts_of_a_checkpoint_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"w": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(ValueError, match=r"index\.json .*several files"):
        load_checkpoint(path)


def test_an_absent_file_tells_what_is_there(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "w.safetensors", {"w": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"no checkpoint at .*v\.safetensors; .* w\.safeten"):
        load_checkpoint(tmp_path / "v.safetensors")


def test_a_weight_with_two_names_is_written_twice(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    weights = {"a": shared, "b": shared, "c": shared[1:3]}
    path = save_safetensors(tmp_path / "w.safetensors", weights)
    read = load_checkpoint(path)["model_state"]
    assert all(value.equal(read[name]) for name, value in weights.items())


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = save_safetensors(tmp_path / "w.safetensors", {"w": torch.ones(2)})
    with pytest.raises(KeyError, match="complex128"):  # a type that the format does not have
        save_safetensors(path, {"a": torch.zeros(2, dtype=torch.complex128)})
    assert os.listdir(tmp_path) == [path.name]
    assert torch.equal(load_checkpoint(path)["model_state"]["w"], torch.ones(2))
