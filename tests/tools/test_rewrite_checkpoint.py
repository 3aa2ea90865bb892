"""tools/rewrite_checkpoint.py: old files of every kind come out as ones that are read here."""

from __future__ import annotations

import codecs
import functools
import io
import os
import pickle
import re
import sys
import types
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.load_tool import Done, run_tool
from helpers.loud_program import LoudProgram
from helpers.tiny_run import ROOT
from torch import nn

from slowfast_maskfeat.checkpoints import load_checkpoint, save_checkpoint

READER = ROOT / "slowfast_maskfeat/checkpoints/restricted_pickle.py"
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
        return run_tool("tools/rewrite_checkpoint.py", "--checkpoint", source, "--output", output)

    return call


def rewritten(rewrite: Rewrite, source: Path) -> tuple[dict[str, Any], str]:
    """What is read of the new file, and what was printed; the old one was refused."""
    with pytest.raises(ValueError, match=r"slowfast_maskfeat rewrite --checkpoint"):
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


NETWORK = """
import functools
import torch
from torch import nn

def scaled(x, factor):
    return factor * x

class Attributes:
    __slots__ = ("gain", "__dict__")
    def __getstate__(self):
        return None, {"gain": self.gain}

class Convolution(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.w = nn.Parameter(torch.arange(2.0 * width).view(2, width))
        self.b = nn.Parameter(torch.zeros(2))
        self.register_parameter("none", None)
        self.device = torch.device("cpu")
        self.make = functools.partial(scaled, factor=2)
        self.options = Attributes()
        self.options.gain = 0.5

class Network(nn.Module):
    width: int = 3
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential()
        self.blocks.add_module("input", Convolution(self.width))
        group = nn.Sequential(Convolution(2), nn.ReLU(), nn.BatchNorm2d(2), nn.Identity())
        self.blocks.add_module("group_1", group)
        self.again = self.blocks.input
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.register_buffer("scale", torch.full((2,), 3.0))
        self.absent = None
        self.register_forward_hook(scaled)
        self.register_forward_pre_hook(scaled)
        self.kinds = {Convolution: 1, (Network, scaled): {scaled}}

class Recursive(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        self._modules["itself"] = self

class Mutual(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        self.inner = nn.Sequential(nn.Sequential())
        self.inner[0]._modules["outer"] = self

def nested(module, times, copies=1):
    for _ in range(times):
        module = nn.Sequential(*[module] * copies)
    return module

class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nested(Convolution(2), 120)

class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nested(Convolution(2), 40, copies=2)

class LongNames(nn.Module):
    def __init__(self):
        super().__init__()
        self._modules["x" * 999] = nn.Linear(2, 2)

class Malformed(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        self.b = nn.Parameter(torch.ones(2))
        self.register_buffer("m", torch.zeros(2))
        self.__dict__.update(attributes)

class Opaque(nn.Module):
    def __getstate__(self):
        return {"hidden": 1}
"""


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A program whose classes are absent when the `with` of a test has ended."""
    program = types.ModuleType("another_network")
    exec(NETWORK, program.__dict__)
    return program


def save_of_absent(program: types.ModuleType, content: Any, path: Path, kind: str) -> None:
    """Writes a file whose classes are absent afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, program.__name__, program)
        if kind.startswith("protocol"):
            path.write_bytes(pickle.dumps(content, int(kind[-1])))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")


