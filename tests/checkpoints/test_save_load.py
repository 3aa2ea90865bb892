"""Writing and reading checkpoint files, with every kind of accident."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_forms import run_sandboxed

from slowfast_maskfeat.checkpoints.save_load import (
    checkpoint_path,
    find_checkpoints,
    keep_last,
    load_checkpoint,
    save_checkpoint,
)


def payload() -> dict[str, object]:
    return {
        "model_state": OrderedDict(weight=torch.arange(6.0).reshape(2, 3)),
        "epoch": 3,
        "python_random": random.Random(0).getstate(),
        "nothing": None,
        "cfg": "SOLVER: {}",
        "names": ["a", ("b", 1.5), True],
    }


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "new" / "folder" / "checkpoint_epoch_00003.pyth", payload())
    got = load_checkpoint(path)
    expected = payload()
    assert torch.equal(got["model_state"]["weight"], expected["model_state"]["weight"])  # type: ignore[index]
    assert {k: v for k, v in got.items() if k != "model_state"} == {
        k: v for k, v in expected.items() if k != "model_state"
    }
    assert os.listdir(path.parent) == [path.name]
    generator = random.Random(1)
    generator.setstate(got["python_random"])
    assert generator.random() == random.Random(0).random()


@pytest.mark.parametrize("value", [np.float64(1.0), np.zeros(2), Path("x"), object(), print])
def test_what_could_not_be_read_back_is_refused_with_its_place(
    tmp_path: Path, value: object
) -> None:
    path = tmp_path / "c.pyth"
    with pytest.raises(TypeError, match=r"payload\['a'\]\[1\] is a "):
        save_checkpoint(path, {"a": [1, value]})
    assert not any(tmp_path.iterdir())


@contextmanager
def _full_disk() -> Iterator[None]:
    """No file can grow beyond 64 kB, as on a disk without space."""
    resource = pytest.importorskip("resource", reason="sizes of files are limited on Unix only")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "checkpoint_epoch_00001.pyth", {"epoch": 1})
    with _full_disk(), pytest.raises(OSError, match="File too large"):
        save_checkpoint(path, {"model_state": {"weight": torch.ones(100_000)}})
    assert os.listdir(tmp_path) == [path.name]
    assert load_checkpoint(path) == {"epoch": 1}


def test_a_failed_rename_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_epoch_00001.pyth"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        save_checkpoint(path, {"epoch": 2})
    assert os.listdir(tmp_path) == [path.name]
    assert os.listdir(path) == []


KILLED = """
import os, signal, sys, torch
from slowfast_maskfeat.checkpoints import save_load
def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = die
save_load.save_checkpoint(sys.argv[1], {"epoch": 2})
"""


def test_a_killed_save_is_ignored_and_swept_up_by_the_next(tmp_path: Path) -> None:
    first = save_checkpoint(checkpoint_path(tmp_path, prefix="ssl", epoch=1), {"epoch": 1})
    second = checkpoint_path(tmp_path, prefix="ssl", epoch=2)
    other_task = tmp_path / ".checkpoint_epoch_00009.pyth.part"
    other_task.touch()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run([sys.executable, "-c", KILLED, str(second)], env=environment)
    assert process.returncode == -9
    half = tmp_path / f".{second.name}.part"
    assert half.exists()
    assert find_checkpoints(tmp_path, "ssl") == [first]
    third = save_checkpoint(checkpoint_path(tmp_path, prefix="ssl", epoch=3), {"epoch": 3})
    assert not half.exists()
    assert other_task.exists()
    assert find_checkpoints(tmp_path, "ssl") == [first, third]


def test_names_and_order(tmp_path: Path) -> None:
    assert checkpoint_path("x", epoch=300).name == "checkpoint_epoch_00300.pyth"
    assert checkpoint_path("x", prefix="ssl", epoch=3).name == "ssl_checkpoint_epoch_00003.pyth"
    name = checkpoint_path("x", prefix="ssl", epoch=2, step=120).name
    assert name == "ssl_checkpoint_epoch_00002_step_0000120.pyth"

    places = [(2, 0), (1, 0), (100000, 0), (2, 9), (2, 10), (10, 0)]
    for prefix in ("", "ssl", "ssl_eval"):
        for epoch, step in places:
            checkpoint_path(tmp_path, prefix=prefix, epoch=epoch, step=step).touch()
    (tmp_path / "checkpoint_epoch_00011.pyth.bak").touch()
    (tmp_path / "best_checkpoint.pyth").touch()
    for prefix in ("", "ssl", "ssl_eval"):
        found = find_checkpoints(tmp_path, prefix)
        assert found == [
            checkpoint_path(tmp_path, prefix=prefix, epoch=epoch, step=step)
            for epoch, step in sorted(places)
        ]
    assert find_checkpoints(tmp_path, "eval") == []
    assert find_checkpoints(tmp_path / "nowhere", "") == []


def test_only_the_newest_of_one_task_stay(tmp_path: Path) -> None:
    for prefix in ("", "ssl"):
        for epoch in range(1, 6):
            checkpoint_path(tmp_path, prefix=prefix, epoch=epoch).touch()
    assert keep_last(tmp_path, "ssl", 0) == []
    removed = keep_last(tmp_path, "ssl", 2)
    assert removed == [checkpoint_path(tmp_path, prefix="ssl", epoch=e) for e in (1, 2, 3)]
    assert len(find_checkpoints(tmp_path, "ssl")) == 2
    assert len(find_checkpoints(tmp_path, "")) == 5
    assert keep_last(tmp_path, "ssl", 7) == []
    with pytest.raises(ValueError, match="-1"):
        keep_last(tmp_path, "ssl", -1)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="Linux only")
def test_a_file_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match=r"/proc/self/mem cannot be read: Input/output error"):
        load_checkpoint("/proc/self/mem")


class NeedsCode:
    """Something that weights-only loading must refuse."""


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"c\.pyth; the folder .*nowhere"):
        load_checkpoint(tmp_path / "nowhere" / "c.pyth")
    with pytest.raises(ValueError, match=r"c\.pyth; .* no checkpoints"):
        load_checkpoint(tmp_path / "c.pyth")
    whole = save_checkpoint(tmp_path / "whole.pyth", {"w": torch.zeros(1000)})
    with pytest.raises(ValueError, match=r"no checkpoint at .*c\.pyth; .* whole\.pyth"):
        load_checkpoint(tmp_path / "c.pyth")
    with pytest.raises(ValueError, match="is a folder"):
        load_checkpoint(tmp_path)

    cut = tmp_path / "cut.pyth"
    cut.write_bytes(whole.read_bytes()[:700])
    for content in (b"", b"a text file\nof two lines"):
        (tmp_path / f"{len(content)}.pyth").write_bytes(content)
    for path in (cut, tmp_path / "0.pyth", tmp_path / "24.pyth"):
        with pytest.raises(ValueError, match=f"{path.name} is not a (complete )?checkpoint"):
            load_checkpoint(path)
    (tmp_path / "page.pyth").write_bytes(b"<!DOCTYPE html><html>")
    with pytest.raises(ValueError, match=r"page\.pyth is not a checkpoint"):
        load_checkpoint(tmp_path / "page.pyth")
    torch.save([1, 2], tmp_path / "list.pyth")
    with pytest.raises(ValueError, match=r"list\.pyth .*got a list"):
        load_checkpoint(tmp_path / "list.pyth")


class RunsCode:
    """What an attacker would send: reading it calls a function."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.trace), "w"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["beside the weights", "instead of them"])
