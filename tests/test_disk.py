"""Errors of the system while writing get the path of the file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from slowfast_maskfeat.disk import make_folder, probe_file, write_error, writing


def _during(first: Exception, second: Exception) -> Exception:
    """An error that a library raises while it handles another one."""
    try:
        try:
            raise first
        except OSError:
            raise second  # noqa: B904 - as torch.save does it
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (
            _during(OSError(errno.ENOSPC, "x"), RuntimeError("unexpected pos 64 vs 0")),
            errno.ENOSPC,
        ),
        (Exception("Error while serializing: I/O error: no space (os error 28)"), errno.ENOSPC),
    ],
    ids=["write", "quota", "torch", "safetensors"],
)
def test_a_full_disk_is_named_with_the_path(error, number, tmp_path):
    with pytest.raises(OSError) as raised, writing(tmp_path / "a.pyth"):
        raise error
    assert raised.value.errno == write_error(error) == number
    assert raised.value.strerror == os.strerror(number)
    assert raised.value.filename == str(tmp_path / "a.pyth")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape"),
        OSError("HTTP 500"),
        FileNotFoundError(2, "No such file", "b.mp4"),
        ValueError("for users (os error 28)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_are_unchanged(error):
    with pytest.raises(type(error)) as raised, writing("a.pyth"):
        raise error
    assert raised.value is error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
def test_numpys_short_write_gets_its_reason():
    with (
        pytest.raises(OSError) as raised,
        writing("/dev/full"),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        np.zeros(100_000).tofile(file)
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == "/dev/full"


@pytest.mark.parametrize("inside", ["", "below", "below/further"])
def test_a_file_in_the_way_of_a_folder_is_named(inside, tmp_path):
    (tmp_path / "output").write_text("a file")
    with pytest.raises(NotADirectoryError) as raised:
        make_folder(tmp_path / "output" / inside)
    assert raised.value.filename == str(tmp_path / "output")
    assert raised.value.strerror == "must be a folder, but is a file"


def test_a_folder_may_exist(tmp_path):
    assert make_folder(make_folder(tmp_path / "a" / "b")).is_dir()


@pytest.mark.parametrize("name", ["new.npz", "new/further/a.npz", "old.npz"])
def test_a_probe_creates_nothing(name, tmp_path):
    (tmp_path / "old.npz").write_text("kept")
    probe_file(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.npz"]
    assert (tmp_path / "old.npz").read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "in_the_way", "reason"),
    [
        ("folder", "folder", "must be a file, but is a folder"),
        ("file/a.npz", "file", "must be a folder, but is a file"),
        ("file/new/a.npz", "file", "must be a folder, but is a file"),
    ],
)
def test_a_probe_names_what_is_in_the_way(name, in_the_way, reason, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OSError) as raised:
        probe_file(tmp_path / name)
    assert raised.value.filename == str(tmp_path / in_the_way)
    assert raised.value.strerror == reason


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is of Linux")
@pytest.mark.parametrize("name", ["/proc/a.npz", "/proc/new/a.npz"])
def test_a_probe_names_the_folder_that_cannot_be_written(name):
    with pytest.raises(OSError) as raised:
        probe_file(name)
    assert raised.value.filename == "/proc"