@pytest.mark.parametrize("kind", ["zip", "legacy", "protocol 1", "protocol 2", "protocol 5"])
@pytest.mark.parametrize("key", [None, "model"])
def test_parameters_of_a_module_whose_class_is_absent(
    rewrite: Rewrite, tmp_path: Path, network: types.ModuleType, key: str | None, kind: str
) -> None:
    model = network.Network()
    expected = model.state_dict()
    content = model if key is None else {key: model, "lr": 0.1}
    save_of_absent(network, content, tmp_path / "old.pkl", kind)
    got, _ = rewritten(rewrite, tmp_path / "old.pkl")
    weights = got["model_state"]
    assert list(weights) == list(expected)
    assert {"blocks.input.w", "blocks.group_1.2.running_mean", "again.b"} <= set(weights)
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name
        assert type(weights[name]) is torch.Tensor


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Opaque", "an object of the class another_network.Opaque whose parameters can't be found"),
        ("Recursive", r"must not contain itself, got one that does as itself\.$"),
        ("Mutual", r"must not contain itself, got one that does as inner\.0\.outer\.$"),
        ("Deep", r"at most .* 100 levels .* got .* 101 levels"),
        ("Doubled", r"at most 100,000 parts and weights, .* got 100,0\d\d parts"),
        ("LongNames", r"at most .* 1,000 characters in a name, .* 1,006 characters$"),
        ("scaled", "must contain tensors|can't be read"),
    ],
)
def test_a_module_without_an_end_or_parameters_is_one_line(
    rewrite: Rewrite, tmp_path: Path, network: types.ModuleType, name: str, message: str
) -> None:
    held = getattr(network, name)
    content = held() if isinstance(held, type) else held
    save_of_absent(network, content, tmp_path / "old.pkl", "zip")
    code, printed, errors = rewrite(tmp_path / "old.pkl", tmp_path / "new.pyth")
    assert (code, printed) == (2, "")
    (line,) = errors.splitlines()
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"_non_persistent_buffers_set": 7}, "b m"),
        ({"_non_persistent_buffers_set": "m"}, "b m"),
        ({"_non_persistent_buffers_set": [["m"], 3, "m"]}, "b"),
        ({"_non_persistent_buffers_set": frozenset("m")}, "b"),
        ({"_buffers": 7}, "b"),
        ({"_buffers": {3: TENSOR, "n": TENSOR, None: 1}}, "b n"),
        ({"_buffers": {"n": [7]}}, "b"),
        ({"_parameters": {("a",): TENSOR, "a": TENSOR}}, "a m"),
        ({"_modules": {3: nn.Linear(1, 1), "of_no_module": 7, "none": None}}, "b m"),
    ],
)
def test_attributes_of_a_module_may_have_any_type(
    rewrite: Rewrite,
    tmp_path: Path,
    network: types.ModuleType,
    attributes: dict[str, Any],
    expected: str,
) -> None:
    save_of_absent(network, network.Malformed(**attributes), tmp_path / "old.pkl", "zip")
    got, _ = rewritten(rewrite, tmp_path / "old.pkl")
    assert list(got["model_state"]) == expected.split()


def test_lists_without_an_end_are_left_out(rewrite: Rewrite, tmp_path: Path) -> None:
    endless: list[Any] = ["a"]
    endless.append(endless)
    content = {
        "model": {"w": TENSOR},
        "class_names": endless,
        "token_grid": np.array([1, 4, 4]),
        "epoch": np.array(3),
        "other": Fraction(1, 3),
    }
    torch.save(content, tmp_path / "old.pth")
    got, printed = rewritten(rewrite, tmp_path / "old.pth")
    assert (got["epoch"], got["token_grid"]) == (3, [1, 4, 4])
    assert "left out: class_names, other" in printed


