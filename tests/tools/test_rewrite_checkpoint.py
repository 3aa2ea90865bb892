"""tools/rewrite_checkpoint.py: old files of every kind come out as ones that are read here."""

from __future__ import annotations

import pickle
import re
import sys
import types
from argparse import Namespace
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.load_tool import Done, run_tool
from helpers.tiny_run import ROOT
from torch import nn

from slowfast_maskfeat.checkpoints import load_checkpoint, save_checkpoint

TOOL = ROOT / "tools/rewrite_checkpoint.py"
VALUES = [[1.0, 2.0], [3.0, 4.0]]
TENSOR, ARRAY = torch.tensor(VALUES), np.array(VALUES, np.float32)


PROGRAM = """
class Meter:
    def __init__(self):
        self.history = [1.5]
class Options(dict):
    pass
class History(list):
    pass
def smoothed():
    pass
"""

Rewrite = Callable[[Path, Path], Done]


@pytest.fixture
def rewrite() -> Rewrite:
    """Calls the tool in this process: (input, output) -> code, output, errors."""

    def call(source: Path, output: Path) -> Done:
        return run_tool("tools/rewrite_checkpoint.py", "--input", source, "--output", output)

    return call


def rewritten(rewrite: Rewrite, source: Path) -> tuple[dict[str, Any], str]:
    """What is read of the new file, and what was printed; the old one was refused."""
    with pytest.raises(ValueError, match=r"tools/rewrite_checkpoint\.py"):
        load_checkpoint(source)
    output = source.with_name("new.pyth")
    code, printed, errors = rewrite(source, output)
    assert code == 0, errors
    assert str(output) in printed
    return load_checkpoint(output), printed


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("key", ["model_state", "state_dict", "model"])
def test_weights_beside_objects(rewrite: Rewrite, tmp_path: Path, key: str, zipped: bool) -> None:
    content = {
        "args": Namespace(lr=0.1, best=Fraction(1, 3)),
        key: {"w": TENSOR, "n": nn.Parameter(TENSOR)},
        "epoch": np.int64(7),
        "cfg": "MVIT: {}",
        "class_names": ["a", np.str_("b")],
        "token_grid": (np.int64(1), 4, 4),
        "optimizer_state": {"m": TENSOR},
    }
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=zipped)
    got, printed = rewritten(rewrite, tmp_path / "old.pth")
    assert {name: value.tolist() for name, value in got.pop("model_state").items()} == {
        "w": VALUES,
        "n": VALUES,
    }
    assert got == {
        "epoch": 7,
        "cfg": "MVIT: {}",
        "class_names": ["a", "b"],
        "token_grid": [1, 4, 4],
    }
    assert "left out: args, optimizer_state" in printed


def test_code_that_is_not_here_is_not_needed(rewrite: Rewrite, tmp_path: Path) -> None:
    program = types.ModuleType("another_program")
    exec(PROGRAM, program.__dict__)
    content = {
        "model": program.Options(w=TENSOR),
        "meters": [program.Meter(), program.smoothed, program.History([1, 2])],
        "cfg": program.Options(lr=0.1),  # no text
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, program.__name__, program)
        torch.save(content, tmp_path / "old.pth")
    got, printed = rewritten(rewrite, tmp_path / "old.pth")
    assert got.keys() == {"model_state"}
    assert got["model_state"]["w"].tolist() == VALUES
    assert "left out: meters, cfg" in printed


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("key", ["blobs", "model_state", None])
def test_arrays_in_a_plain_pickle(
    rewrite: Rewrite, tmp_path: Path, protocol: int, key: str | None
) -> None:
    weights = {
        "w": ARRAY,
        "big-endian": ARRAY.astype(">f4"),
        "turned": ARRAY.T,
        "number": np.float64(1.5),
        "words": np.array(["a", "b"]),
    }
    content = weights if key is None else {key: weights, "lr": 0.1}
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(content, protocol))
    got, printed = rewritten(rewrite, tmp_path / "old.pkl")
    assert {name: value.tolist() for name, value in got["model_state"].items()} == {
        "w": VALUES,
        "big-endian": VALUES,
        "turned": ARRAY.T.tolist(),
        "number": 1.5,
    }
    assert f"left out: {'lr, ' if key else ''}words" in printed


def test_a_text_of_python_2_does_not_hinder(rewrite: Rewrite, tmp_path: Path) -> None:
    """Its texts were bytes in any encoding."""
    content = pickle.dumps({"blobs": {"w": ARRAY}, "note": "Z"}, 2)
    letter = b"X\x01\x00\x00\x00Z"
    assert content.count(letter) == 1
    (tmp_path / "old.pkl").write_bytes(content.replace(letter, b"U\x01\xe9"))
    got, _ = rewritten(rewrite, tmp_path / "old.pkl")
    assert got["model_state"]["w"].tolist() == VALUES


def test_a_whole_model(rewrite: Rewrite, tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    for content in (model, {"model": model}):
        torch.save(content, tmp_path / "old.pth")
        got, _ = rewritten(rewrite, tmp_path / "old.pth")
        assert torch.equal(got["model_state"]["weight"], model.weight)
        (tmp_path / "new.pyth").unlink()


def test_what_is_readable_already_stays_what_it_is(rewrite: Rewrite, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "old.pyth", {"w": TENSOR, "epoch": 3})
    code, printed, errors = rewrite(source, tmp_path / "new.pyth")
    assert code == 0, errors
    got = load_checkpoint(tmp_path / "new.pyth")
    assert (got["model_state"]["w"].tolist(), got["epoch"]) == (VALUES, 3)
    assert "left out" not in printed


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("absent.pth", "new.pyth", r"absent\.pth: No such file"),
        ("empty.pth", "new.pyth", r"empty\.pth must contain tensors, got the keys epoch"),
        ("text.pth", "new.pyth", r"text\.pth can't be read: "),
        ("whole.pth", "new.safetensors", r"--output must end in one of \.pyth, \.pth, \.pt"),
        ("whole.pth", "text.pth", r"--output must not exist, got .*text\.pth"),
        ("whole.pth", "text.pth/new.pth", "must be a folder, but is a file"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    rewrite: Rewrite, tmp_path: Path, source: str, output: str, message: str
) -> None:
    (tmp_path / "text.pth").write_text("a text\nof two lines")
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    torch.save({"w": TENSOR}, tmp_path / "whole.pth")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, printed, errors = rewrite(tmp_path / source, tmp_path / output)
    assert (code, printed) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_else_reads_files_that_run_code() -> None:
    """The documents name no other way either."""
    places = [
        path
        for folder in ("slowfast_maskfeat", "tools", "datasets", "docs", ".")
        for path in (ROOT / folder).glob("**/*" if folder != "." else "*.md")
        if path.suffix in (".py", ".md")
    ]
    assert len(places) > 100
    reads = ("weights_only=False", "pickle.load", "Unpickler(")
    found = {path for path in places if any(way in path.read_text() for way in reads)}
    assert found == {TOOL}