def test_a_malicious_file_runs_nothing(tmp_path: Path, zipped: bool, place: str) -> None:
    path, trace = tmp_path / "bad.pyth", tmp_path / "trace"
    content = {"model_state": {"w": torch.ones(2)}, "meter": RunsCode(trace)}
    whole = content if place == "beside the weights" else RunsCode(trace)
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"needs the code of (_?io|builtins)\.open"):
        load_checkpoint(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the trap is a real one
    assert trace.exists()


@pytest.mark.parametrize(
    ("further", "code"),
    [(np.float64(81.3), r"numpy\S*"), (NeedsCode(), r"\S*NeedsCode")],
    ids=["a number of numpy", "an object"],
)
def test_a_file_that_needs_code_is_refused_with_a_way_to_rewrite_it(
    tmp_path: Path, further: object, code: str
) -> None:
    path = tmp_path / "an old one.pyth"
    torch.save({"model_state": {"w": torch.ones(2)}, "further": further}, path)
    with pytest.raises(ValueError, match=f"needs the code of {code} to be read") as caught:
        load_checkpoint(path)
    assert "(INSTALL.md, 'Old checkpoints')" in str(caught.value)
    assert "\n" not in str(caught.value)
    rewritten = run_sandboxed(str(caught.value).partition(": mkdir")[2])
    assert rewritten == tmp_path / "rewritten" / "an old one.pyth"
    assert load_checkpoint(rewritten)["model_state"]["w"].tolist() == [1, 1]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("value", [np.ones(2), torch.ones(2), 1.5], ids=["numpy", "torch", "plain"])
def test_a_plain_pickle_is_told_from_a_damaged_file(
    tmp_path: Path, protocol: int, value: object
) -> None:
    path = tmp_path / "old.pkl"
    path.write_bytes(pickle.dumps({"model_state": {"w": value}}, protocol))
    text = r"(is a plain pickle|needs the code of \S+ to be read), "
    with pytest.raises(ValueError, match=text) as caught:
        load_checkpoint(path)
    assert "slowfast_maskfeat rewrite --checkpoint" in str(caught.value)


@pytest.mark.parametrize("size", [900, 1000, 4500, 5000])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_that_is_cut_off(tmp_path: Path, size: int, zipped: bool) -> None:
    path = tmp_path / "cut.pyth"
    torch.save({"w": torch.zeros(1200)}, path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size > size
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"cut\.pyth is not a complete checkpoint"):
        load_checkpoint(path)