class Bomb:
    """An object that calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("kind", ["zip", "legacy", "protocol 0", "protocol 2", "protocol 5"])
def test_no_code_of_a_file_runs(rewrite: Rewrite, tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    nested = io.BytesIO()
    torch.save({"bomb": Bomb(os.mkdir, str(marker))}, nested)
    bombs = [
        Bomb(os.mkdir, str(marker)),
        Bomb(exec, f"import os; os.mkdir({str(marker)!r})"),
        Bomb(functools.partial(os.mkdir, str(marker))),
        Bomb(map, os.mkdir, [str(marker)]),
        Bomb(__import__, "this_is_absent"),
        Bomb(torch.load, str(tmp_path / "other.pth")),
        Bomb(torch.storage._load_from_bytes, nested.getvalue()),
        Bomb(codecs.encode, "abc", "rot13"),
    ]
    content = {"model": {"w": TENSOR, "bomb": bombs[0]}, "epoch": 3, "bombs": bombs}
    module = types.ModuleType("empty")
    save_of_absent(module, content, tmp_path / "old.pkl", kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code, printed, errors = rewrite(tmp_path / "old.pkl", tmp_path / "new.pyth")
    assert code == 0, errors
    assert load_checkpoint(tmp_path / "new.pyth")["model_state"]["w"].tolist() == VALUES
    assert "left out: bombs, bomb" in printed
    assert not marker.exists()
    pickle.loads(pickle.dumps(bombs[0]))  # it does work
    assert marker.exists()


CALLED = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,
    ("torch", "UntypedStorage"): torch.UntypedStorage,
    ("torch.nn.parameter", "Parameter"): nn.Parameter,
    ("numpy.core.numeric", "_frombuffer"): np._core.numeric._frombuffer,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "dict"): dict,
    ("numpy", "ndarray"): np.ndarray,
    ("torch", "device"): torch.device,
    ("torch", "float32"): torch.float32,
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "in a file of torch"])
@pytest.mark.parametrize("in_slots", [True, False], ids=["setattr", "update of __dict__"])
@pytest.mark.parametrize("name", CALLED, ids=".".join)
@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
def test_a_file_changes_nothing_that_it_calls(
    rewrite: Rewrite, tmp_path: Path, name: tuple[str, str], in_slots: bool, wrapped: bool
) -> None:
    """The instruction BUILD sets attributes of any object, functions and classes included."""
    held = CALLED[name]
    before = getattr(held, "__defaults__", None)
    state = b"}X\x0c\x00\x00\x00__defaults__K\x07\x85s"  # {"__defaults__": (7,)}
    state = b"N" + state + b"\x86" if in_slots else state  # (None, state)
    payload = b"\x80\x02c" + "\n".join(name).encode() + b"\n" + state + b"b."
    if wrapped:
        torch.save({"w": TENSOR}, tmp_path / "whole.pth")
        with (
            zipfile.ZipFile(tmp_path / "whole.pth") as whole,
            zipfile.ZipFile(tmp_path / "old.pkl", "w") as changed,
        ):
            for record in whole.namelist():
                is_pickle = record.endswith("data.pkl")
                changed.writestr(record, payload if is_pickle else whole.read(record))
    else:
        (tmp_path / "old.pkl").write_bytes(payload)
    code, printed, errors = rewrite(tmp_path / "old.pkl", tmp_path / "new.pyth")
    assert getattr(held, "__defaults__", None) == before
    assert (code, printed) == (2, "")
    (line,) = errors.splitlines()
    guarded = isinstance(held, types.FunctionType) or held in (torch.UntypedStorage, nn.Parameter)
    reason = "it changes the functions that rebuild tensors$" if guarded else ""
    assert re.search(f"can't be read: {reason}", line)


def test_parameters_and_storages_are_still_made(rewrite: Rewrite, tmp_path: Path) -> None:
    """Files of old versions call the class Parameter; others hold storages."""
    bomb = Bomb(nn.Parameter, TENSOR)
    content = {"model": {"w": bomb}, "storage": torch.UntypedStorage(4), "args": Fraction(1)}
    torch.save(content, tmp_path / "old.pth")
    got, printed = rewritten(rewrite, tmp_path / "old.pth")
    assert got["model_state"]["w"].tolist() == VALUES
    assert "left out: storage, args" in printed


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_program_of_torch_is_refused(rewrite: Rewrite, tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "old.pth"))  # type: ignore[no-untyped-call]
    code, _, errors = rewrite(tmp_path / "old.pth", tmp_path / "new.pyth")
    assert code == 2
    assert "must not be a TorchScript archive" in errors


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_program_whose_archive_is_read_in_two_ways_does_not_run(
    rewrite: Rewrite, tmp_path: Path
) -> None:
    """After these bytes Python's reader of archives finds no records, torch's finds them."""
    path = tmp_path / "old.pth"
    torch.jit.script(LoudProgram()).save(str(path))  # type: ignore[no-untyped-call]
    path.write_bytes(path.read_bytes() + b"PK\x05\x06")
    code, _, errors = rewrite(path, tmp_path / "new.pyth")
    assert code == 2
    assert "must not be a TorchScript archive" in errors
    assert not (tmp_path / "new.pyth").exists()


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
    assert found == {READER}
